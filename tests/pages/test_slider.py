"""Pages that need no network, and their before/after slider, in a real headless Chromium."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blurdm.pages import data_uri, page, slider
from tests.support.chromium import browser
from tests.support.tools import require

STATE = """(() => { const s = document.querySelector('.slider'), i = s.querySelector('input');
  return [Number(i.value), i.getAttribute('aria-valuetext'), s.style.getPropertyValue('--at'),
          document.querySelector('.after').computedStyleMap().get('clip-path').toString()] })()"""
LABEL = 'photo <1> & "2"'


def picture(red: int, blue: int) -> str:
    content = io.BytesIO()
    Image.fromarray(np.full((31, 37, 3), (red, 0, blue), np.uint8)).save(content, "PNG")
    return data_uri(content.getvalue(), "image/png")


def made(folder: Path, script: str = "") -> Path:
    """A page with one slider, red before and blue after."""
    path = folder / "a page.html"
    body = slider(picture(255, 0), picture(0, 255), LABEL, ("blurred", "restored"))
    path.write_text(page("<title> & more", f"<main>{body}</main>", script=script))
    return path


@pytest.mark.parametrize("width", [1200, 375])
def test_slider_moves_by_mouse_and_by_key(tmp_path: Path, width: int) -> None:
    require("chromium")
    with browser(tmp_path) as window:
        window.open(made(tmp_path), width)
        window.click(".slider input", across=0.8)
        assert window.run(STATE) == [80, "80 %", "80%", "inset(0px 0px 0px 80%)"]
        window.press("ArrowLeft", times=3)
        assert window.run(STATE)[:3] == [77, "77 %", "77%"]
        assert window.run("document.title") == "<title> & more"
        assert window.run("document.querySelector('.after').alt") == f"{LABEL}: restored"
        assert LABEL in window.run("document.querySelector('input').ariaLabel")
        window.screenshot(tmp_path / "seen.png")
        assert window.complaints == []
        assert [r for r in window.requests if not r.startswith(("data:", "file:"))] == []
    with Image.open(tmp_path / "seen.png") as seen:
        row = [seen.convert("RGB").getpixel((x, 60)) for x in (width // 2, int(width * 0.9))]
    assert row == [(255, 0, 0), (0, 0, 255)]  # left of the bar the first picture, right of it the second


def test_policy_stops_what_is_not_part_of_the_page(tmp_path: Path) -> None:
    require("chromium")
    path = made(tmp_path, script="new Image().src = 'http://127.0.0.1:9/x.png';")
    path.write_text(path.read_text().replace("</main>", "</main><script>document.title = 'taken'</script>"))
    with browser(tmp_path) as window:
        window.open(path)
        assert window.run("document.title") == "<title> & more"
        assert len(window.complaints) >= 2 and all("Content Security Policy" in said for said in window.complaints)


def test_pages_need_neither_torch_nor_any_extra() -> None:
    probe = "import sys, blurdm.pages; print({'torch', 'jinja2', 'PIL', 'numpy'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", probe], text=True).strip() == "set()"
