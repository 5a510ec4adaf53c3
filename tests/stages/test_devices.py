"""``--device auto``: a GPU if there is one."""

import pytest
import torch

from blurdm.cli.main import parser
from blurdm.stages import devices
from blurdm.stages.devices import choose_device


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


@pytest.mark.parametrize("command", ["run joint", "score runs/joint/x", "deblur x.png", "runs adopt", "profile"])
def test_it_is_the_default_of_every_command_that_computes(command: str) -> None:
    assert parser().parse_args(command.split()).device == "auto"
