"""One function per command: parsed arguments in, exit code out. Each imports what it alone needs."""

import argparse
import shlex
from collections import Counter
from pathlib import Path

from blurdm.core.command import require_file_to_write, require_folder_to_write
from blurdm.core.errors import InputError

PHOTO_SETS = {
    "demo": Path("data.dvc"),
    "evidence": Path("experiments/evidence.pin.yaml"),
    "general": Path("experiments/general.pin.yaml"),
}


def run(parsed: argparse.Namespace) -> int:
    from blurdm.cli.chain import run_chain

    return run_chain(parsed)


def import_official(parsed: argparse.Namespace) -> int:
    from blurdm.cli.runs import import_checkpoints

    return import_checkpoints(parsed)


def score(parsed: argparse.Namespace) -> int:
    from blurdm.cli.score import score as run_score

    return run_score(parsed)


def deblur(parsed: argparse.Namespace) -> int:
    from blurdm.restore.batch import deblur
    from blurdm.stages.devices import choose_device

    parsed.device = choose_device(parsed.device)
    if parsed.out:
        require_folder_to_write("--out", parsed.out)
    options = ("model", "device", "memory", "tile", "latent", "seed", "precision", "strength", "even_sharp")
    chosen = {name: getattr(parsed, name) for name in options}
    return deblur(parsed.photos, parsed.out, chosen, parsed.jobs, parsed.threads, parsed.compare)


def app(parsed: argparse.Namespace) -> int:
    try:
        from blurdm.app.server import serve
    except ModuleNotFoundError as error:
        raise InputError(f"the page needs the package {error.name}: pip install 'blurdm[app]'") from None
    from blurdm.stages.devices import choose_device

    return serve(parsed.port, parsed.models, parsed.model, parsed.memory, choose_device(parsed.device))


def export_model(parsed: argparse.Namespace) -> int:
    from blurdm.restore.models import export_model

    export_model(parsed.run, parsed.file)
    print(f"{parsed.file}: {parsed.file.stat().st_size / 1e6:.2f} MB")
    return 0


def export_onnx(parsed: argparse.Namespace) -> int:
    from blurdm.restore.onnx_export import export_onnx

    require_file_to_write("FILE", parsed.file)
    difference = export_onnx(parsed.run, parsed.file, parsed.size)
    print(f"{parsed.file}: as PyTorch to {difference:.1e} in ONNX Runtime")
    return 0


def photos(parsed: argparse.Namespace) -> int:
    from blurdm.data.photos.demo import demo_set
    from blurdm.data.photos.fetched import fetched_set
    from blurdm.data.photos.pins import provide_photos

    photos = demo_set() if parsed.set == "demo" else fetched_set(parsed.set, parsed.archives, print)
    target = parsed.target or Path("data", parsed.set)
    pin = parsed.pin or PHOTO_SETS[parsed.set]
    count = provide_photos(target, pin, photos)
    print(f"{target}: {count} files, as pinned by {pin}")
    return 0


def pairs(parsed: argparse.Namespace) -> int:
    from blurdm.core.config_io import load_config
    from blurdm.data.blur.formation import make_pairs
    from blurdm.data.photos.synthesised import share_pairs

    config = load_config(parsed.config, parsed.set)
    if config.synthesis is not None:
        make_pairs(config.synthesis, Path(config.data.root), lambda done, total: None)
        print(f"{config.data.root}: pairs made from {config.synthesis.photos}")
    elif parsed.export is None:
        raise InputError(f"{parsed.config}: synthesis is null; this config's data set comes with its own pairs")
    if parsed.export is not None:
        share_pairs(config, parsed.export)
    return 0


def check(parsed: argparse.Namespace) -> int:
    from blurdm.core.config_io import load_config
    from blurdm.data.layouts import count_report, scan
    from blurdm.data.splits import build_index
    from blurdm.stages.plan import check_index, largest_crops, trained_sections

    config = load_config(parsed.config, parsed.set)
    data = config.data
    index = build_index(Path(data.root), data.layout, data.val_scenes, lambda done, total: None)
    check_index(index, data, largest_crops(trained_sections(config)))
    for line in count_report(scan(Path(data.root), data.layout), data.layout):
        print(line)
    counts = Counter(pair["split"] for pair in index["pairs"])
    splits = ", ".join(f"{counts[split]} {split}" for split in ("train", "val", "test"))
    print(f"{data.root}: {len(index['pairs'])} pairs are sound ({splits}); digest {index['digest']}")
    options = shlex.join(
        ["--config", str(parsed.config), *(word for change in parsed.set for word in ("--set", change))]
    )
    if not counts["train"]:
        print(f"nothing to train on; measure a trained model on it with: blurdm score RUN {options}")
    else:
        print(f"next: blurdm run {'measure' if counts['test'] else 'joint'} {options}")
    return 0


def adopt(parsed: argparse.Namespace) -> int:
    from blurdm.cli.runs import adopt_runs

    return adopt_runs(parsed)


def watch(parsed: argparse.Namespace) -> int:
    from rich.console import Console

    from blurdm.cli.watch import watch

    if not parsed.runs.is_dir():
        raise InputError(f"{parsed.runs}: no such folder of runs")
    watch(parsed.runs.absolute(), parsed.every, parsed.once, Console())
    return 0


def weights_fetch(parsed: argparse.Namespace) -> int:
    from blurdm.metrics.weights import WEIGHTS
    from blurdm.metrics.weights_fetch import fetch

    # A content that is known beforehand is that of a package.
    names = parsed.metric or [name for name, weights in WEIGHTS.items() if weights.content]
    fetch(names, parsed.source, print)
    return 0


def weights_list(parsed: argparse.Namespace) -> int:
    from blurdm.metrics.weights import WEIGHTS, place, status

    for name, weights in WEIGHTS.items():
        state = status(name)
        detail = f"{place(name)} ({weights.licence})" if state == "sound" else weights.advice
        print(f"{name:6} {state:8} {weights.megabytes:5.1f} MB  {detail}")
    return 0


def weights_pack(parsed: argparse.Namespace) -> int:
    from blurdm.metrics.weights_pack import pack

    print(f"{parsed.file}: {', '.join(pack(parsed.file))}")
    return 0


def weights_install(parsed: argparse.Namespace) -> int:
    from blurdm.metrics.weights_pack import install

    print(f"{parsed.file}: {', '.join(install(parsed.file))} installed")
    return 0


def profile(parsed: argparse.Namespace) -> int:
    from blurdm.cli.profile import print_all, print_profile
    from blurdm.core.config_io import load_config
    from blurdm.stages.devices import choose_device
    from blurdm.stages.plan import check

    parsed.device = choose_device(parsed.device)
    if parsed.all:
        require_file_to_write("--out", parsed.out)
    config = load_config(parsed.config, parsed.set)
    check(config, str(parsed.config))
    sizes = parsed.size or [(256, 256)]
    if parsed.all:
        print_all(config, parsed.device, parsed.threads, sizes[0], parsed.published, parsed.out)
    else:
        print_profile(config, parsed.device, parsed.threads, sizes, parsed.steps)
    return 0


def track(parsed: argparse.Namespace) -> int:
    from blurdm.cli.track import track

    return track(parsed)


def follow(parsed: argparse.Namespace) -> int:
    from blurdm.cli.track import follow

    return follow(parsed)


def track_ui(parsed: argparse.Namespace) -> int:
    from blurdm.cli.track import serve

    return serve(parsed)


def register(parsed: argparse.Namespace) -> int:
    from blurdm.core.addresses import public_uri
    from blurdm.tracking.client import default_uri
    from blurdm.tracking.register import register

    uri = default_uri()
    address = register(parsed.run, uri, parsed.name, parsed.experiment, Path.cwd())
    print(f"{address} in MLflow {public_uri(uri)}; serve it with: mlflow models serve -m {address} --env-manager local")
    return 0
