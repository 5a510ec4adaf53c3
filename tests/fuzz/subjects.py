"""What is fuzzed, each with its seeds and its budget; run as a program, in a process with bounded memory."""

import argparse
import io
import json
import math
import os
import pickle
import pickletools
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ruamel.yaml import YAML
from safetensors.torch import save

from blurdm.core.config_io import load_config
from blurdm.models import load_official
from blurdm.models.official import load_official as load_state
from blurdm.restore.models import FORMAT, find_model
from blurdm.restore.photo import decode_photo
from experiments.grid import GRIDS, load_grid
from tests.models.test_parity import official_state
from tests.restore.test_photo_fuzz import HOSTILE, SEEDS
from tests.support.fuzz import deep, limit_memory, mutated, odd, spoilt, watch
from tests.support.photos import sections, small_network
from tests.support.sections import paper_diffusion
from tests.support.tiny import SMOKE

SEED = 14
CANARY = "canary"
CODE = f"open({CANARY!r}, 'w').close()"


class Trap:
    """Unpickling it would leave the canary, by one of the ways that there are."""

    def __init__(self, way: int) -> None:
        self.way = way

    def __reduce__(self) -> Any:
        ways = [(exec, (CODE,)), (eval, (CODE,)), (os.system, (f"touch {CANARY}",)), (open, (CANARY, "w"))]
        return ways[self.way % len(ways)]


# --- model files ---------------------------------------------------------------------------------------------------


def model_parts(kind: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Weights and settings of a small model."""
    network, diffusion = small_network(kind, paper_diffusion()), paper_diffusion()
    names = {"baseline": ("backbone",), "joint": ("backbone", "latent", "diffusion")}[kind]
    stored = dict(zip(("backbone", "latent", "diffusion"), sections(diffusion), strict=True))
    settings = {"stage": kind, "sections": {name: stored[name].model_dump(mode="json") for name in names}}
    return {name: value.clone() for name, value in network.state_dict().items()}, settings


def model_bytes(weights: dict[str, torch.Tensor], settings: Any) -> bytes:
    return save(weights, {"format": FORMAT, "model": settings if isinstance(settings, str) else json.dumps(settings)})


def with_header(content: bytes, header: bytes) -> bytes:
    (length,) = struct.unpack("<Q", content[:8])
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


CONVERSIONS: list[Callable[[torch.Tensor], torch.Tensor]] = [
    *(lambda w: w.to(torch.complex64), lambda w: w.to(torch.int64), lambda w: w.to(torch.bool), lambda w: w * math.nan),
    *(lambda w: w / 0, lambda w: w.double() * 1e300, lambda w: w.half(), lambda w: w.to(torch.bfloat16)),
    *(lambda w: w[:0], lambda w: w[None], lambda w: w.to(torch.float8_e4m3fn)),
]


def models(budget: int) -> Iterator[bytes]:
    """Bytes changed anywhere; entries of the header changed; weights of other types and values."""
    rng = np.random.default_rng(SEED)
    parts = [model_parts(kind) for kind in ("baseline", "joint")]
    files = [model_bytes(*part) for part in parts]
    for number in range(budget):
        which = number % 2
        (length,) = struct.unpack("<Q", files[which][:8])
        header = json.loads(files[which][8 : 8 + length])
        weights = dict(parts[which][0])
        name = list(weights)[int(rng.integers(len(weights)))]
        if number % 5 < 2:
            yield mutated(files[which], number)
        elif number % 5 == 2:
            yield with_header(files[which], json.dumps(spoilt(header, rng)).encode(errors="surrogatepass"))
        elif number % 5 == 3:
            header[name]["data_offsets"] = [int(n) for n in rng.choice([0, 1, 4, 2**31, 2**53, 2**62], 2)]
            header[name]["shape"] = [int(n) for n in rng.choice([0, 1, 3, 2**31, 2**62], int(rng.integers(5)))]
            yield with_header(files[which], json.dumps(header).encode())
        else:
            change = CONVERSIONS[int(rng.integers(len(CONVERSIONS)))]
            weights[name] = change(weights[name]).contiguous()
            yield model_bytes(weights, parts[which][1])


def metadata(budget: int) -> Iterator[bytes]:
    """Settings changed anywhere, and texts that are no settings."""
    rng = np.random.default_rng(SEED)
    weights, settings = model_parts("joint")
    texts = [
        "",
        "[]",
        "3",
        "{}",
        "null",
        "[" * 100_000,
        '{"a":' * 100_000,
        "1" * 5000,
        '{"stage": NaN}',
        "\ufeff{}",
        '"\\ud800"',
    ]
    texts += [
        json.dumps(settings)[:-1] + f', "{key}": {value}}}' for key in ("stage", "x") for value in ("1", '"joint"')
    ]
    for number in range(budget):
        if number < len(texts):
            yield model_bytes(weights, texts[number])
        elif number % 3:
            tree = spoilt(settings, rng)
            yield model_bytes(weights, json.dumps(spoilt(tree, rng) if number % 2 else tree))
        else:
            text = mutated(json.dumps(settings).encode(), number)
            yield model_bytes(weights, text.decode(errors="replace"))


def use_model(content: bytes) -> None:
    path = Path("model.safetensors")
    path.write_bytes(content)
    find_model(path)


# --- checkpoints and pickles ---------------------------------------------------------------------------------------


def checkpoint(content: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def small_states() -> list[Any]:
    entries = {f"E.0.{name}": torch.rand(3, 4) for name in ("weight", "bias")}
    shared = torch.rand(6)
    views = [shared[:3], shared[3:].view(1, 3).expand(2, 3), torch.nn.Parameter(shared)]
    return [
        {"model_le_state": entries, "epoch": 3, "args": argparse.Namespace(lr=1e-4), "best": np.float64(31.5)},
        torch.nn.ModuleDict({"E": torch.nn.Sequential(torch.nn.Linear(3, 4))}).state_dict(),
        {f"E.{number}.weight": view for number, view in enumerate(views)},
    ]


def checkpoints(budget: int) -> Iterator[bytes]:
    """Both formats of torch.save, with bytes changed; traps; compressed, overlapping and missing parts."""
    files = [checkpoint(s, _use_new_zipfile_serialization=new) for s in small_states() for new in (True, False)]
    for number in range(budget):
        if number % 25 == 0:
            yield checkpoint(
                {"model_state": {}, "x": Trap(number // 25)}, _use_new_zipfile_serialization=number % 50 > 0
            )
        elif number % 10 == 1:
            yield repacked(files[2 * (number % 3)], number)
        else:
            yield mutated(files[number % len(files)], number)


def repacked(content: bytes, seed: int) -> bytes:
    """The same zip with one part bombed, compressed, renamed or taken away."""
    rng, buffer = np.random.default_rng(seed), io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(buffer, "w") as target:
        names = source.namelist()
        chosen, action = names[int(rng.integers(len(names)))], int(rng.integers(4))
        for name in names:
            part = source.read(name)
            if name == chosen and action == 0:
                target.writestr(name, bytes(30_000_000), zipfile.ZIP_DEFLATED)
            elif name == chosen and action == 1:
                target.writestr(name, part, zipfile.ZIP_DEFLATED)
            elif name == chosen and action == 2:
                target.writestr(f"../{name}", part)
            elif name != chosen:
                target.writestr(name, part)
    return buffer.getvalue()


BOMBS = [
    b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"x.",  # BYTEARRAY8 of a terabyte
    b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.",
    b"\x80\x02r" + struct.pack("<I", 2**32 - 1) + b".",
    b"\x80\x02N" + b"r" + struct.pack("<I", 2**32 - 1) + b".",
    b"\x80\x02)" + b"\x85" * 100_000 + b".",  # a tuple in a tuple in a tuple
    b"\x80\x02}" + b")" + b"\x85" * 100_000 + b"Ns.",  # the same as a key
    b"\x80\x02" + b"]" * 1000 + b"a" * 999 + b".",
    b"cbuiltins\nbytearray\n(I1000000000000\ntR.",
    b"ctorch\nSize\n((lI1\naI2\natR.",
    b"\x80\x02]q\x00" + b"K\x01a" * 50_000 + b"h\x00cbuiltins\nset\nh\x00\x85R0" * 20_000 + b".",
    b"L" + b"9" * 20_000 + b"L\n.",
    b"(" * 100_000 + b".",
]


def pickles(budget: int) -> Iterator[bytes]:
    """Programs for pickle's machine in a checkpoint of today's format: bombs, traps, changed and random ones."""
    rng = np.random.default_rng(SEED)
    seeds = []
    for state in small_states():
        with zipfile.ZipFile(io.BytesIO(checkpoint(state))) as archive:
            seeds.append(archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl"))))
    numbers = [opcode.code.encode("latin1") for opcode in pickletools.opcodes]
    storage = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(("
    storage += b"X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x03tQ"
    for number in range(budget):
        if number < len(BOMBS):
            program = BOMBS[number]
        elif number % 4 == 0:
            program = pickle.dumps({"x": Trap(number)}, protocol=number % 6)
        elif number % 4 == 1:  # tensors of other shapes
            ints = [pickle.dumps(int(n), 2)[2:-1] for n in rng.choice([-1, 0, 1, 3, 4, 2**31, 2**62, 2**63, 2**70], 5)]
            program = storage + ints[0] + b"(" + b"".join(ints[1:3]) + b"t(" + b"".join(ints[3:]) + b"t\x89Nt" + b"R."
            program = b"\x80\x02}X\x01\0\0\0a" + program[2:-1] + b"s."
        elif number % 4 == 2:
            program = mutated(seeds[number % 3], number)
        else:
            program = seeds[number % 3][: int(rng.integers(60))]
            program += b"".join(rng.choice(numbers, 30).tolist()) + rng.bytes(5) + b"."
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("archive/data.pkl", program)
            archive.writestr("archive/data/0", bytes(100))
        yield buffer.getvalue() if number % 8 < 6 else program


def use_checkpoint(content: bytes) -> None:
    path = Path("network.pth")
    path.write_bytes(content)
    load_official(path, "mimo_unet")


CHANGES: list[Callable[[torch.Tensor], Any]] = [
    *(lambda v: v.to(torch.complex64), lambda v: v.long(), lambda v: v * math.nan, lambda v: v > 0),
    *(lambda v: v.reshape(-1)[:0], lambda v: v[None], lambda v: v.double() * 1e300, lambda v: v.to_sparse()),
    *(lambda v: torch.zeros(1).expand(2**40), lambda v: v.to("meta"), lambda v: torch.tensor(math.inf)),
    *(lambda v: v.tolist(), lambda v: None, lambda v: torch.quantize_per_tensor(v.float(), 1.0, 0, torch.quint8)),
]


def states(budget: int) -> Iterator[dict[Any, Any]]:
    """State dicts of a sharp encoder, right but for one or two entries."""
    rng, state = np.random.default_rng(SEED), official_state("sharp_encoder")
    schedule = {"alphas": torch.linspace(1, 2, 6), "betas_bar": torch.linspace(0, 0.1, 5), "lcr_model.x": torch.ones(1)}
    names = list(state)
    for number in range(budget):
        changed: dict[Any, Any] = dict(state if number % 3 else schedule)
        names = list(changed)
        name = names[int(rng.integers(len(names)))]
        value, other = changed[name], odd(rng)
        changed[name] = CHANGES[number % len(CHANGES)](value)
        if number % 4 == 0:
            changed[f"module.{name}" if isinstance(other, dict | list) else other] = value
        yield changed


# --- YAML and photos -----------------------------------------------------------------------------------------------

LAUGHS = "".join(f"{c}: &{c} [{','.join(['*' + p] * 9)}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True))
TEXTS = [
    *("data: {root: 2024-13-45}", "seeds: &a [*a]", "seeds: [" + "9" * 5000 + "]", "[" * 900, "a: " * 900, "- 1", ""),
    *("\0", "%YAML 9.9\n", "!!python/object/apply:os.system ['touch canary']", "a: !!binary x", "&a {<<: *a}"),
    *("? [1]\n: 2", "a: .nan\nb: -.inf", f"a: &a [{','.join('x' * 9)}]\n{LAUGHS}", "a: 1e999", "a: !<tag:x> 1"),
    *("a: 0o777777777777777777777777", "a: '\\ud800'", "a: 2024-01-01T00:00:00Z", "{a: 1, a: 2}"),
]


def yamls(budget: int) -> Iterator[tuple[str, bytes]]:
    """Configs and grids: changed trees and changed bytes."""
    rng, reader = np.random.default_rng(SEED), YAML(typ="safe")
    files = {"config": SMOKE.read_bytes(), "grid": (GRIDS / "smoke.yaml").read_bytes()}
    trees = {kind: reader.load(content) for kind, content in files.items()}
    for number in range(budget):
        kind = "config" if number % 2 else "grid"
        if number // 2 < len(TEXTS):
            yield kind, TEXTS[number // 2].encode()
        elif number % 5 < 3:
            buffer = io.StringIO()
            json.dump(spoilt(trees[kind], rng), buffer)
            yield kind, buffer.getvalue().encode(errors="surrogatepass")
        else:
            yield kind, mutated(files[kind], number)


def use_yaml(value: tuple[str, bytes]) -> None:
    kind, content = value
    path = Path("file.yaml")
    path.write_bytes(content)
    if kind == "config":
        load_config(path)
    else:
        load_grid(path)


def photos(budget: int) -> Iterator[bytes]:
    """Bytes of every format changed, half of them in the headers; and files made to do harm."""
    yield from (make() for make in HOSTILE)
    for number in range(budget - len(HOSTILE)):
        yield mutated(SEEDS[number % len(SEEDS)], number)


def use_photo(content: bytes) -> None:
    decode_photo(content, "photo", 100 << 20)


SUBJECTS: dict[str, tuple[Any, Any, int]] = {
    "models": (models, use_model, 700),
    "metadata": (metadata, use_model, 500),
    "checkpoints": (checkpoints, use_checkpoint, 900),
    "pickles": (pickles, use_checkpoint, 900),
    "states": (states, partial(load_state, backbone="mimo_unet"), 300),
    "yaml": (yamls, use_yaml, 400),
    "photos": (photos, use_photo, 1200),
}


def main() -> None:
    """Fuzz every subject below the current folder; a line of JSON each."""
    torch.set_num_threads(1)
    use_model(model_bytes(*model_parts("joint")))  # loads what is loaded at first use
    deep()
    limit_memory()
    for name in sys.argv[1:] or SUBJECTS:
        make, use, budget = SUBJECTS[name]
        report = watch(make(budget), use)
        print(json.dumps({"subject": name, "canary": Path(CANARY).exists(), **report.as_dict()}), flush=True)


if __name__ == "__main__":
    main()
