"""The worker behind the page: its models, one photo at a time, and a folder of results."""

import secrets
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from blurdm.core.arms import MODELS, STAGES
from blurdm.core.errors import InputError, StopRequested
from blurdm.core.registry import require
from blurdm.core.store import read_json
from blurdm.pages import data_uri, slider
from blurdm.restore.compare import SIDE, make_preview
from blurdm.restore.encoding import encode_photo
from blurdm.restore.files import shown
from blurdm.restore.models import installed
from blurdm.restore.photo import Photo, decode_photo, size_of
from blurdm.restore.restorer import Restorer, load

KEPT = 12  # results; the oldest is removed for a new one
LONGEST_NAME = 80
DETAIL = 700  # px: side of the part of a large photo that is also shown at full size
ENDINGS = {"JPEG": ".jpg", "PNG": ".png", "TIFF": ".tif", "WEBP": ".webp", "BMP": ".bmp", "HEIF": ".heic"}

Event = dict[str, Any]  # {progress, text}, {result}, or {error}
Send = Callable[[Event], object]


@dataclass(frozen=True)
class Result:
    """A restored photo on disk, and the name under which a browser saves it."""

    file: Path
    name: str


def find_models(folder: Path, given: list[str]) -> dict[str, str]:
    """Name -> argument of ``blurdm.load``: installed models, runs below ``folder``, ``given`` ones; InputError if none.

    Runs are finished ones that restore photos, two folders below ``folder``, as ``blurdm run --export`` makes them.
    """
    runs = {}
    for result in sorted(folder.glob("*/*/result.json")):
        stage = read_json(result.with_name("config.json"))["stage"]
        if stage in MODELS and STAGES[stage].trains != "pretrain":
            runs[str(result.parent.relative_to(folder))] = str(result.parent)
    models = {name: name for name in installed()} | runs | {name: name for name in given}
    if not models:
        raise InputError(f"no model: none is installed, and {folder} holds no finished run; give one with --model")
    return models


class Worker:
    """Restores one photo at a time, in its own thread, and keeps the last results in ``folder``."""

    def __init__(self, models: dict[str, str], memory: str, folder: Path) -> None:
        self.models, self.memory, self.folder = models, memory, folder
        self.results: dict[str, Result] = {}  # by the unguessable part of their address
        self.busy = self.closed = False
        self._restorers: dict[str, Restorer] = {}
        self._thread = ThreadPoolExecutor(1)

    def load(self, models: list[str]) -> None:
        """Load ``models`` in advance; InputError for one that restores no photos."""
        for model in models:
            self._restorer(model)

    def close(self) -> None:
        """Stop at the next tile, and wait until it has."""
        self.closed = True
        self._thread.shutdown()

    def start(self, content: bytes, name: str, models: list[str], send: Send, stop: Callable[[], bool]) -> Future[None]:
        """Restore the photo in ``content`` with each of ``models``; ``send`` gets the events, in that thread."""
        return self._thread.submit(self._restore, content, shown(name)[:LONGEST_NAME], models, send, stop)

    def _restore(self, content: bytes, name: str, models: list[str], send: Send, stop: Callable[[], bool]) -> None:
        try:
            photo = None
            for number, model in enumerate(models):
                send({"progress": number / len(models), "text": f"restoring with {model}"})
                restorer = self._restorer(model)
                photo = photo or decode_photo(content, name, restorer.photo_budget())

                def on_tile(done: int, tiles: int, number: int = number, model: str = model) -> None:
                    if self.closed or stop():
                        raise StopRequested
                    send({"progress": (number + done / tiles) / len(models), "text": f"restoring with {model}"})

                pixels = restorer.restore(photo.pixels, on_tile, size_of(photo))
                send({"result": self._result_html(photo, pixels, name, model)})
        except StopRequested:
            return
        except InputError as error:
            send({"error": shown(str(error))})
        except (OSError, ValueError, MemoryError, RuntimeError) as error:
            # such as a full disk, or a profile that no encoder accepts: the page goes on
            send({"error": f"{name}: {type(error).__name__}: {shown(str(error))[:200]}"})

    def _restorer(self, model: str) -> Restorer:
        require("model", model, self.models)
        if model not in self._restorers:
            self._restorers[model] = load(self.models[model], memory=self.memory)
        return self._restorers[model]

    def _result_html(self, photo: Photo, pixels: np.ndarray, name: str, model: str) -> str:
        """Store the result; returns a slider and a link that saves it, as HTML."""
        height, width = pixels.shape[:2]
        sliders = _slider(photo, pixels, f"{name}, {model}")
        if max(height, width) > SIDE:  # shown smaller, which hides small blur
            middle = replace(photo, pixels=_middle(photo.pixels))
            sliders += f"<p>The middle, not made smaller:</p>{_slider(middle, _middle(pixels), f'{name}, middle')}"
        while len(self.results) >= KEPT:
            self.results.pop(next(iter(self.results))).file.unlink()
        address = secrets.token_urlsafe()
        file = self.folder / address
        file.write_bytes(encode_photo(photo, pixels))
        stem = Path(name.replace("\\", "/")).stem or "photo"
        self.results[address] = Result(file, f"{stem}-{model.replace('/', '-')}{ENDINGS[photo.format]}")
        return (
            f"<section><h2>{escape(model)}</h2>{sliders}"
            f'<p><a class="save" href="results/{address}" download>Save the result</a> {width} × {height} px,'
            f" {photo.format}</p></section>"
        )


def _slider(photo: Photo, restored: np.ndarray, label: str) -> str:
    preview = make_preview(label, photo, restored)
    before, after = (data_uri(part, "image/jpeg") for part in (preview.before, preview.after))
    return slider(before, after, label, ("photo", "restored"))


def _middle(pixels: np.ndarray) -> np.ndarray:
    """The middle of (H, W) or (H, W, 3), at most DETAIL px high and wide."""
    top, left = (max((side - DETAIL) // 2, 0) for side in pixels.shape[:2])
    return np.ascontiguousarray(pixels[top : top + DETAIL, left : left + DETAIL])
