"""The benchmark for GPUs, as far as a machine without one can tell: it runs, and its figures belong together."""

import re

import pytest

from benchmarks.gpu import main
from benchmarks.train_step import STAGES


def test_it_measures_every_form_of_every_stage(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--batch", "2", "--crop", "32", "--steps", "1", "--rounds", "1", "--pairs", "1"]
    assert main(["--device", "cpu", *small, "--forms", "fp32", "bf16"]) == 0
    told = capsys.readouterr().out
    assert "batches of 2 x 32 x 32 on cpu" in told
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in told.splitlines() if line.startswith("│")]
    assert [row[:2] for row in rows] == [[stage, form] for stage in STAGES for form in ("plain", "fp32", "bf16")]
    for stage, form, seconds, images, ratio, _, share, waits in rows:
        assert float(images) == pytest.approx(2 / float(seconds), rel=0.05, abs=0.05), (stage, form)
        assert float(ratio) > 0 and (ratio == "1.00" or form != "plain")
        assert share.endswith("%") and 0 <= float(waits.rstrip("%")) < 100
    line = next(line for line in told.splitlines() if line.startswith("hours of the recipe, 682,500 steps"))
    hours = dict(re.findall(r"(plain|fp32|bf16) ([\d.]+)", line))
    for form, total in hours.items():
        steps = zip((315_000, 52_500, 315_000), (row for row in rows if row[1] == form), strict=True)
        summed = sum(n * float(row[2]) / (1 - float(row[7].rstrip("%")) / 100) for n, row in steps) / 3600
        assert float(total) == pytest.approx(summed, rel=0.02), form
    assert set(hours) == {"plain", "fp32", "bf16"} and re.search(r"TFLOP/s: fp32 [\d.e-]+, bf16 [\d.e-]+", told)


def test_without_a_gpu_it_says_so_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main([]) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.strip() == (
        "gpu: --device cuda: PyTorch sees no GPU here; --device cpu shows that the benchmark runs"
    )
