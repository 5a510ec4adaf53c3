"""Restorations that some other method made, as a finished run of the stage ``restore``: measured like our own."""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from blurdm.core.arms import ARMS
from blurdm.core.errors import InputError
from blurdm.core.runs import Resources, Run
from blurdm.core.store import file_digest, finished, locked, provenance, read_json, write_json
from blurdm.data.layouts import BLUR_KINDS, image_files
from blurdm.data.pairs import read_image, write_image
from blurdm.stages.test_images import TestImage, test_images

SUFFIX = re.compile(r"[-_](out|output|pred|result|restored|deblur|deblurred|fake_?B)$", re.IGNORECASE)
PREFIX = re.compile(r"^(blur|gt|sharp|input|out|output|pred|restored|deblurred)[-_]", re.IGNORECASE)
NAMED = 3  # files that an error names


def given_run(prepared: Run, sections: dict[str, object], digest: str, name: str) -> Run:
    """The run that restorations with this ``digest`` are, of the test images of ``prepared``, under this ``name``."""
    if name in ARMS:
        raise InputError(f"--as {name}: is a method of ours; should be another name")
    return Run("restore", sections, {"prepare": prepared, "images": digest, "name": name}, code="")


def holds_blurred(folder: Path) -> bool:
    """Whether one of the images in ``folder`` lies below a folder that layouts have for blurred ones."""
    return any(set(BLUR_KINDS) & set(Path(file).parts[:-1]) for file in image_files(folder))


def pairs_of_sharp(folder: Path, runs: Path) -> Path:
    """A data folder in layout ``folders`` whose sharp images, and for want of others its blurred ones, are those in
    ``folder``: links below ``runs``. Only what others restored can be measured on it. InputError without images.
    """
    if next(image_files(folder), None) is None:
        raise InputError(f"{folder}: no images; should hold sharp ones, or pairs of a layout")
    place = folder.resolve()
    root = runs / ".against" / hashlib.sha256(str(place).encode()).hexdigest()[:16]
    root.mkdir(parents=True, exist_ok=True)
    for kind in ("blur", "sharp"):
        with suppress(FileExistsError):
            (root / kind).symlink_to(place, target_is_directory=True)
    return root


def import_images(run: Run, folder: Path, root: Path, on_image: Callable[[int, int], None]) -> None:
    """Make the run folder of ``run`` from the images in ``folder``; one that was interrupted goes on.

    InputError for a test image without restoration or with two, and for one of another size.
    """
    target = run.folder(root)
    prepared = run.inputs["prepare"]
    assert isinstance(prepared, Run)
    data = Path(run.sections["data"].root)
    tests = test_images(prepared.folder(root), data)
    files = match(tests, folder, list(image_files(folder)))
    name = str(run.inputs["name"])
    with locked(target):
        if finished(target) is not None:
            return
        write_json(target / "config.json", run.description)
        for number, test in enumerate(tests):
            kept = test.file(target / "images", name)
            if not kept.is_file():
                _copy(folder / files[test.identity], test, kept)
            on_image(number + 1, len(tests))
        images = "".join(file_digest(test.file(target / "images", name)) for test in tests)
        origin = {"given": str(folder.absolute()), "against": str(data.absolute())}
        origin["data_digest"] = read_json(prepared.folder(root) / "index.json")["digest"]
        write_json(target / "provenance.json", provenance(Resources()) | origin)
        result = {"stage": run.stage, "key": run.key, "seconds": 0.0, "metrics": {"restored_images": len(tests)}}
        digest = hashlib.sha256(images.encode()).hexdigest()
        result |= {"arms": [name], "cost": {}, "iterations": 0, "images_sha256": digest}
        write_json(target / "result.json", result)


def match(tests: Sequence[TestImage], folder: Path, files: Sequence[str]) -> dict[str, str]:
    """The file in ``folder`` of each test image, by its identity; ``files`` are relative.

    A file is called like its test image, or like its scene and image (``GOPR0384_11_00-000001``), perhaps with an
    ending such as ``_out`` or a beginning such as ``blur_``. Its scene is a folder above it (of a nested scene, as much
    of it as there is), or the image's name occurs once in the data set.
    """
    by_name: dict[str, list[TestImage]] = {}
    for test in tests:
        scene = test.scene.replace("/", "-")
        for name in (test.name, f"{scene}-{test.name}", f"{scene}_{test.name}"):
            by_name.setdefault(name, []).append(test)
    found: dict[str, list[str]] = {}
    for file in files:
        path = Path(file)
        bare = SUFFIX.sub("", path.stem)
        named = next(filter(None, map(by_name.get, (path.stem, bare, PREFIX.sub("", bare)))), [])
        folders = set(path.parts[:-1])
        shared = {test.identity: len(folders & set(test.scene.split("/"))) for test in named}
        nearest = [test for test in named if shared[test.identity] == max(shared.values())]
        if len(nearest) == 1:
            found.setdefault(nearest[0].identity, []).append(file)
    _require_one_each(tests, found, folder, files)
    return {identity: file for identity, (file,) in found.items()}


def _require_one_each(
    tests: Sequence[TestImage], found: dict[str, list[str]], folder: Path, files: Sequence[str]
) -> None:
    missing = [test.identity for test in tests if test.identity not in found]
    if missing:
        there = f"; there are {_some(files)}" if files else "; it holds no images"
        raise InputError(
            f"{folder}: {len(missing)} of {len(tests)} test images have no restoration, such as {_some(missing)}{there}"
        )
    twice = next(((identity, names) for identity, names in found.items() if len(names) > 1), None)
    if twice:
        raise InputError(f"{folder}: {' and '.join(twice[1])} are both restorations of {twice[0]}; should be one")


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def _copy(source: Path, test: TestImage, target: Path) -> None:
    """Write ``source`` as an 8-bit RGB PNG; InputError unless it has the size of its test image."""
    pixels, sharp = read_image(source), read_image(test.sharp)
    if pixels.shape != sharp.shape:
        size, wanted = (f"{image.shape[1]}x{image.shape[0]} px" for image in (pixels, sharp))
        raise InputError(f"{source}: {size}; should be {wanted}, as {test.sharp}")
    write_image(target, pixels)
