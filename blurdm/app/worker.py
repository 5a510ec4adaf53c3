"""The worker behind the page: its models, one photo at a time, and a folder of results."""

import os
import secrets
import tempfile
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial
from html import escape
from pathlib import Path
from typing import IO, Any

import numpy as np

from blurdm.app.models import OfferedModel
from blurdm.core.errors import InputError, StopRequested
from blurdm.pages import data_uri, slider
from blurdm.restore.compare import SIDE, make_preview
from blurdm.restore.encoding import encode_photo
from blurdm.restore.files import shown
from blurdm.restore.loading import load
from blurdm.restore.memory import parse_memory, photo_budget
from blurdm.restore.photo import Photo, check_room, decode_photo, size_of
from blurdm.restore.restorer import OnTile, Restorer

KEPT = 12  # results; the oldest is removed for a new one
LONGEST_NAME = 80
DETAIL = 700  # px: side of the part of a large photo that is also shown at full size
ENDINGS = {"JPEG": ".jpg", "PNG": ".png", "TIFF": ".tif", "WEBP": ".webp", "BMP": ".bmp", "HEIF": ".heic"}

Event = dict[str, Any]  # {progress, text}, {result}, or {error}
Send = Callable[[Event], object]


def unnamed_file() -> IO[bytes]:
    """A new file on disk that has no name: none can be swept away by others, and none is left behind."""
    os.makedirs(tempfile.gettempdir(), mode=0o700, exist_ok=True)  # it may be gone since the start
    return tempfile.TemporaryFile()


class Result:
    """A restored photo on disk, and the name under which a browser saves it; closed when nobody reads it any more."""

    def __init__(self, content: bytes, name: str) -> None:
        self.file, self.name, self.size = unnamed_file(), name, len(content)
        weakref.finalize(self, self.file.close)
        self.file.write(content)
        self.file.flush()


class Worker:
    """Restores one photo at a time, in its own thread, with one model at a time in memory; keeps the last results."""

    def __init__(self, models: dict[str, OfferedModel], memory: str | None, device: str = "cpu") -> None:
        self.models, self.memory, self.device = models, memory, device
        self.results: dict[str, Result] = {}  # by the unguessable part of their address
        self.busy = self.closed = False
        self._loaded: tuple[str, Restorer] | None = None
        self._current: Future[None] | None = None
        self._thread = ThreadPoolExecutor(1)

    def load_first(self) -> None:
        """Load in advance the model that the page proposes."""
        self._restorer(next(name for name, choice in self.models.items() if not choice.problem))

    def close(self, seconds: float) -> bool:
        """Stop at the next tile; returns whether that was so within ``seconds``."""
        self.closed = True
        self._thread.shutdown(wait=False)
        return not self._current or bool(wait([self._current], seconds).done)

    def start(
        self, file: IO[bytes], name: str, models: list[str], send: Send, stop: Callable[[], bool]
    ) -> Future[None]:
        """Restore the photo in ``file``, which it closes, with each of ``models``; ``send`` is called there."""
        name = shown(name)[:LONGEST_NAME]
        self._current = self._thread.submit(self._restore, file, name, models, send, lambda: self.closed or stop())
        return self._current

    def _restore(self, file: IO[bytes], name: str, models: list[str], send: Send, stop: Callable[[], bool]) -> None:
        def on_tile(number: int, done: int, tiles: int) -> None:
            if stop():
                raise StopRequested
            send({"progress": (number + done / tiles) / len(models), "text": f"restoring with {models[number]}"})

        try:
            photo = self._decode(file, name)
            for number, model in enumerate(models):
                on_tile(number, 0, 1)
                self._restore_with(model, photo, name, send, partial(on_tile, number))
        except StopRequested:
            return
        except Exception as error:  # the page goes on, whatever is in that file
            send({"error": _line(name, error)})

    def _restore_with(self, model: str, photo: Photo, name: str, send: Send, on_tile: OnTile) -> None:
        try:
            restorer = self._restorer(model)
            restored = restorer.restore_photo(photo.pixels, on_tile, size_of(photo))
            note = "" if restored.scale == 1 else f"<p>{restored.note.capitalize()}.</p>"
            send({"result": self._result_html(photo, restored.pixels, name, model, note)})
        except StopRequested:
            raise
        except Exception as error:  # such as a full disk: only this result is missing
            send({"error": f"{model}: {_line(name, error)}"})

    def _decode(self, file: IO[bytes], name: str) -> Photo:
        with file:
            budget, size = photo_budget(parse_memory(self.memory)), os.fstat(file.fileno()).st_size
            check_room(2 * size, budget, f"{name}: the file")
            return decode_photo(file.read(), name, budget)

    def _restorer(self, model: str) -> Restorer:
        if self._loaded is None or self._loaded[0] != model:
            self._loaded = None  # before the next one needs memory
            self._loaded = model, load(self.models[model].model, memory=self.memory, device=self.device)
        return self._loaded[1]

    def _result_html(self, photo: Photo, pixels: np.ndarray, name: str, model: str, note: str) -> str:
        """Store the result; returns ``note``, a slider and a link that saves it, as HTML."""
        height, width = pixels.shape[:2]
        sliders = _slider(photo, pixels, f"{name}, {model}")
        if max(height, width) > SIDE:  # shown smaller, which hides small blur
            middle = replace(photo, pixels=_middle(photo.pixels))
            sliders += f"<p>The middle, not made smaller:</p>{_slider(middle, _middle(pixels), f'{name}, middle')}"
        stem = Path(name.replace("\\", "/")).stem or "photo"
        saved_as = f"{stem}-{model.replace('/', '-')}"[:LONGEST_NAME] + ENDINGS[photo.format]
        result = Result(encode_photo(photo, pixels), saved_as)
        while len(self.results) >= KEPT:
            self.results.pop(next(iter(self.results)))
        address = secrets.token_urlsafe()
        self.results[address] = result
        return (
            f"<section><h2>{escape(model)}</h2>{note}{sliders}"
            f'<p><a class="save" href="results/{address}" download>Save the result</a> {width} × {height} px,'
            f" {photo.format}</p></section>"
        )


def _line(name: str, error: Exception) -> str:
    """An error about photo ``name``, in one line."""
    if isinstance(error, InputError):
        return shown(str(error))
    return f"{name}: {type(error).__name__}: {shown(str(error))[:200]}"


def _slider(photo: Photo, restored: np.ndarray, label: str) -> str:
    preview = make_preview(label, photo, restored)
    before, after = (data_uri(part, "image/jpeg") for part in (preview.before, preview.after))
    return slider(before, after, label, ("photo", "restored"))


def _middle(pixels: np.ndarray) -> np.ndarray:
    """The middle of (H, W) or (H, W, 3), at most DETAIL px high and wide."""
    top, left = (max((side - DETAIL) // 2, 0) for side in pixels.shape[:2])
    return np.ascontiguousarray(pixels[top : top + DETAIL, left : left + DETAIL])
