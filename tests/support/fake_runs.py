"""Run folders as the stages write them, with made-up numbers: what the tests of analysis and tracking read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from safetensors.numpy import save_file

from blurdm.core.arms import MODELS, arm_of, arms_of
from blurdm.core.store import file_digest

DIGEST = "0123456789abcdef0123456789abcdef.dir"
PHOTOS, IMAGES = ("china", "coffee", "I19", "motorcycle_left"), 5
METRICS = ("psnr", "ssim", "lpips")
GAINS = {
    "blurred": 0.0,
    "baseline": 1.2,
    "direct": 1.5,
    "blurdm": 1.6,
    "blurdm_foreign": 0.2,
    "oracle": 2.0,
    "oracle_foreign": 0.1,
}
DIFFUSION = {"steps": 5, "alpha_schedule": "linear", "alpha_start": 1.0, "alpha_end": 2.0}
DIFFUSION |= {"beta_schedule": "linear", "beta_start": 0.0, "beta_end": 0.02, "noise_rule": "official"}
STEPS: dict[str | None, int] = {None: 0, "baseline": 1000, "direct": 1000, "pretrain": 700, "joint": 1000}


def make_chain(root: Path, seeds: tuple[int, ...] = (0, 1), no_lpips: bool = False, images: bool = True) -> Path:
    """A finished chain below ``root``; returns its pointer file."""
    prepare(root)
    entries = [_measure(root, None, None, no_lpips, images)]
    for seed in seeds:
        for model in MODELS:
            _train(root, model, seed)
            entries.append(_measure(root, model, seed, no_lpips, images))
    pointer = root / "chain" / "measure.json"
    _write_json(pointer, {"runs": entries})
    return pointer


def prepare(root: Path) -> None:
    """The index of the test images, their blur longer from image to image and their noise all the same."""
    pairs = [
        {
            "split": "test",
            "scene": photo,
            "name": f"{i:04d}",
            "blur": "b.png",
            "sharp": "s.png",
            "height": 96,
            "width": 72,
            "exposure_px": 3.0 + i,
            "brightness": 0.3 + 0.1 * p,
            "noise": 0.0,
        }
        for p, photo in enumerate(PHOTOS)
        for i in range(IMAGES)
    ]
    training = [pair | {"split": "train", "scene": "train"} for pair in pairs]
    _write_json(root / "runs" / "prepare" / "p0" / "index.json", {"pairs": [*training, *pairs], "digest": DIGEST})


def make_run(
    root: Path, stage: str, key: str, config: dict[str, Any], history: list[dict[str, Any]], result: dict[str, Any]
) -> Path:
    """``root``/runs/<stage>/<key> with everything that a finished run holds."""
    folder = root / "runs" / stage / key
    _write_json(folder / "config.json", {"stage": stage, "version": 1, **config})
    provenance = {"git_revision": "a" * 40, "git_dirty": False, "packages": {"torch": "2.11"}, "hardware": {"cores": 2}}
    times = {"started": "2026-01-02T03:04:05+0000", "finished": "2026-01-02T03:05:05+0000"}
    _write_json(folder / "provenance.json", {**provenance, **times, "data_digest": DIGEST})
    if history:
        (folder / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in history))
    _write_json(folder / "result.json", {"key": key, "seconds": 12.5, **result})
    return folder


def _train(root: Path, model: str, seed: int) -> None:
    steps = {"joint": 300, "pretrain": 700}.get(model, 1000)
    history: list[dict[str, Any]] = []
    warmup = 100 if model in ("direct", "pretrain") else 0
    history += [{"step": s, "phase": "warmup", "loss": 1.0, "lr": 1e-3} for s in range(50, warmup + 1, 50)]
    for step in range(50, steps + 1, 50):
        row: dict[str, Any] = {
            "step": warmup + step,
            "phase": model,
            "loss": 1 / step,
            "lr": 1e-3,
            "images_per_s": 40.0,
        }
        if step % 100 == 0:
            row["val_psnr"] = 24 + GAINS[arm_of(model)] * (1 - np.exp(-step / 300)) + 0.05 * seed
        history.append(row)
    inputs = {"prepare": "p0"} | ({"pretrain": f"pretrain{seed}", "diffusion": f"d{seed}"} if model == "joint" else {})
    sections = {
        "seed": seed,
        "data": {"layout": "gopro", "batch_size": 4, "val_scenes": ["a", "b"]},
        "loss": {"fft_weight": 0.1},
    }
    if model == "joint":
        sections |= {"diffusion": DIFFUSION}
    final = {"metrics": {"val_psnr": history[-1]["val_psnr"], "latent_error": 0.5 + seed}, "iterations": STEPS[model]}
    make_run(root, model, f"{model}{seed}", {"sections": sections, "inputs": inputs}, history, final)


def _measure(root: Path, model: str | None, seed: int | None, no_lpips: bool, images: bool) -> dict[str, Any]:
    """A restore run with its pictures and costs, and the measure run of its images; returns the pointer's entry."""
    name = f"{model or 'none'}_{seed}"
    arms, inputs = list(arms_of(model)), {"prepare": "p0"} | ({} if seed is None else {"model": f"{model}{seed}"})
    figures = {"parameters": 310_000, "macs": 2_500_000_000, "seconds_per_image": 0.041}
    cost = {} if model is None else {arms[0]: {**figures, "peak_memory_mb": None, "side": 256}}
    shared = {"iterations": STEPS[model], "cost": cost}
    config = {"sections": {"restore": {"noise_seed": 0}}, "inputs": inputs}
    restored = make_run(root, "restore", f"restore_{name}", config, [], {"metrics": {}, "arms": arms, **shared})
    config = {
        "sections": {"data": {"layout": "gopro"}, "measure": {"metrics": METRICS}},
        "inputs": {"prepare": "p0", "restore": restored.name},
    }
    result = {"metrics": {f"{arms[0]}.psnr": 25.0}, "protocol": "standard", **shared}
    folder = make_run(root, "measure", f"eval_{name}", config, [], result)
    lines = ["arm,scene,image," + ",".join(METRICS)]
    for arm in arms:
        for p, photo in enumerate(PHOTOS):
            for i in range(IMAGES):
                noise = np.random.default_rng([p, i, seed or 0, len(arm)]).normal(0, 0.15)
                gain = GAINS[arm] * (0.7 + 0.2 * p) + (0 if arm == "blurred" else noise)
                lpips = "" if no_lpips else f"{0.2 - 0.02 * gain:.5f}"
                lines.append(f"{arm},{photo},{i:04d},{22 + p + 0.2 * i + gain:.4f},{0.7 + 0.03 * gain:.5f},{lpips}")
                if images and i < 2:
                    _pictures(restored, arm, photo, p, i)
    (folder / "per_image.csv").write_text("\n".join(lines) + "\n")
    if model == "joint":
        _trajectory(restored)
    place = {"stage": "measure", "key": folder.name, "folder": f"runs/measure/{folder.name}"}
    return {**place, "seed": seed, "model": model or "none"}


def _trajectory(folder: Path) -> None:
    """Straight from far away to z_0, of the first image of every photo."""
    far = np.random.default_rng(7).normal(size=(len(PHOTOS), 1, 9)).astype(np.float32)
    z = far * np.arange(5, -1, -1, dtype=np.float32)[:, None] / 5
    save_file({"z": z}, folder / "trajectory.safetensors")
    lines = ["arm,scene,image,t,psnr,distance"]
    for photo, path in zip(PHOTOS, z, strict=True):
        distance = np.sqrt((path**2).mean(axis=1))
        lines += [f"blurdm,{photo},0000,{5 - i},{24 + 0.2 * i},{distance[i]}" for i in range(6)]
    (folder / "trajectory.csv").write_text("\n".join(lines) + "\n")


def _pictures(folder: Path, arm: str, photo: str, p: int, i: int) -> None:
    """Stripes with a sharp disc; the blur smears it sideways, the arms undo a part of that."""
    height, width = (72, 96) if p % 2 else (96, 72)
    y, x = np.mgrid[:height, :width]
    disc = ((x - width * 0.3) ** 2 + (y - height * 0.65) ** 2 < (height / 8) ** 2).astype(float)
    sharp = np.stack([0.3 + 0.1 * np.sin(y / 9), 0.4 + 0.5 * disc, 0.2 + 0.6 * disc * (x % 6 < 3)], axis=2)
    blurred = sum(np.roll(sharp, shift, axis=1) for shift in range(-5, 6)) / 11
    share = min(1.0, GAINS[arm] / 2.5)
    pictures = {arm: share * sharp + (1 - share) * blurred} | ({"sharp": sharp} if arm == "blurred" else {})
    for name, pixels in pictures.items():
        path = folder / "images" / name / photo / f"{i:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((255 * pixels).round().astype(np.uint8)).save(path)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def edit_json(path: Path, **changes: Any) -> None:
    """The JSON object at ``path`` with top-level entries changed."""
    _write_json(path, json.loads(path.read_text(encoding="utf-8")) | changes)


def seal(root: Path) -> None:
    """Give every made-up measure run the result that its per-image rows have."""
    for path in (root / "runs" / "measure").glob("*/per_image.csv"):
        rows = pd.read_csv(path, dtype={"image": str}).drop(columns=["scene", "image"]).groupby("arm").mean()
        means = {f"{arm}.{metric}": float(rows.loc[arm, metric]) for arm in rows.index for metric in rows.columns}
        edit_json(path.parent / "result.json", metrics=means, per_image_sha256=file_digest(path))
