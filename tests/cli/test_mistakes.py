"""Every mistake on every command line is one line and exit code 2, and nothing is written. To add one, add a line."""

import ctypes
import importlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.tiny import REPOSITORY, write_tiny_config

RUN = "blurdm run baseline --config {config}"
SWEEP = "sweep run --grid smoke --preset {config}"
SEED = "should be a whole number from 0 to 9223372036854775807"
# What is typed, and words of the line that comes back.
MISTAKES = {
    "blurdm": "the following arguments are required: COMMAND; see blurdm --help",
    "blurdm rum": "invalid choice: 'rum'",
    "blurdm run": "the following arguments are required: stage; see blurdm run --help",
    "blurdm run baseline --colour red": "unrecognized arguments: --colour red",
    # devices
    f"{RUN} --device foo": "argument --device: 'foo' should be auto, cpu, cuda or cuda:N",
    f"{RUN} --device cuda:x": "'cuda:x' should be auto, cpu, cuda or cuda:N",
    f"{RUN} --device meta": "'meta' should be auto, cpu",
    f"{RUN} --device ''": "'' should be auto, cpu",
    f"{RUN} --device cuda": "--device cuda: PyTorch sees no GPU here; should be cpu",
    f"{RUN} --device cuda:7": "--device cuda:7: PyTorch sees no GPU here",
    "blurdm score runs/baseline/x --config {config} --device cuda": "--device cuda: PyTorch sees no GPU",
    "blurdm profile --config {config} --device cuda": "--device cuda: PyTorch sees no GPU",
    "blurdm runs adopt --config {config} --runs folder --device cuda": "--device cuda: PyTorch sees no GPU",
    "blurdm deblur file.png --device foo": "'foo' should be auto, cpu",
    f"{SWEEP} --gpus-per-run 1": "--device cuda: PyTorch sees no GPU here",
    f"{SWEEP} --gpus-per-run 1 --executor inline": "PyTorch sees no GPU here",
    f"{SWEEP} --gpus-per-run 1 --executor ray": "PyTorch sees no GPU here",
    # numbers
    f"{RUN} --threads 0": "argument --threads: '0' should be a whole number from 1 to 1024",
    f"{RUN} --threads 100000": "'100000' should be a whole number from 1 to 1024",
    f"{RUN} --threads 1.5": "'1.5' should be a whole number",
    f"{RUN} --threads {'9' * 5000}": "should be a whole number",
    f"{RUN} --jobs -1": "argument --jobs: '-1' should be a whole number from 1",
    f"{RUN} --jobs nan": "'nan' should be a whole number",
    f"{RUN} --ranks 0": "'0' should be a whole number from 1",
    f"{RUN} --ranks ٣": "'٣' should be a whole number",
    f"{RUN} --seeds -1": f"argument --seeds: '-1' {SEED}",
    f"{RUN} --seeds ''": f"'' {SEED}",
    f"{RUN} --seeds 1,,2": f"'' {SEED}",
    f"{RUN} --seeds 1,1": "'1,1' names a seed twice",
    f"{RUN} --seeds 9223372036854775808": SEED,
    f"{RUN} --checkpoint-seconds nan": "'nan' should be a number of seconds, 0 or more",
    f"{RUN} --checkpoint-seconds inf": "'inf' should be a number of seconds",
    f"{RUN} --checkpoint-seconds -5": "'-5' should be a number of seconds",
    f"{RUN} --checkpoint-seconds soon": "'soon' should be a number of seconds",
    "blurdm deblur file.png --jobs 0": "'0' should be a whole number from 1",
    "blurdm deblur file.png --seed -1": SEED,
    "blurdm deblur file.png --tile 0": "'0' should be a whole number from 1",
    "blurdm deblur file.png --memory nan": "memory 'nan': should be a size such as 2GB",
    "blurdm deblur file.png --memory -2GB": "--memory: expected one argument",
    "blurdm deblur file.png --memory=-2GB": "memory '-2GB': should be a size",
    f"blurdm deblur file.png --memory {'9' * 400}GB": "should be a size such as 2GB",
    "blurdm app --port 65536": "'65536' should be a whole number from 0 to 65535",
    "blurdm app --port -1": "'-1' should be a whole number",
    "blurdm profile --config {config} --size 16": "'16' should be HEIGHTxWIDTH",
    "blurdm profile --config {config} --size 15x16": "'15x16' should be HEIGHTxWIDTH",
    "blurdm profile --config {config} --size 1000000x16": "should be HEIGHTxWIDTH",
    "blurdm profile --config {config} --steps -1": "'-1' should be a whole number from 0",
    f"{SWEEP} --device gpu": "'gpu' should be auto, cpu, cuda or cuda:N",
    f"{SWEEP} --device cuda:1": "--device cuda:1: PyTorch sees no GPU here",
    f"{SWEEP} --device cpu --gpus-per-run 1": "--device cpu: not together with --gpus-per-run 1",
    f"{SWEEP} --device cuda:1 --executor ray": "--device cuda:1: is one GPU of this machine; should be cuda",
    "blurdm app --device cuda": "--device cuda: PyTorch sees no GPU here",
    "blurdm deblur x.png --device cuda:3": "--device cuda:3: PyTorch sees no GPU here",
    f"{SWEEP} --gpus-per-run -1": "'-1' should be a whole number from 0",
    f"{SWEEP} --gpus-per-run 1.5": "'1.5' should be a whole number from 0 to 1024, or a share of a GPU from 0.01 to",
    f"{SWEEP} --gpus-per-run 0.0": "'0.0' should be a whole number from 0",
    f"{SWEEP} --gpus-per-run 0.5 --executor slurm": "--gpus-per-run 0.5: only --executor ray or processes lets runs",
    f"{SWEEP} --gpus-per-run 0.5 --ranks 2": "--ranks 2: should be one per GPU, as --gpus-per-run 0.5",
    f"{SWEEP} --gpus-per-run 0.5 --executor ray": "--device cuda: PyTorch sees no GPU here",
    f"{SWEEP} --max-concurrent 0": "'0' should be a whole number from 1",
    f"{SWEEP} --ranks 99999": "'99999' should be a whole number",
    f"{SWEEP} --retries -1": "'-1' should be a whole number from 0",
    f"{SWEEP} --seeds 0,x": f"'x' {SEED}",
    # values of configs
    f"{RUN} --set seeds=[]": "seeds: []: should be one or more, all different",
    f"{RUN} --set seeds=[1,1]": "seeds: [1, 1]: should be one or more",
    f"{RUN} --set seeds=[-1]": "seeds.0: -1",
    f"{RUN} --set data.batch_size=1000000000": "data.batch_size: 1000000000: input should be less than",
    f"{RUN} --set backbone.width=1000000000": "backbone.width: 1000000000",
    f"{RUN} --set backbone.blocks=1000000000": "backbone.blocks",
    f"{RUN} --set latent.size=1000000000": "latent.size: 1000000000",
    f"{RUN} --set diffusion.steps=1000000000": "diffusion.steps: 1000000000",
    f"{RUN} --set data.val_scenes=1000000000": "data.val_scenes",
    f"{RUN} --set data.crop=1000000000": "data.crop: 1000000000",
    f"{RUN} --set baseline.iterations=[{10**30}]": "holds a number beyond 64 bits",
    f"{RUN} --set data.root=2024-13-45": "override 'data.root=2024-13-45': not valid YAML (month must be in 1..12)",
    f"{RUN} --set data.root=2024-01-02": "holds a value of type date; should be numbers, text",
    f"{RUN} --set 'seeds=&a [*a]'": "levels deep",
    f"{RUN} --set seeds={'[' * 900}{']' * 900}": "nested more than 20 levels deep",
    f"{RUN} --set seeds={'1' * 5000}": "not valid YAML (Exceeds the limit",
    f"{RUN} --set 'data.root=\"\\0\"'": "holds text with a NUL character",
    f"{RUN} --set data.crop=.nan": "data.crop",
    f"{RUN} --set data.crop=1e999": "data.crop",
    f"{RUN} --set 'data.crop=!!int x'": "not valid YAML",
    f"{RUN} --set 'data.flips=!!bool x'": "not valid YAML",
    f"{RUN} --set 'data.root=!!binary aGk='": "holds a value of type bytes",
    f"{RUN} --set 'data.root={{{{1}}: 2}}'": "not valid YAML",
    f"{RUN} --set data": "should be section.key=value",
    f"{RUN} --set 'data.root: x'": "should be section.key=value",
    # places
    f"{RUN} --runs file.png": "--runs file.png: file.png is no folder",
    f"{RUN} --runs file.png/below": "--runs file.png/below: {root}/file.png is no folder",
    f"{RUN} --pointer folder": "--pointer folder: is a folder; should be a file",
    f"{RUN} --pointer file.png/x.json": "is no folder",
    f"{RUN} --export file.png": "--export file.png: file.png is no folder",
    "blurdm run baseline --config folder": "folder: no such config file",
    "blurdm run baseline --config /dev/zero": "/dev/zero: no such config file",
    "blurdm run baseline --config huge.yaml": "huge.yaml: larger than 1 MB",
    f"blurdm run baseline --config {'x' * 300}": "x",
    "blurdm run baseline --config file.png": "file.png: not valid YAML",
    "blurdm score file.png --config {config}": "not a finished run",
    "blurdm import none.pth --backbone mimo_unet": "none.pth",
    "blurdm import folder --backbone mimo_unet": "folder",
    "blurdm import file.png --backbone mimo_unet --runs file.png": "--runs file.png: file.png is no folder",
    "blurdm runs adopt --runs file.png": "file.png: no such folder of runs",
    "blurdm export model none folder": "none: not a finished run",
    "blurdm export onnx demo folder": "FILE folder: is a folder; should be a file",
    "blurdm weights pack file.png/y": "file.png",
    "blurdm weights install folder": "folder",
    "blurdm weights install none.tar": "none.tar",
    "blurdm weights fetch none": "'none' is not known",
    "blurdm profile --config {config} --all --out folder": "--out folder: is a folder",
    "blurdm data photos --pin folder --target new": "folder",
    "blurdm data photos --pin none.dvc --target new": "none.dvc",
    "blurdm data pairs --config {config}": "synthesis is null",
    "blurdm data video": "the following arguments are required: CLIP; see blurdm data video --help",
    "blurdm data video none.mp4": "none.mp4: no such file; should be a clip",
    "blurdm data video folder": "folder: no such file; should be a clip",
    "blurdm data video tiny.yaml": "tiny.yaml: not a clip that OpenCV can read; should be one, such as H.264 in MP4",
    "blurdm data video none.mp4 --target file.png": "--target file.png: file.png is no folder",
    "blurdm data video none.mp4 --frames 8": "'8' should be LOW-HIGH from 3 to 255 with an odd number among them",
    "blurdm data video none.mp4 --frames 13-7": "'13-7' should be LOW-HIGH",
    "blurdm data video none.mp4 --frames 1-7": "'1-7' should be LOW-HIGH",
    "blurdm data video none.mp4 --frames 7,9": "'7,9' should be LOW-HIGH",
    "blurdm data video none.mp4 --max-motion 0": "'0' should be a number of px above 0, at most 100",
    "blurdm data video none.mp4 --max-motion nan": "'nan' should be a number of px",
    "blurdm data video none.mp4 --stride 0": "'0' should be a whole number from 1",
    "blurdm data video none.mp4 --scale 0": "'0' should be a whole number from 1 to 16",
    "blurdm data video none.mp4 --too-fast ask": "argument --too-fast: invalid choice: 'ask'",
    "blurdm data video none.mp4 --gamma 2.2": "argument --gamma: invalid choice: '2.2'",
    "blurdm deblur none.png": "none.png",
    "blurdm deblur file.png --model folder": "folder: not a finished run",
    "blurdm deblur file.png --model file.png": "file.png: not a safetensors file",
    "blurdm deblur real.png --out file.png": "--out file.png: file.png is no folder",
    # names
    "blurdm track --experiment ../x": "name '../x': should have 1 to 100 bytes and no dot",
    "blurdm track --experiment a/b": "name 'a/b': should have no slashes",
    "blurdm track register runs/x/y --name a/b": "name 'a/b'",
    "blurdm track follow --runs nowhere": "nowhere: no such folder of runs",
    "blurdm track follow --runs . --ledger none.json": "none.json: no such ledger",
    "blurdm runs watch --runs nowhere": "nowhere: no such folder of runs",
    f"{SWEEP} --name lr/1e-3": "name 'lr/1e-3': should have no slashes",
    f"{SWEEP} --name ../x": "name '../x'",
    f"{SWEEP} --name ..": "name '..'",
    f"{SWEEP} --name ''": "name ''",
    f"{SWEEP} --name {'x' * 101}": "should have 1 to 100 bytes",
    f"{SWEEP} --name 'a\nb'": "name 'a b': should have no slashes and no characters that do not print",
    f"{SWEEP} --name 'a\\b'": "should have no slashes",
    f"{SWEEP} --name \x1b[31m": "characters that do not print",
    # sweeps
    "sweep": "the following arguments are required: --grid",
    "sweep stop --grid smoke": "invalid choice: 'stop'",
    "sweep plan --grid smoke --preset {config} --gpus-per-run 1 --ranks 2": "--ranks 2: should be one per GPU",
    "sweep run --grid none.yaml": "none.yaml: no such config file",
    "sweep run --grid folder": "grid 'folder' is not known",
    "sweep run --grid ../x": "grid '../x' is not known",
    "sweep plan --grid smoke --preset folder": "preset 'folder' is not known",
    "sweep plan --grid smoke --preset none.yaml": "none.yaml: no such config file",
    "sweep status --grid smoke --name never": "no such sweep yet; start it with: python experiments/sweep.py run",
    f"{SWEEP} --runs file.png": "--runs file.png: file.png is no folder",
    f"{SWEEP} --results file.png": "--results file.png: file.png is no folder",
    f"{SWEEP} --reports file.png/x": "is no folder",
    f"{SWEEP} --executor slurm --slurm-options none.yaml": "none.yaml: no such config file",
    f"{SWEEP} --executor slurm --slurm-options folder": "folder: no such config file",
    # analysis
    "analysis.build --pointer none.json --reports new": "none.json",
    "analysis.build --pointer folder --reports new": "folder",
    "analysis.report --reports folder": "holds no tables and figures yet",
    "analysis.verify folder": "no tables; build it with: python -m analysis.build",
    "analysis.verify file.png": "no tables",
    "analysis.trace main blurdm psnr": "no table 'main'",
    "analysis.trace ../x blurdm psnr": "no table '../x'",
    "analysis.trace": "the following arguments are required: table, row, column",
    "analysis.grid none.json": "none.json: no such ledger",
    "analysis.grid folder": "folder",
    "analysis.grid file.png": "file.png",
}  # fmt: skip
MAINS = {"blurdm": "blurdm.cli.main", "sweep": "experiments.sweep"}


@pytest.fixture(scope="module")
def untouched(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with a file, a folder and a config, which all tests share."""
    folder = tmp_path_factory.mktemp("untouched")
    (folder / "folder").mkdir()
    (folder / "file.png").write_bytes(b"\x89PNG and no more")
    (folder / "huge.yaml").write_bytes(b"# \n" * 2_000_000)
    (folder / "real.png").write_bytes((tiny_data / "test/coffee/blur/0000.png").read_bytes())
    write_tiny_config(folder / "tiny.yaml", tiny_data)
    return folder


@pytest.fixture
def place(untouched: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same as the current directory, on a machine without GPU."""
    monkeypatch.chdir(untouched)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{untouched}/mlflow.db")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return untouched


def outcome(command: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    program, *words = shlex.split(command)
    module = importlib.import_module(MAINS.get(program, program))
    capsys.readouterr()
    code = module.main(words)
    return code, *capsys.readouterr()


def written(folder: Path) -> list[str]:
    """Files and folders, without the cache of digests."""
    return sorted(str(path) for path in folder.rglob("*") if path.name not in (".digests.json", "runs"))


@pytest.mark.parametrize("typed", MISTAKES, ids=lambda typed: typed[:70])
def test_a_mistake_is_one_line(typed: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = written(place)
    code, out, err = outcome(typed.replace("{config}", "tiny.yaml"), capsys)
    lines = [line for line in err.splitlines() if not line.startswith("restoring with model ")]
    assert code == 2 and out == "" and len(lines) == 1 and err.endswith("\n"), (code, out, err)
    assert MISTAKES[typed].replace("{root}", str(place)) in err
    assert written(place) == before


NO_YAML: dict[str, tuple[bytes, str]] = {
    "a date that is none": (b"data: {root: 2024-13-45}\n", "month must be in 1..12"),
    "a date": (b"data: {root: 2024-01-02}\n", "holds a value of type date"),
    "a cycle": (b"seeds: &a [*a]\n", "levels deep"),
    "a cycle of keys": (b"data: &a {root: *a}\n", "levels deep"),
    "many digits": (b"seeds: [" + b"1" * 5000 + b"]\n", "Exceeds the limit"),
    "many hexadecimal digits": (b"seeds: [0x" + b"f" * 5000 + b"]\n", "holds a number beyond 64 bits"),
    "nested lists": (b"seeds: " + b"[" * 400 + b"]" * 400 + b"\n", "nested more than 20 levels deep"),
    "nested mappings": (b"".join(b" " * i + b"a:\n" for i in range(900)), "nested more than 20 levels deep"),
    "a mass of aliases": (
        b"a: &a [x,x,x,x,x,x,x,x,x]\n"
        + b"".join(b"%c: &%c [%s]\n" % (97 + i, 97 + i, b",".join([b"*%c" % (96 + i)] * 9)) for i in range(1, 9)),
        "more than 100,000 values",
    ),
    "merges of merges": (
        b"a: &a {x: 1}\n"
        + b"".join(b"%c: &%c {<<: [%s]}\n" % (97 + i, 97 + i, b",".join([b"*%c" % (96 + i)] * 9)) for i in range(1, 9)),
        "a mapping merges more than 1000 keys",
    ),
    "a key twice": (b"data: 1\ndata: 2\n", "not valid YAML"),
    "NUL": (b"data: \x00\n", "not valid YAML"),
    "NUL, escaped": (b'data: {root: "a\\0b"}\n', "NUL character"),
    "half a character": (b'data: {root: "\\ud800"}\n', "not valid YAML"),
    "another encoding": (b"data: {root: \xe9t\xe9}\n", "not valid YAML"),
    "half of UTF-16": (b"\xff\xfed\x00a", "not valid YAML"),
    "bytes": (b"data: {root: !!binary aGk=}\n", "type bytes"),
    "a set": (b"seeds: !!set {1, 2}\n", "type set"),
    "a list as a key": (b"? [1, 2]\n: 3\n", "type tuple"),
    "two documents": (b"---\na: 1\n---\nb: 2\n", "not valid YAML"),
    "a tag with no such value": (b"seeds: !!bool x\n", "not valid YAML"),
    "code": (b"data: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
    "nothing": (b"", "holds NoneType"),
}
READERS = ("blurdm data check --config {file}", "sweep plan --grid {file}", "sweep plan --grid smoke --preset {file}")


@pytest.mark.parametrize("name", NO_YAML)
def test_what_is_no_plain_yaml_is_one_line(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, says = NO_YAML[name]
    (place / "wrong.yaml").write_bytes(content)
    options = "sweep run --grid smoke --preset tiny.yaml --executor slurm --slurm-options {file}"
    for command in (*READERS, options):
        started = time.monotonic()
        code, out, err = outcome(command.replace("{file}", "wrong.yaml"), capsys)
        assert code == 2 and out == "" and err.count("\n") == 1, (code, out, err)
        assert "wrong.yaml: " in err and says in err and time.monotonic() - started < 10


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_config_may_have_a_mark_of_its_encoding(
    encoding: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "other.yaml").write_bytes((place / "tiny.yaml").read_text().encode(encoding))
    assert outcome("blurdm data check --config other.yaml", capsys)[0] == 0


WRONG_GRIDS = {
    "preset: 5": "preset: 5",
    "preset: [demo]": 'preset: ["demo"]',
    "axes: {diffusion.steps: {1: 1, 2: .nan}}": "diffusion.steps",
    "arms: {a: {preset: 5}}": "arms: a: preset: 5; should be a name",
    "arms: {a: {preset: [demo]}}": "should be a name",
    "arms: {a: {measure: [oracle]}}": "is not known",
    "arms: {a: null}": "arms.a: null",
    "base: {test.root: x}": "test.layout: missing",
    "base: {compute.precision: 5}": "compute.precision: 5",
    "base: {data: 5}": "data: unknown key",
    "base: {data.: 5}": "data.: unknown key",
    "rows: 1000000000": "rows: 1000000000",
    "x: 5": "x: 5",
    "baseline: 5": "baseline: 5",
    "published: {a: {psnr: .inf}}": "published.a.psnr",
}


@pytest.mark.parametrize("change", WRONG_GRIDS)
def test_a_wrong_grid_is_one_line(change: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = {
        "question": "Which?",
        "preset": "tiny.yaml",
        "axes": "{diffusion.steps: [1, 2]}",
        "rows": "2",
        "baseline": "steps=1",
    }
    key, _, value = change.partition(": ")
    (place / "wrong.yaml").write_text("".join(f"{k}: {v}\n" for k, v in (lines | {key: value}).items()))
    code, out, err = outcome("sweep plan --grid wrong.yaml", capsys)
    assert code == 2 and out == "" and err.count("\n") == 1 and WRONG_GRIDS[change] in err, (out, err)


def drop_privileges() -> None:
    """Leave root without the capabilities that override permission bits; others never had them."""
    libc = ctypes.CDLL(None)
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


FORBIDDEN = {
    "blurdm run prepare --config tiny.yaml --runs shut": "--runs shut: shut cannot be written to",
    "blurdm run prepare --config tiny.yaml --runs shut/below": "cannot be written to",
    "blurdm run prepare --config tiny.yaml --pointer shut/x.json": "--pointer shut/x.json: shut cannot be written to",
    "blurdm run baseline --config tiny.yaml --export shut": "--export shut: shut cannot be written to",
    "blurdm data check --config secret.yaml": "secret.yaml: cannot be read (Permission denied)",
    "blurdm data check --config tiny.yaml --set data.root=pairs": "0000.png: cannot be read (Permission denied)",
    "blurdm run prepare --config tiny.yaml --set data.root=pairs": "Permission denied",
    "blurdm deblur real.png --model secret.safetensors": "secret.safetensors",
    "blurdm deblur secret.png": "secret.png",
    "blurdm export model photos.safetensors shut/x": "photos.safetensors",
    "blurdm weights pack shut/x.tar": "shut",
    "blurdm track --runs closed": "closed",
    "sweep run --grid smoke --preset tiny.yaml --results shut": "--results shut: shut cannot be written to",
    "sweep run --grid secret.yaml": "secret.yaml: cannot be read (Permission denied)",
    "sweep status --grid smoke --preset tiny.yaml --runs closed --name x": "closed",
    "analysis.grid secret.yaml": "secret.yaml",
    "analysis.verify closed": "closed",
    "analysis.build --pointer secret.yaml": "secret.yaml",
}
OUTCOMES = """
import contextlib, importlib, io, json, shlex, sys
for command in json.load(sys.stdin):
    program, *words = shlex.split(command)
    module = {"blurdm": "blurdm.cli.main", "sweep": "experiments.sweep"}.get(program, program)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = importlib.import_module(module).main(words)
        except BaseException as error:
            code = repr(error)
    print(json.dumps([command, code, out.getvalue(), err.getvalue()]))
"""


def test_a_place_that_is_forbidden_is_one_line(place: Path, tiny_data: Path) -> None:
    """Without the privileges of root, which would be let in everywhere."""
    shutil.copytree(tiny_data, place / "pairs")
    for name in ("secret.yaml", "secret.safetensors", "secret.png", "pairs/train/rocket/blur/0000.png"):
        (place / name).touch()
        (place / name).chmod(0)
    for name, mode in (("shut", 0o555), ("closed", 0)):
        (place / name).mkdir(mode)
    command = [sys.executable, "-c", OUTCOMES]
    done = subprocess.run(
        command, input=json.dumps(list(FORBIDDEN)), capture_output=True, text=True, cwd=place,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, preexec_fn=drop_privileges,
    )  # fmt: skip
    for line in done.stdout.splitlines():
        typed, code, out, err = json.loads(line)
        errors = [part for part in err.splitlines() if not part.startswith("restoring with model")]
        assert code == 2 and out == "" and len(errors) == 1 and FORBIDDEN[typed] in err, (typed, code, out, err)
    assert len(done.stdout.splitlines()) == len(FORBIDDEN), done.stderr


def command_line(place: Path, *words: str, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "blurdm", *words],
        cwd=place,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_a_folder_for_temporary_files_that_is_too_long_is_one_line(place: Path) -> None:
    long = place / ("t" * 150)
    long.mkdir()
    process = command_line(place, "run", "prepare", "--config", "tiny.yaml", TMPDIR=str(long))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2 and out == "" and err.count("\n") == 1 and "TMPDIR: " in err and "too long" in err


@pytest.mark.parametrize("words", ["weights list", "--help"])
def test_a_reader_that_has_left_is_no_error(words: str, place: Path) -> None:
    with command_line(place, *words.split()) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        # argparse ignores that its help is not read
        assert process.wait(60) in (128 + signal.SIGPIPE, 0 if words == "--help" else 1)
        assert process.stderr.read() == ""


def test_names_of_files_are_any_bytes(place: Path) -> None:
    process = command_line(place, "data", "check", "--config", os.fsdecode(b"\xff\n.yaml"))
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (2, "blurdm: \\udcff .yaml: no such config file\n")
