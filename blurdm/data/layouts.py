"""Published folder layouts of data sets, and the (blur, sharp) pairs in a folder; files without partner are errors."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from blurdm.core.errors import InputError
from blurdm.core.registry import lookup
from blurdm.data.pairs import SUFFIXES

BLUR_KINDS = ("blur", "input")
NO_SCENE = "all"
NAMED = 3  # how many odd files an error names


@dataclass(frozen=True)
class PairFiles:
    """A blurred and a sharp image, posix paths relative to the root; (scene, name) is unique within ``split``."""

    split: str
    scene: str
    name: str
    blur: str
    sharp: str


@dataclass(frozen=True)
class Layout:
    """Patterns of relative paths with groups kind (blur, sharp, input, target), name, and perhaps split and scene.

    A path without split belongs to test, which can never leak into training; one without scene to the scene "all", and
    in train to one of BLOCKS scenes of neighbouring names. ``lists``: files of pairs, by split, that replace patterns.
    """

    expected: str
    patterns: tuple[str, ...]
    published: Mapping[str, int] = field(default_factory=dict)
    lists: Mapping[str, str] = field(default_factory=dict)


BLOCKS = 10  # for validation on neighbours in a folder, which may be frames of one video
_SPLIT = r"(?P<split>train|test)/"
_BLUR_SHARP = r"(?P<kind>blur|sharp)/"
_INPUT_TARGET = r"(?P<kind>input|target)/"
_ANY_KIND = r"(?P<kind>blur|sharp|input|target)/"
_GOPRO = "(?:GOPRO_Large|GOPRO|GoPro)"
_SCENE = r"(?P<scene>[^/]+)/"
_NAME = r"(?P<name>[^/]+)"


def _restormer(folder: str) -> str:
    return rf"(?:{folder}/)?(?:{_SPLIT})?(?:{folder}/)?{_INPUT_TARGET}{_NAME}"


def _realblur(letter: str) -> Layout:
    folder = rf"[Rr]eal_?[Bb]lur[-_]?{letter}"
    # The published files are called blur_1.png and gt_1.png.
    named = rf"(?:{folder}/)?{_SPLIT}{_BLUR_SHARP}{_SCENE}(?:(?:blur|gt|sharp)_)?{_NAME}"
    lists = {split: f"RealBlur_{letter}_{split}_list.txt" for split in ("train", "test")}
    expected = (
        f"{{train,test}}/{{blur,sharp}}/<scene>/*.png, {{train,test}}/{{input,target}}/*.png, or {lists['train']}"
    )
    return Layout(expected, (named, _restormer(folder)), {"train": 3758, "test": 980}, lists)


LAYOUTS: dict[str, Layout] = {
    "gopro": Layout(
        "{train,test}/<scene>/{blur,sharp}/*.png or {train,test}/{input,target}/GOPR<scene>-*.png",
        (
            rf"(?:GOPRO_Large/)?{_SPLIT}{_SCENE}{_BLUR_SHARP}{_NAME}",
            rf"(?:{_GOPRO}/)?{_SPLIT}(?:{_GOPRO}/)?{_ANY_KIND}(?P<scene>GOPR[0-9A-Za-z]+_\d+_\d+)[-_]{_NAME}",
        ),
        {"train": 2103, "test": 1111},
    ),
    "hide": Layout("{input,target}/*.png or test/{input,target}/*.png", (_restormer("HIDE"),), {"test": 2025}),
    "realblur_j": _realblur("J"),
    "realblur_r": _realblur("R"),
    "folders": Layout(
        "{blur,sharp}/ with images or subfolders (= scenes), optionally below train/ and test/",
        (rf"(?:{_SPLIT})?{_BLUR_SHARP}(?:(?P<scene>.+)/)?{_NAME}",),
    ),
}

Key = tuple[str, str, str]  # split, scene, name


def scan(root: Path, layout: str) -> list[PairFiles]:
    """All pairs below ``root``, sorted; InputError for a missing folder, no pairs, an empty split, or an odd file."""
    rules = lookup("layout", layout, LAYOUTS)
    if not root.is_dir():
        raise InputError(f"{root}: no such data folder; should hold {rules.expected} (layout {layout})")
    listed = {split: root / name for split, name in rules.lists.items() if (root / name).is_file()}
    blurred, sharp = _read_lists(root, listed) if listed else _collect(root, rules)
    if not blurred and not sharp:
        raise InputError(f"{root}: no images in layout {layout}; should hold {rules.expected}")
    _require_partners(root, blurred, sharp)
    splits = {key[0] for key in blurred}
    for split in ("train", "test"):
        if (root / split).is_dir() and split not in splits:
            raise InputError(f"{root / split}: no pairs; should hold some as {rules.expected}, or not exist")
    pairs = [PairFiles(*key, blur=blurred[key], sharp=sharp[key]) for key in sorted(blurred)]
    return _in_blocks(pairs)


def _in_blocks(pairs: Sequence[PairFiles]) -> list[PairFiles]:
    """``pairs``, those of train without scene in scenes "block 0", "block 1", ... of neighbouring names."""
    alone = [pair for pair in pairs if pair.split == "train" and pair.scene == NO_SCENE]
    blocks = {pair: f"block {number * BLOCKS // len(alone)}" for number, pair in enumerate(alone)}
    return [replace(pair, scene=blocks.get(pair, pair.scene)) for pair in pairs]


def _read_lists(root: Path, lists: Mapping[str, Path]) -> tuple[dict[Key, str], dict[Key, str]]:
    """The blurred and the sharp files by key that ``lists`` name, a pair a line: the sharp one, then the blurred one.

    A scene is the folder above the two that hold them, as RealBlur's authors publish it. InputError for another line.
    """
    blurred: dict[Key, str] = {}
    sharp: dict[Key, str] = {}
    for split, path in lists.items():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            files = line.split()[:2]
            if not files:
                continue
            if len(files) < 2 or any(len(Path(file).parts) < 3 or not (root / file).is_file() for file in files):
                raise InputError(
                    f"{path}: line {number}: should name a sharp and a blurred file of a scene below {root}"
                )
            key = (split, Path(files[0]).parts[-3], Path(files[0]).stem.removeprefix("gt_"))
            sharp[key], blurred[key] = files
    return blurred, sharp


def count_report(pairs: Sequence[PairFiles], layout: str) -> list[str]:
    """One line per split whose number of pairs is not the published one, such as "gopro: 160 of 2103 train pairs"."""
    counts = Counter(pair.split for pair in pairs)
    lines = []
    for split, published in lookup("layout", layout, LAYOUTS).published.items():
        if counts[split] != published:
            remark = "a subset?" if counts[split] < published else "more than published"
            lines.append(f"{layout}: {counts[split]} of {published} {split} pairs ({remark})")
    return lines


def _collect(root: Path, rules: Layout) -> tuple[dict[Key, str], dict[Key, str]]:
    """The blurred and the sharp files by key; files of the same folder and stem in two formats are an error."""
    patterns = [re.compile(pattern) for pattern in rules.patterns]
    blurred: dict[Key, str] = {}
    sharp: dict[Key, str] = {}
    for relative in image_files(root):
        stem = relative.rpartition(".")[0]
        match = next((m for m in (pattern.fullmatch(stem) for pattern in patterns) if m), None)
        if match is None:
            continue
        groups = match.groupdict()
        key = (groups.get("split") or "test", groups.get("scene") or NO_SCENE, groups["name"])
        files = blurred if groups["kind"] in BLUR_KINDS else sharp
        if key in files:
            raise InputError(f"{root}: {files[key]} and {relative} are the same image of a pair; should be one file")
        files[key] = relative
    return blurred, sharp


def image_files(root: Path) -> Iterator[str]:
    """Relative posix paths of the image files below ``root``, without hidden ones, links followed, in order."""
    for folder, subfolders, files in os.walk(root, followlinks=True):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(files):
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                yield (Path(folder) / name).relative_to(root).as_posix()


def _require_partners(root: Path, blurred: dict[Key, str], sharp: dict[Key, str]) -> None:
    """InputError for images without partner: names some, and the first folder that is missing as a whole, if any."""
    to_sharp, to_blurred = {"blur": "sharp", "input": "target"}, {"sharp": "blur", "target": "input"}
    sides = ((blurred, sharp, "blurred", "sharp", to_sharp), (sharp, blurred, "sharp", "blurred", to_blurred))
    for files, partners, kind, partner_kind, partner_folder in sides:
        odd = sorted(files[key] for key in files.keys() - partners.keys())
        if odd:
            named = ", ".join(odd[:NAMED]) + (", ..." if len(odd) > NAMED else "")
            folders = ["/".join(partner_folder.get(part, part) for part in Path(name).parent.parts) for name in odd]
            missing = next((folder for folder in folders if not (root / folder).is_dir()), None)
            remedy = f"folder {missing} is missing" if missing else f"should have the same names in {folders[0]}"
            raise InputError(f"{root}: {len(odd)} {kind} images without {partner_kind} one: {named}; {remedy}")
