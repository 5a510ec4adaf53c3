"""Coverage of the 95 % intervals of ``analysis.stats`` in simulated experiments whose effect is known.

python -m benchmarks.coverage [--trials 1000]
"""

import sys

import numpy as np
from numpy.typing import NDArray

from analysis.stats import Measurements, Resamples, mean_of
from blurdm.core.command import Parser, count, run_command

# photos, seeds, and the standard deviation (dB) of their effects
DESIGNS = (
    (4, 3, 0.3, 0.05),
    (4, 3, 0.2, 0.2),
    (4, 1, 0.3, 0.0),
    (12, 3, 0.3, 0.1),
    (20, 5, 0.3, 0.1),
    (20, 3, 0.1, 0.2),
    (100, 3, 0.3, 0.05),
)
TRUTH = 25.0  # dB, far from where PSNR ends
IMAGES, IMAGE_SD, NOISE_SD = 3, 0.2, 0.05  # per photo; of an image, and of an image with a seed


def covered(photos: int, seeds: int, photo_sd: float, seed_sd: float, trials: int) -> tuple[float, float]:
    """The shares of experiments whose true mean, TRUTH, lies in our interval and in that of a percentile bootstrap."""
    rng, resamples = np.random.default_rng(0), Resamples.seeded(0, n_boot=400)
    scenes = np.repeat(np.arange(photos), IMAGES)
    names = np.array([f"{number:04d}" for number in range(len(scenes))], dtype=object)
    ours, percentile = [], []
    for _ in range(trials):
        values = rng.normal(0, photo_sd, photos)[scenes] + rng.normal(0, seed_sd, (seeds, 1))
        values = values + rng.normal(0, IMAGE_SD, len(scenes)) + rng.normal(0, NOISE_SD, (seeds, len(scenes)))
        arm = Measurements("arm", np.arange(seeds), scenes.astype(str).astype(object), names, {"psnr": TRUTH + values})
        interval = mean_of(arm, "psnr", resamples)
        assert interval is not None
        ours.append(interval.low <= TRUTH <= interval.high)
        low, high = percentiles(values.reshape(seeds, photos, IMAGES).sum(axis=2), resamples)
        percentile.append(low <= 0 <= high)
    return float(np.mean(ours)), float(np.mean(percentile))


def percentiles(sums: NDArray[np.float64], resamples: Resamples) -> NDArray[np.float64]:
    """2.5 % and 97.5 % of the means of resampled photos and seeds, from sums by seed and photo."""
    seeds, photos = (resamples.weights(name, size) for name, size in zip(("seeds", "photos"), sums.shape, strict=True))
    return np.quantile(np.einsum("bs,sb->b", seeds, sums @ photos.T) / sums.size / IMAGES, (0.025, 0.975))


def table(trials: int) -> str:
    """A row per design, in Markdown."""
    lines = [
        "| photos | seeds | spread of photos, of seeds | 95 % interval covers | percentile bootstrap covers |",
        "| --- | --- | --- | --- | --- |",
    ]
    for photos, seeds, photo_sd, seed_sd in DESIGNS:
        ours, percentile = covered(photos, seeds, photo_sd, seed_sd, trials)
        lines.append(f"| {photos} | {seeds} | {photo_sd:g}, {seed_sd:g} | {ours:.1%} | {percentile:.0%} |")
    return "\n".join(lines).replace("%", " %").replace("95  %", "95 %") + "\n"


def main() -> None:
    parser = Parser(prog="python -m benchmarks.coverage", description=__doc__)
    parser.add_argument("--trials", type=count, default=1000)
    print(table(parser.parse_args().trials), end="")


if __name__ == "__main__":
    sys.exit(run_command("coverage", main))
