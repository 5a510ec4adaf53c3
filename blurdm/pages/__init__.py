"""Web pages that open from disk without network: one file each, pictures, style and script inside. No torch here."""

import base64
import hashlib
from html import escape
from pathlib import Path
from string import Template

FOLDER = Path(__file__).parent
STYLE = (FOLDER / "slider.css").read_text(encoding="utf-8")
SCRIPT = (FOLDER / "slider.js").read_text(encoding="utf-8")


def slider(before: str, after: str, label: str, names: tuple[str, str] = ("before", "after")) -> str:
    """HTML of two pictures of equal size (data URIs), one uncovered by mouse, finger or arrow keys; needs ``page``.

    ``label`` is the accessible name; ``names`` caption the two sides.
    """
    texts = {"label": label, "before_name": names[0], "after_name": names[1], "before": before, "after": after}
    return _fill("slider.html", {name: escape(text) for name, text in texts.items()})


def page(title: str, body: str, style: str = "", script: str = "", policy: str = "") -> str:
    """A whole document around ``body`` (HTML) with the sliders' style and script, and more of both on request.

    Its content security policy allows the content of the file and no requests but those of the directives in
    ``policy``.
    """
    style, script = STYLE + style, SCRIPT + script
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)};"
        f" base-uri 'none'; form-action 'none'; {policy}"
    )
    parts = {"title": escape(title), "body": body, "style": style, "script": script, "policy": policy}
    return _fill("page.html", parts)


def _fill(template: str, parts: dict[str, str]) -> str:
    return Template((FOLDER / template).read_text(encoding="utf-8")).substitute(parts)


def data_uri(content: bytes, media_type: str) -> str:
    """``content`` as a data URI: ``data:image/png;base64,...``."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def _hash(text: str) -> str:
    """The source expression of a content security policy for ``text``."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
