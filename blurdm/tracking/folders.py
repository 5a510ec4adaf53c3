"""A run folder as an MLflow run: a name that a person knows, everything it was made with, what it measured."""

import getpass
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from blurdm.core.arms import ARMS, STAGES, TRAINED, arms_of
from blurdm.core.key import flatten
from blurdm.core.store import LIVE, heartbeat
from blurdm.data.layouts import LAYOUTS
from blurdm.tracking.item import Details, Item, digest_of
from blurdm.tracking.points import is_number, latest_numbers, run_curves, thin
from blurdm.tracking.send import KEY_TAG, as_text, milliseconds, read_object

DATA_TITLES = {"gopro": "GoPro", "hide": "HIDE", "realblur_j": "RealBlur-J", "realblur_r": "RealBlur-R"}
FILES = ("config.json", "provenance.json", "result.json", "per_image.csv")
SAMPLES = 6
STALE_SECONDS = 300  # a validation reports nothing and may take minutes; who is silent for longer was killed
# MLflow opens a parent whose children are evaluations, and would show it closed otherwise.
EVALUATION = {"mlflow.runType": "evaluation"}


@dataclass(frozen=True)
class Folders:
    """The run folders below ``root``. ``demo``: digests of data sets made of the demo's photos.

    ``source``: the command that makes the runs; ``tags`` are those of every run of the experiment. ``failed``: keys of
    runs that are known to have ended with an error.
    """

    root: Path
    source: str
    demo: frozenset[str] = frozenset()
    tags: Mapping[str, str] = field(default_factory=dict)
    failed: frozenset[str] = frozenset()

    def item(self, folder: Path, parent: str | None, suffix: str = "", **options: Any) -> Item:
        """The run in ``folder``; ``suffix`` of its name; ``options`` of ``details``. Cheap, if it is finished."""
        status = self.status(folder)
        sizes = [] if status == "FINISHED" else [size(folder / name) for name in ("history.jsonl", LIVE)]
        shown = {name: value for name, value in options.items() if name != "images"}
        content = digest_of(folder.name, status, sizes, suffix, shown, dict(self.tags))
        return Item(folder.name, content, lambda: self.details(folder, status, suffix, **options), parent, status)

    def status(self, folder: Path) -> str:
        """As MLflow calls it. What has neither a result nor a recent heartbeat was stopped, or has failed."""
        if (folder / "result.json").is_file():
            return "FINISHED"
        if is_alive(folder):
            return "RUNNING"
        return "FAILED" if folder.name in self.failed else "KILLED"

    def details(
        self,
        folder: Path,
        status: str,
        suffix: str,
        files: Sequence[str] = FILES,
        images: bool = False,
        tags: Mapping[str, str] | None = None,
    ) -> Details:
        config, origin, result = (_object(folder / f"{name}.json") for name in ("config", "provenance", "result"))
        curves = run_curves(folder)
        for name, points in latest_numbers(folder).items() if status == "RUNNING" else ():
            curves.setdefault(name, []).extend(points)
        beat = heartbeat(folder)
        end = milliseconds(origin.get("finished")) if status == "FINISHED" else int(1000 * _last_sign(folder))
        described = {
            KEY_TAG: folder.name,
            "blurdm.stage": folder.parent.name,
            "blurdm.seed": config["sections"].get("seed"),
            "blurdm.git_dirty": origin.get("git_dirty"),
            "blurdm.progress": f"{beat['unit']} {beat['step']} of {beat['total']} on {beat['host']}" if beat else None,
        }
        common = self.common(folder, origin)
        return Details(
            name=self.name(folder) + suffix,
            begin=milliseconds(origin.get("started")) or int(1000 * (folder / "config.json").stat().st_mtime),
            end=None if status == "RUNNING" else end,
            tags={
                **{name: as_text(value) for name, value in described.items() if value is not None},
                **common,
                **(tags or {}),
            },
            params=self.params(folder),
            metrics=finals(folder.parent.name, result, self.given(folder)),
            curves={name: thin(curve) for name, curve in curves.items()},
            files=[(folder / name, None) for name in files if (folder / name).is_file()] + _samples(folder, images),
            data=self.data(folder),
        )

    def common(self, folder: Path, origin: Mapping[str, Any]) -> dict[str, str]:
        """Tags behind MLflow's columns source, version and user; and those of the experiment."""
        revision, digest = origin.get("git_revision"), self.data_digest(folder)
        texts = {"mlflow.source.git.commit": revision, "blurdm.git_revision": revision, "blurdm.data_digest": digest}
        source = {"mlflow.source.name": self.source, "mlflow.source.type": "LOCAL", "mlflow.user": owner(folder)}
        return {**source, **{name: text for name, text in texts.items() if text}, **self.tags}

    def name(self, folder: Path) -> str:
        """Such as "BlurDM, GoPro, seed 0" of what was measured, and "Training: BlurDM stage 3, GoPro, seed 0"."""
        stage = folder.parent.name
        if stage == "prepare":
            return f"Data: {self.data_title(folder)}"
        model = next((f for f in reversed(self.chain(folder)) if f.parent.name in TRAINED), None)
        title = self.given(folder) or _title(folder, model)
        seed = None if model is None else config_of(model)["sections"].get("seed")
        places = dict.fromkeys([self.data_title(model or folder), self.data_title(folder)])  # trained, measured on
        parts = [title, " → ".join(places), *([] if seed is None else [f"seed {seed}"])]
        verb = {"restore": "Restoring: ", "measure": ""}.get(stage, "Training: ")
        return verb + ", ".join(part for part in parts if part)

    def params(self, folder: Path) -> dict[str, Any]:
        """The config of the run and of every run behind it, its own last."""
        sections: dict[str, Any] = {}
        for earlier in self.chain(folder):
            sections |= config_of(earlier)["sections"]
        given = {"given": name} if (name := self.given(folder)) else {}
        return flatten({**sections, **given, "inputs": config_of(folder).get("inputs", {})})

    def given(self, folder: Path) -> str | None:
        """The method that somebody else restored the images with that ``folder`` holds or measured."""
        inputs = (config_of(f).get("inputs", {}) for f in self.chain(folder) if f.parent.name == "restore")
        return next((str(found["name"]) for found in inputs if "name" in found), None)

    def chain(self, folder: Path) -> list[Path]:
        """The folders behind ``folder`` that are there, inputs first, and itself."""
        ordered: dict[Path, None] = {}
        for key in config_of(folder).get("inputs", {}).values():
            for earlier in _places(self.root, key):
                ordered |= dict.fromkeys(self.chain(earlier))
        return [*ordered, folder]

    def data_digest(self, folder: Path) -> str | None:
        """Of the run's own data set: what is measured on another than was trained on has its own."""
        recorded = _object(folder / "provenance.json").get("data_digest")
        return recorded or _digest(self._index(folder))

    def data_title(self, folder: Path) -> str:
        """Such as GoPro, if all of its pairs are there, or else the layout that they are in."""
        if self.is_demo(folder):
            return "demo photos"
        sections = [config_of(f)["sections"] for f in reversed(self.chain(folder))]
        data: dict[str, Any] = next((section["data"] for section in sections if "data" in section), {})
        layout = str(data.get("layout", ""))
        title = DATA_TITLES.get(layout, layout)
        counts = _counts(self._index(folder))
        is_published = layout in LAYOUTS and counts in ({}, dict(LAYOUTS[layout].published))
        return title if is_published or not title else f"{title} layout"

    def is_demo(self, folder: Path) -> bool:
        """Whether the data set was made of the demo's photos and of no others: by its files, or by its pairs."""
        config = self._prepare(folder) / "config.json"
        raw = _object(config).get("inputs", {}).get("raw")
        return raw in self.demo or self.data_digest(folder) in self.demo

    def data(self, folder: Path) -> tuple[str, str, str] | None:
        digest = self.data_digest(folder)
        use = "training" if folder.parent.name in TRAINED else "evaluation"
        return (self.data_title(folder) or "data", digest, use) if digest else None

    def _prepare(self, folder: Path) -> Path:
        if folder.parent.name == "prepare":
            return folder
        return self.root / "prepare" / str(_object(folder / "config.json").get("inputs", {}).get("prepare", "-"))

    def _index(self, folder: Path) -> Path:
        return self._prepare(folder) / "index.json"


def finals(stage: str, result: Mapping[str, Any], given: str | None = None) -> dict[str, float]:
    """Final figures. Of a measured method, its own are called alike whatever the method is: psnr, cost.parameters."""
    metrics, cost = flatten(result.get("metrics", {})), flatten(result.get("cost", {}), "cost.")
    own = given or next((arm for arm in ARMS if any(name.startswith(f"{arm}.") for name in metrics)), None)
    if stage == "measure" and own:
        metrics = {name.removeprefix(f"{own}."): value for name, value in metrics.items()}
        cost = {name.replace(f"cost.{own}.", "cost.", 1): value for name, value in cost.items()}
    others = {"seconds": result.get("seconds"), "iterations": result.get("iterations")}
    return {legal_name(n): float(value) for n, value in {**metrics, **cost, **others}.items() if is_number(value)}


def legal_name(text: str) -> str:
    """A name that MLflow accepts: letters, digits, ``_ - . / :`` and spaces."""
    return re.sub(r"[^\w\-. /:]", "_", text, flags=re.ASCII)


def is_alive(folder: Path) -> bool:
    """Whether the run has told within STALE_SECONDS how far it is."""
    beat = heartbeat(folder)
    return beat is not None and time.time() - beat["time"] < STALE_SECONDS


def has_begun(folder: Path) -> bool:
    """Whether this is a training, finished or not, that has something to show, or any other run that is finished."""
    if (folder / "result.json").is_file():
        return True
    shows = any(size(folder / name) for name in ("history.jsonl", LIVE)) or is_alive(folder)
    return folder.parent.name in TRAINED and shows and (folder / "config.json").is_file()


@cache
def config_of(folder: Path) -> dict[str, Any]:
    """The config of a run, which its key stands for."""
    return read_object(folder / "config.json")


def size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def owner(folder: Path) -> str:
    """Who computed the run."""
    try:
        return folder.owner()
    except KeyError:  # a user of another machine
        return getpass.getuser()


def _title(folder: Path, model: Path | None) -> str:
    """Of the method, or of the part of it that was trained."""
    stage = None if model is None else model.parent.name
    arm = next(iter(arms_of(stage).values()), None)
    if folder.parent.name in TRAINED:
        prior = STAGES[folder.parent.name].trains == "prior"
        return "BlurDM stage 2 (prior)" if prior else (arm.curve or arm.title) if arm else folder.parent.name
    return arm.title if arm else str(stage)


def _samples(folder: Path, images: bool) -> list[tuple[Path, str | None]]:
    """A few restored images, evenly spread over arms and photos."""
    paths = sorted((folder / "images").glob("*/*/*.png")) if images else []
    return [(path, path.parent.relative_to(folder).as_posix()) for path in paths[:: -(-len(paths) // SAMPLES) or 1]]


@cache
def _places(root: Path, key: str) -> tuple[Path, ...]:
    places = (root / stage / key for stage in STAGES)
    return tuple(place for place in places if (place / "config.json").is_file())


def _object(path: Path) -> dict[str, Any]:
    return read_object(path) if path.is_file() else {}


@cache
def _counts(index: Path) -> dict[str, int]:
    """The number of pairs by published split: validation scenes are carved from train."""
    splits = Counter("test" if pair["split"] == "test" else "train" for pair in _object(index).get("pairs", []))
    return dict(splits)


@cache
def _digest(index: Path) -> str | None:
    return _object(index).get("digest")


def _last_sign(folder: Path) -> float:
    paths = (folder / name for name in ("progress.json", LIVE, "history.jsonl", "config.json"))
    return max(path.stat().st_mtime for path in paths if path.is_file())
