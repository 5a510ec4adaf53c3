"""A grid's ledger and the run folders it speaks of, with made-up numbers: a sweep over steps, stage 1 shared."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from blurdm.core.arms import arms_of
from blurdm.core.store import write_json
from tests.support.fake_runs import IMAGES, PHOTOS, make_run

PUBLISHED = {1: 32.10, 2: 32.15, 5: 32.28}
ARMS = tuple(arms_of("joint"))
BASELINE = "steps=1, official"


def gain(steps: int, noise: str) -> float:
    """The made-up effect (dB): none at one step, most at five."""
    return 0.6 * min(steps, 5) / 5 * (1 if noise == "official" else 1.2)


def make_grid(
    root: Path, name: str = "ablation_steps", steps: tuple[int, ...] = (1, 2, 5), seeds: tuple[int, ...] = (0, 1)
) -> Path:
    """Every run of the grid finished below ``root``/runs; returns the ledger."""
    rows = [_row(root, name, step, noise, seeds) for step in steps for noise in ("official", "fixed")]
    ledger: dict[str, Any] = {
        "grid": name,
        "question": "How many steps does the reverse process need?",
        "preset": "demo",
    }
    ledger |= {"overrides": [], "seeds": list(seeds), "baseline": f"steps={steps[0]}, official", "stopped": []}
    ledger |= {"x": "diffusion.steps", "published_source": "Table 8 (MIMO-UNet+, GoPro)", "rows": rows}
    path = root / "runs" / "sweeps" / f"{name}.json"
    write_json(path, ledger)
    return path


def edit(ledger: Path, **changes: Any) -> dict[str, Any]:
    """The ledger with top-level entries changed; returns it."""
    value: dict[str, Any] = json.loads(ledger.read_text(encoding="utf-8")) | changes
    write_json(ledger, value)
    return value


def folder(ledger: Path, row: int, seed: int, stage: str = "measure") -> Path:
    """The folder of a run of row number ``row``."""
    run = json.loads(ledger.read_text(encoding="utf-8"))["rows"][row]["runs"][seed]
    key = dict(run["needs"]).get(stage, run["key"])
    return ledger.parent.parent / stage / key


def _row(root: Path, grid: str, steps: int, noise: str, seeds: tuple[int, ...]) -> dict[str, Any]:
    runs = [_runs(root, grid, steps, noise, seed) for seed in seeds]
    published = {"psnr": PUBLISHED[steps]} if noise == "official" and steps in PUBLISHED else {}
    values = {"diffusion.steps": steps, "diffusion.fixed_terminal_noise": noise}
    row = {"name": f"steps={steps}, {noise}", "series": noise, "values": values, "arm": "blurdm"}
    return row | {"published": published, "runs": runs}


def _runs(root: Path, grid: str, steps: int, noise: str, seed: int) -> dict[str, Any]:
    mark = f"{grid[-5:]}_{steps}_{noise}_{seed}"
    keys = {
        "pretrain": f"p_{grid[-5:]}_{seed}",
        "diffusion": f"d_{mark}",
        "joint": f"j_{mark}",
        "restore": f"r_{mark}",
        "measure": f"e_{mark}",
    }
    sections: dict[str, Any] = {
        "seed": seed,
        "data": {"layout": "gopro", "crop": 64, "val_scenes": ["a", "b"]},
        "diffusion": {"steps": steps, "fixed_terminal_noise": None if noise == "official" else 0.1803},
    }
    for stage in ("pretrain", "diffusion", "joint"):
        if not (root / "runs" / stage / keys[stage]).exists():
            reads = {k: v for k, v in sections.items() if k != "diffusion" or stage != "pretrain"}
            history = [_line(stage, step, gain(steps, noise), seed) for step in range(10, 201, 10)]
            trained = {"metrics": {"val_psnr": 25.0}, "iterations": 200}
            make_run(root, stage, keys[stage], {"sections": reads}, history, trained)
    scores = _scores(gain(steps, noise), seed)
    mean = float(np.mean([r[2] for r in scores]))
    inputs = {"prepare": "p0", "model": keys["joint"]}
    result: dict[str, Any] = {"metrics": {}, "arms": list(ARMS), "cost": {}, "iterations": 200}
    config = {"sections": {"restore": {"noise_seed": 0}}, "inputs": inputs}
    make_run(root, "restore", keys["restore"], config, [], result)
    result = {"metrics": {"blurdm.psnr": mean}, "protocol": "standard", "iterations": 200}
    config = {"sections": {"measure": {}}, "inputs": {"prepare": "p0", "restore": keys["restore"]}}
    run = make_run(root, "measure", keys["measure"], config, [], result)
    lines = [f"{arm},{p},{i},{v - (arm != 'blurdm'):.4f},{v / 40:.5f}" for p, i, v in scores for arm in ARMS]
    (run / "per_image.csv").write_text("\n".join(["arm,scene,image,psnr,ssim", *lines]) + "\n")
    needs = [[stage, keys[stage]] for stage in ("pretrain", "diffusion", "joint", "restore")]
    return {"seed": seed, "stage": "measure", "key": keys["measure"], "needs": needs}


def _line(stage: str, step: int, effect: float, seed: int) -> dict[str, Any]:
    row: dict[str, Any] = {"step": step, "phase": stage, "loss": 1 / step}
    return row | ({"val_psnr": 24 + effect * step / 200 + 0.05 * seed} if step % 50 == 0 else {})


def _scores(effect: float, seed: int) -> list[tuple[str, str, float]]:
    """(photo, image, PSNR): photo and image matter far more than the effect, which only pairing shows."""
    noise = np.random.default_rng([seed, round(1000 * effect)]).normal(0, 0.05, (len(PHOTOS), IMAGES))
    return [
        (photo, f"{i:04d}", 22 + 2 * p + 0.3 * i + effect + noise[p, i])
        for p, photo in enumerate(PHOTOS)
        for i in range(IMAGES)
    ]
