"""A model leaves the project as one file, as ONNX, and as an MLflow model that a real server answers with."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import blurdm as package
from blurdm.core.errors import InputError
from blurdm.restore.photo import decode_photo
from tests.support.photos import described, picture, run_folder
from tests.support.sections import paper_diffusion
from tests.support.tiny import REPOSITORY, Told

Command = Callable[..., Told]
KINDS = ("baseline", "direct", "joint")
BEYOND = "joint with the options beyond the paper"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    made = {kind: run_folder(folder / kind, kind, paper_diffusion(beta_end=0.9)) for kind in KINDS}
    options = {"estimator": "residual", "predicts": "clean", "condition": "features", "beta_end": 0.9}
    return made | {BEYOND: run_folder(folder / "beyond", "joint", paper_diffusion(**options))}


@pytest.mark.parametrize("kind", [*KINDS, BEYOND])
def test_a_file_is_the_model(kind: str, runs: dict[str, Path], tmp_path: Path, blurdm: Command) -> None:
    file = tmp_path / "model.safetensors"
    assert blurdm("export", "model", runs[kind], file).code == 0
    one, other = package.load(runs[kind]), package.load(str(file))
    assert one.model.digest == other.model.digest and other.model.name.endswith("model")
    assert np.array_equal(one.deblur(picture()), other.deblur(picture()))


def test_what_is_no_model_file_is_told(runs: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"nothing")
    with pytest.raises(InputError, match="a.safetensors: not a safetensors file"):
        package.load(file)
    with pytest.raises(InputError, match="not a model file"):
        package.load(runs["joint"] / "weights.safetensors")
    with pytest.raises(InputError, match="no such folder or file"):
        package.load(tmp_path / "none.safetensors")


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, blurdm; assert blurdm.load.__doc__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY).returncode == 0


@pytest.mark.parametrize(("kind", "options"), [("joint", ()), (BEYOND, ()), ("baseline", ("--size", "37x50"))])
def test_onnx_gives_the_same_picture(
    kind: str, options: tuple[str, ...], runs: dict[str, Path], tmp_path: Path, blurdm: Command
) -> None:
    import onnxruntime
    import torch

    file = tmp_path / "model.onnx"
    told = blurdm("export", "onnx", runs[kind], file, *options)
    assert told.code == 0 and "as PyTorch to" in told.out, told.err
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    height, width = (37, 50) if options else (64, 160)
    network = package.load(runs[kind]).network
    inputs = {"image": torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(5))}
    noise = network.draw_noise([2])
    inputs |= {} if noise is None else {"noise": noise}
    assert [one.name for one in session.get_inputs()] == list(inputs)
    (restored,) = session.run(["restored"], {name: value.numpy() for name, value in inputs.items()})
    expected = network.restore(inputs["image"], noise=noise)
    assert np.abs(restored - expected.numpy()).max() < 1e-4 and not torch.equal(expected, inputs["image"])


def test_a_difference_in_onnx_is_refused(
    runs: dict[str, Path], tmp_path: Path, blurdm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blurdm.restore.onnx_export.TOLERANCE", -1.0)
    told = blurdm("export", "onnx", runs["baseline"], tmp_path / "model.onnx", "--size", "32x32")
    assert told.code == 2 and "ONNX Runtime differs from PyTorch" in told.complaints[0]
    assert not (tmp_path / "model.onnx").exists()


@pytest.fixture
def served(runs: dict[str, Path], tmp_path: Path, blurdm: Command, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of ``mlflow models serve`` with the joint model, registered twice."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path)
    for version in (1, 2):
        told = blurdm("track", "register", runs["joint"], "--name", "bridge")
        assert told.code == 0 and told.out.startswith(f"models:/bridge/{version} in MLflow"), told.err
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/bridge/2", "--env-manager", "local"]
    with (tmp_path / "log.txt").open("w") as log:
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"{address}/ping", timeout=5):
                    break
            except OSError:
                assert process.poll() is None, (tmp_path / "log.txt").read_text()
                time.sleep(0.2)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def ask(address: str, image: str) -> Any:
    body = json.dumps({"dataframe_records": [{"image": image}]}).encode()
    request = urllib.request.Request(f"{address}/invocations", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def test_a_registered_model_is_served_and_answers(served: str, runs: dict[str, Path], tmp_path: Path) -> None:
    content = described(picture(), "PNG")
    answer = ask(served, base64.b64encode(content).decode())
    restored = decode_photo(base64.b64decode(answer["predictions"][0]["image"]), "answer")
    photo = decode_photo(content, "photo")
    expected = package.load(runs["joint"]).deblur(photo.pixels)
    assert restored.format == "PNG" and np.array_equal(restored.pixels, expected)
    with pytest.raises(urllib.error.HTTPError) as error:
        ask(served, "not base64!")
    assert "should be the base64 text of a photo file" in error.value.read().decode()
    stored = [path for path in tmp_path.rglob("*") if path.suffix in {".pkl", ".pickle", ".pt", ".pth"}]
    assert not stored, "nothing is pickled"


def test_a_run_that_restores_nothing_is_not_registered(tmp_path: Path, blurdm: Command) -> None:
    told = blurdm("track", "register", tmp_path)
    assert told.code == 2 and "not a finished run" in told.complaints[0]
