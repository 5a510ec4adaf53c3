"""``--device``: a GPU if there is one, one by its number, and what is known of it without starting CUDA."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from blurdm.cli.main import parser
from blurdm.core.gpus import Gpu, gpus_of
from blurdm.stages import devices
from blurdm.stages.devices import choose_device, describe_gpu, use_device, visible_gpus


@pytest.mark.parametrize("gpus", [0, 1])
def test_auto_is_a_gpu_if_there_is_one_and_says_so(
    gpus: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(devices, "GPU_FILES", ("null",))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    assert choose_device("auto") == ("cuda" if gpus else "cpu") and choose_device("cpu") == "cpu"
    assert capsys.readouterr().err == ("blurdm: computing on a GPU; else --device cpu\n" if gpus else "")


def test_without_a_file_of_a_gpu_pytorch_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "GPU_FILES", ("no such file",))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: pytest.fail("asked"))
    assert choose_device("auto", ranks=2) == "cpu"


@pytest.mark.parametrize("command", ["run joint", "score runs/joint/x", "deblur x.png", "runs adopt", "profile", "app"])
def test_it_is_the_default_of_every_command_that_computes(command: str) -> None:
    assert parser().parse_args(command.split()).device == "auto"


def test_the_gpus_that_ranks_compute_on_are_found_without_cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    lines = [f"{number}, GPU-{number}{number}, Card {number}, 4096, 580.1" for number in range(4)]
    program.write_text("#!/bin/sh\ncat <<'END'\n" + "\n".join(lines) + "\nEND\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def indices(device: str, ranks: int = 1) -> list[str]:
        return [gpu.index for gpu in gpus_of(device, ranks)]

    assert gpus_of("cuda") == [Gpu("0", "GPU-00", "Card 0", 4096 * 2**20, "580.1")]
    assert indices("cuda:2") == ["2"] and indices("cuda", 3) == ["0", "1", "2"] and indices("cpu") == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-11")
    assert indices("cuda") == ["3"] and indices("cuda:1") == ["1"] and indices("cuda", 2) == ["3", "1"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert visible_gpus() == ["3", "GPU-11"]
    program.write_text("#!/bin/sh\nexit 9\n")
    assert gpus_of("cuda") == []


def test_a_gpu_is_described_from_what_pytorch_has() -> None:
    properties = SimpleNamespace(name="NVIDIA H200", total_memory=150_000_000_000, major=9, minor=0)
    told = describe_gpu(properties, "580.65.06")
    assert told == {"gpu": "NVIDIA H200", "gpu_memory_mb": 143_051, "gpu_capability": "9.0", "gpu_driver": "580.65.06"}


def test_a_gpu_with_a_number_becomes_the_one_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    for device in ("cpu", "cuda", "cuda:1"):
        use_device(device)
    assert chosen == ["cuda:1"]
