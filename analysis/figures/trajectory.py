"""The reverse process step by step: the path of the latents, and the restoration that each of them gives."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from analysis.drawing import WIDTH, Inputs, Missing, photo_style, plain
from analysis.tables.chain import count
from blurdm.core.arms import ARMS, METHOD
from blurdm.core.errors import InputError

TITLE = "Reverse trajectory"
CAPTION = (
    "The reverse process on the kept test images, a line each. Left: the latents from the first, of t = T (hollow), to"
    " the last, of t = 0 (filled), in the plane in which all of them vary most. Middle: how far the latent of step t"
    " still is from the last one (root mean square, RMS). Right: PSNR of the restoration with the latent of step t,"
    " minus that with the last one. In the middle and on the right, t falls from left to right, as the process runs."
)
MOST_NAMED = 8


def about(inputs: Inputs) -> str:
    steps, _ = read(inputs.restored(ARMS[METHOD].stage)[0] / "trajectory.csv")
    return f"{count(len(steps[['scene', 'image']].drop_duplicates()), 'image')}, seed {inputs.first_seed}."


def build(inputs: Inputs) -> Figure:
    files = [folder / "trajectory.csv" for folder in inputs.restored(ARMS[METHOD].stage)]
    if not files or not files[0].is_file():
        raise Missing("the restore run of the chain's joint model has no trajectory.csv; delete that run to have one")
    steps, z = read(files[0])
    return trajectories(steps, z)


def read(path: Path) -> tuple[pd.DataFrame, NDArray]:
    """trajectory.csv, and beside it the latents (images, T+1, values); InputError if they do not fit."""
    steps = pd.read_csv(path, converters={"scene": str, "image": str})
    beside = path.with_suffix(".safetensors")
    try:
        z = load_file(beside)["z"]
    except (OSError, KeyError, SafetensorError) as error:
        raise InputError(f"{beside}: cannot be read ({error}); delete the run to have it made again") from None
    if z.shape[0] * z.shape[1] != len(steps):
        raise InputError(f"{beside}: holds {z.shape[0]} x {z.shape[1]} latents, {path.name} has {len(steps)} lines")
    return steps, z.astype(np.float64)


def trajectories(steps: pd.DataFrame, z: NDArray) -> Figure:
    """``steps``: scene, image, t, psnr, distance, by image and t = T..0; ``z`` (images, T+1, values) in that order."""
    images, length, _ = z.shape
    T = length - 1
    figure = Figure(figsize=(WIDTH, 2.9))
    plane, distance, quality = figure.subplots(1, 3)
    path, share = project(z)
    for number in range(images):
        own = steps.iloc[number * length : (number + 1) * length]
        color, marker = photo_style(number)
        label = plain(f"{own.scene.iloc[0]}/{own.image.iloc[0]}", 30) if images <= MOST_NAMED else None
        style = {"color": color, "linestyle": ("-", "--", ":", "-.")[number % 4], "linewidth": 1.2}
        plane.plot(*path[number].T, marker=".", markersize=3, **style)
        plane.plot(*path[number, 0], marker=marker, color=color, markerfacecolor="white")
        plane.plot(*path[number, -1], marker=marker, color=color)
        distance.plot(own.t, own.distance, marker=marker, markersize=3.5, label=label, **style)
        quality.plot(own.t, own.psnr - own.psnr.iloc[-1], marker=marker, markersize=3.5, **style)
    plane.set_xlabel(f"first axis ({share[0]:.0%} of variance)")
    plane.set_ylabel(f"second axis ({share[1]:.0%})")
    distance.set_ylabel("RMS distance of $z_t$ to $z_0$", fontsize=8)
    quality.set_ylabel("PSNR with $z_t$ minus with $z_0$ (dB)", fontsize=8)
    quality.axhline(0, color="black", linewidth=0.8, linestyle=":")
    for axes in (distance, quality):
        axes.set_xlabel("t")
        axes.set_xlim(T + 0.03 * T, -0.03 * T)  # as the process runs
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if images <= MOST_NAMED:
        figure.legend(loc="outside upper center", ncols=4, fontsize=7)
    return figure


def project(z: NDArray) -> tuple[NDArray, NDArray]:
    """``z`` (images, T+1, values) on its two main axes, (images, T+1, 2), and their shares of the variance."""
    flat = z.reshape(-1, z.shape[2])
    centred = flat - flat.mean(axis=0)
    _, spread, axes = np.linalg.svd(centred, full_matrices=False)
    axes = np.vstack([axes, np.zeros_like(axes)])[:2]  # a latent of one value has one axis
    axes = axes * np.where(axes[np.arange(2), np.abs(axes).argmax(axis=1)] < 0, -1, 1)[:, None]  # a sign is arbitrary
    variance = np.append(spread**2, 0.0)[:2] / max(float((spread**2).sum()), np.finfo(float).tiny)
    return (centred @ axes.T).reshape(*z.shape[:2], 2), variance
