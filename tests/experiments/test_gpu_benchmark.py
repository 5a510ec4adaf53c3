"""The benchmark for GPUs, as far as a machine without one can tell: it runs, and its figures belong together."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import loop_steps
from benchmarks.gpu import FORMS, NAMES, SETTING, main
from benchmarks.gpu_lines import HEAD, as_markdown, read_lines
from benchmarks.loop_steps import WARM_UP, Enough, Stopwatch
from benchmarks.roofline import Product, Rates, least_seconds, products_of_step
from benchmarks.train_step import config_of
from blurdm.core.progress import Progress
from blurdm.stages import training
from blurdm.training.throughput import macs_per_step

SMALL = ["--device", "cpu", "--small", "--batch", "2", "--crop", "32", "--steps", "1", "--pairs", "1"]


def rows(told: str) -> list[list[str]]:
    return [line.split(" | ") for line in told.splitlines() if line.startswith(tuple("123"))]


def test_it_measures_every_form_of_every_stage_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "lines.jsonl"
    keep = ["--out", str(out), "--ground", str(tmp_path / "ground")]
    assert main([*SMALL, *keep, "--forms", "plain", "bf16"]) == 0
    told = rows(capsys.readouterr().out)
    assert [row[:2] for row in told] == [[stage, form] for stage in NAMES for form in ("plain", "bf16")]
    for _, form, batch, ms, _, host, images, ratio, *_ in told:
        assert batch == "2 x 32" and float(images) == pytest.approx(2e3 / float(ms), rel=0.05, abs=0.05)
        assert float(host) <= float(ms) + 0.1 and (ratio == "1.00") >= (form == "plain")
    lines = read_lines(out)
    assert [line["name"] for line in lines if line["kind"] == "rate"][-1] == "copies"
    assert all(0 < line["least"] < line["seconds"] for line in lines if line["kind"] == "step")
    cut = out.read_text()[:-30]  # as a kill in the middle of writing leaves it
    out.write_text(cut)
    assert main([*SMALL, *keep, "--stages", "2", "3", "--forms", "plain", "bf16"]) == 0
    again = capsys.readouterr().out
    assert [row[:2] for row in rows(again)] == [["3", "bf16"]] and "products" not in again
    assert len(read_lines(out)) == len(lines)


def test_what_fails_is_a_line_of_its_own_and_measured_again(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of memory that is too small, which is a result."""
    raised: list[Exception] = [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("no\nkernel")]
    monkeypatch.setattr("benchmarks.gpu.Ground.train", lambda *_: (_ for _ in ()).throw(raised.pop()))
    out = tmp_path / "lines.jsonl"
    arguments = [*SMALL, "--out", str(out), "--ground", str(tmp_path / "ground"), "--stages", "2", "--forms", "fp32"]
    assert main(arguments) == 1
    assert rows(capsys.readouterr().out)[0][3] == "RuntimeError: no kernel"
    assert main(arguments) == 0 and rows(capsys.readouterr().out)[0][3] == "out of memory"
    assert main(arguments) == 0 and rows(capsys.readouterr().out) == []


def test_three_steps_come_before_those_that_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device's queue is waited for before the first and after the last; nothing is subtracted."""
    clock, waits = 0.0, list[float]()
    monkeypatch.setattr("time.perf_counter", lambda: clock)
    monkeypatch.setattr("benchmarks.loop_steps.wait_for", lambda device: waits.append(clock))
    watch = Stopwatch("cpu", 4)
    watch(Progress(0, 1, unit="note", note="training"))
    for step, seconds in enumerate((60.0, 9.0, 9.0, 2.0, 2.0, 2.0), start=1):
        clock += seconds
        watch(Progress(step, 100))
    clock += 4.0
    with pytest.raises(Enough):
        watch(Progress(WARM_UP + 4, 100))
    assert waits == [60.0, 78.0, 88.0] and watch.timing[:4] == (2.5, None, 2.0, 60.0)


def test_a_step_is_bound_by_its_products_or_by_their_traffic() -> None:
    products = [Product(macs=100, numbers=10), Product(macs=10, numbers=100)]
    rates = Rates({"fp32": 50.0, "bf16": 200.0}, bandwidth=40.0)
    assert least_seconds(products, "fp32", rates) == pytest.approx(100 / 50 + 100 * 4 / 40)
    assert least_seconds(products, "bf16", rates) == pytest.approx(10 * 2 / 40 + 100 * 2 / 40)
    config = config_of("bf16", 2, 32, loop_steps.SMALL)
    for stage in NAMES.values():
        assert sum(product.macs for product in products_of_step(config, stage)) == macs_per_step(config, stage)


def test_a_setting_holds_for_its_form_alone() -> None:
    module = torch.nn.Conv2d(4, 4, 3)

    def weight() -> torch.Tensor:
        changed: torch.nn.Module = training.to_channels_last(module)  # type: ignore[attr-defined]
        return next(changed.parameters())

    def tunes() -> bool:
        with training.tuned_convolutions("cuda"):  # type: ignore[attr-defined]
            return torch.backends.cudnn.benchmark

    with SETTING["untuned"]():
        assert tunes() is False
    assert tunes() is True and torch.backends.cudnn.benchmark is False
    with SETTING["contiguous"]():
        assert weight().is_contiguous()
    assert not weight().is_contiguous()


def line(stage: str, form: str, seconds: float, **more: Any) -> dict[str, Any]:
    known = {"device": "Card", "kind": "step", "stage": stage, "form": form, "setting": "as trained", "batch": 20}
    timing = {"seconds": seconds, "on_device": seconds, "host": 0.01, "first": 2.0, "peak_mb": 1e3, "least": 0.05}
    return known | {"crop": 256, "round": 0} | timing | more


def test_lines_become_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rate = {"device": "Card", "kind": "rate", "name": "copies", "value": 4000.0, "unit": "GB/s"}
    lines = [rate, *(line(stage, "plain", 0.3) for stage in NAMES)]
    lines += [line(stage, "bf16", seconds, round=n) for stage in NAMES for n, seconds in enumerate((0.1, 0.2, 0.1))]
    lines += [line("3", "bf16", 0.2, setting="contiguous"), line("3", "bf16", 0.4, batch=64, error="out of memory")]
    lines += [line("1", "fp32", 9.0, device="cpu, small network")]
    text = as_markdown(lines)
    assert text.startswith("**Card**\n\n| " + " | ".join(HEAD) + " |\n| ---")
    assert "| 3 | bf16 | 20 x 256 | 100.0 | 100.0 | 10.0 | 200.0 | 3.00 | 1000 | 50% | 2.0 |\n" in text
    assert "| 3 | bf16, contiguous | 20 x 256 | 200.0 |" in text and "| 3 | bf16 | 64 x 256 | out of memory |" in text
    assert "Reached alone: copies 4e+03 GB/s." in text and "fp32" not in text
    assert f"steps alone: plain {682_500 * 0.3 / 3600:.1f}, bf16 {682_500 * 0.1 / 3600:.1f}." in text
    assert len({row.count("|") for row in text.splitlines() if row.startswith("|")}) == 1
    out = tmp_path / "lines.jsonl"
    out.write_text("".join(json.dumps(one) + "\n" for one in lines))
    assert main(["--table", "--out", str(out)]) == 0 and capsys.readouterr().out == text
    assert main(["--table", "--out", str(tmp_path / "none")]) == 0
    assert capsys.readouterr().out == "Nothing has been measured on a GPU yet.\n"
    assert main(["--table"]) == 2 and "should come with --out FILE" in capsys.readouterr().err


def test_without_a_gpu_it_says_so_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main([]) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.strip() == (
        "gpu: --device cuda: PyTorch sees no GPU here; --device cpu shows that the benchmark runs"
    )


def test_by_default_ours_come_in_every_execution() -> None:
    assert FORMS[:4] == ("plain", "fp32", "tf32", "bf16") and {"bf16-compiled", "bf16-graphs"} <= set(FORMS)
