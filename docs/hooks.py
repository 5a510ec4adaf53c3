"""MkDocs hooks: include text of other files, point links to the right page, and make the reference from the code.

``<!-- include FILE "HEADING" -->`` stands for the text below that heading of a Markdown file of this repository, or
without a heading for the whole text. So each text is written in one place.
"""

import io
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from html import unescape
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

import matplotlib
from latex2mathml.converter import convert
from markdown.extensions.toc import slugify
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from analysis.drawing import styled
from analysis.figures.schedules import schedules
from blurdm.cli.main import main, parser
from blurdm.core.config import Config
from blurdm.core.config_io import load_config
from experiments import sweep

REPOSITORY = Path(__file__).resolve().parent.parent

INCLUDE = re.compile(r'^<!-- include (\S+?)(?: "(.+)")? -->$', re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^(#+) (.+)$")
MATHS = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
ANALYSES = ("build", "grid", "report", "trace", "verify")
HELP_ENVIRONMENT = {"COLUMNS": "84", "NO_COLOR": "1"}  # of --help

places: dict[tuple[str, str], str] = {}
"""(file of the repository, slug of a heading in it or "" for the whole) -> where on the site its text is."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made from the code, and record which text is on which page."""
    canonical = load_config(REPOSITORY / "params.yaml")
    generated: dict[str, str | bytes] = {
        "reference/commands.md": _commands_page(),
        "reference/config.md": _config_page(canonical.model_dump()),
        "schedules.svg": _schedules(canonical.diffusion.model_dump()),
    }
    for name, content in generated.items():
        files.append(File.generated(config, name, content=content))
    places.clear()
    for file in files.documentation_pages():
        for source, heading in INCLUDE.findall(file.content_string):
            text = _included(source, heading)
            places.setdefault((source, ""), file.src_uri)
            places.setdefault((source, slugify(heading, "-")), file.src_uri)
            for _, match in _heading_lines(text):
                title = match[2]
                places.setdefault((source, slugify(title, "-")), f"{file.src_uri}#{slugify(title, '-')}")
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace include comments by text, and point links to pages of the site."""

    def put(match: re.Match[str]) -> str:
        return _linked(_included(match[1], match[2]), match[1], page, config, files)

    own = _linked(markdown, f"docs/{page.file.src_uri}", page, config, files)
    return INCLUDE.sub(put, own)


def on_page_content(html: str, **_: Any) -> str:
    """Convert LaTeX to MathML, which browsers render without a script."""
    return MATHS.sub(lambda m: convert(unescape(m[2]), display="inline" if m[1] == "span" else "block"), html)


def _included(source: str, heading: str) -> str:
    text = (REPOSITORY / source).read_text()
    if not heading:
        return text.partition("\n")[2]  # the page has a title of its own
    lines = text.splitlines(keepends=True)
    headings = [(number, len(match[1]), match[2]) for number, match in _heading_lines(text)]
    for start, depth, title in headings:
        if title == heading:
            ends = [number for number, level, _ in headings if number > start and level <= depth]
            # the document's own title stands for the text before its first section
            ends += [number for number, level, _ in headings if number > start and depth == 1]
            return "".join(lines[start + 1 : min(ends, default=len(lines))])
    raise PluginError(f"{source}: has no heading '{heading}'")


def _heading_lines(text: str) -> Iterator[tuple[int, re.Match[str]]]:
    """Line number and match of every heading outside code blocks."""
    in_code = False
    for number, line in enumerate(text.splitlines()):
        in_code ^= line.startswith("```")
        match = None if in_code else HEADING.match(line)
        if match:
            yield number, match


def _linked(text: str, source: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """``text`` of the file ``source`` with its links adapted to ``page``."""

    def link(match: re.Match[str]) -> str:
        target, _, anchor = match[1].partition("#")
        if ":" in match[1] or (source == f"docs/{page.file.src_uri}" and not target):
            return match[0]
        path = os.path.normpath(PurePosixPath(source).parent / target) if target else source
        place = places.get((path, anchor))
        if place is None and path.startswith("docs/"):
            place = path.removeprefix("docs/") + (f"#{anchor}" if anchor else "")
        if place is None and (REPOSITORY / path).is_file():
            place = f"files/{path}"  # a file that is looked at, such as an example of options
            if files.get_file_from_path(place) is None:
                files.append(File.generated(config, place, abs_src_path=str(REPOSITORY / path)))
        if place is None:
            raise PluginError(f"{source}: the link {match[1]} leads nowhere on the site, nor to a file")
        return f"]({os.path.relpath(place, PurePosixPath(page.file.src_uri).parent)})"

    return LINK.sub(link, text)


def _commands_page() -> str:
    """A page with the ``--help`` of every command."""
    parts = ["# Commands", "", "What `--help` prints, of every command there is."]
    for words in _commands(parser()):
        parts += _help(f"blurdm {' '.join(words)}", main, words)
    parts += _help("python experiments/sweep.py", sweep.main, [])
    for name in ANALYSES:
        parts += _help(f"python -m analysis.{name}", import_module(f"analysis.{name}").main, [])
    return "\n".join(parts) + "\n"


def _commands(parser: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command of an argparse parser, commands with sub-commands before these."""
    choices = [action.choices for action in parser._actions if isinstance(action.choices, dict)]
    if words and (not choices or parser.get_default("command")):
        yield words
    for name, child in (item for mapping in choices for item in mapping.items()):
        yield from _commands(child, (*words, name))


def _help(title: str, main: Callable[[list[str]], int], words: Any) -> list[str]:
    output = io.StringIO()
    with redirect_stdout(output), suppress(SystemExit), _environment(HELP_ENVIRONMENT):
        main([*words, "--help"])
    return ["", f"## `{title}`", "", "```text", output.getvalue().strip(), "```"]


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables for the time of the context."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _config_page(canonical: dict[str, Any]) -> str:
    """A page with every config key: its type, its value in params.yaml, its meaning."""
    schema = Config.model_json_schema()
    intro = (
        "What a config says, key by key; `section.key=value` after `--set` changes one. A config states every key:"
        " there are no defaults, and no key that is not listed here."
    )
    parts = ["# Configuration", "", intro]
    for name, field in schema["properties"].items():
        references = [option["$ref"] for option in (field, *field.get("anyOf", ())) if "$ref" in option]
        section = schema["$defs"][references[0].rpartition("/")[2]] if references else None
        if section is None:
            rows = {name: field}
            parts += ["", f"## `{name}`", ""]
        else:
            rows = section["properties"]
            parts += ["", f"## `{name}`", "", section.get("description", "").replace("\n", " "), ""]
        values = {name: canonical[name]} if section is None else canonical[name] or {}
        parts += ["| key | may be | in `params.yaml` | meaning |", "| --- | --- | --- | --- |"]
        for key, about in rows.items():
            value = f"`{_yaml(values[key])}`" if key in values else "–"
            parts.append(f"| `{key}` | {_kind(about, schema['$defs'])} | {value} | {about['description']} |")
    return "\n".join(parts) + "\n"


def _kind(about: dict[str, Any], defined: dict[str, Any]) -> str:
    """A JSON schema as text."""
    if "anyOf" in about:
        return " or ".join(_kind(option, defined) for option in about["anyOf"])
    if "$ref" in about:
        keys = defined[about["$ref"].rpartition("/")[2]]["properties"]
        return f"keys {', '.join(f'`{key}`' for key in keys)}"
    if "enum" in about:
        return ", ".join(f"`{value}`" for value in about["enum"])
    kind = str(about["type"])
    if kind == "array":
        items = about.get("prefixItems")
        count, item = (f" {len(items)}", items[0]) if items else ("", about["items"])
        return f"list of{count}: {_kind(item, defined)}"
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {about[name]:g}" for name, sign in signs.items() if name in about]
    return " ".join([{"string": "text", "boolean": "`true`, `false`", "null": "`null`"}.get(kind, kind), *bounds])


def _yaml(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(_yaml(item) for item in value)}]"
    return value if isinstance(value, str) else json.dumps(value)


def _schedules(diffusion: dict[str, Any]) -> bytes:
    """The report's figure of the schedules as SVG."""
    image = io.BytesIO()
    with styled(), matplotlib.rc_context({"svg.hashsalt": "schedules"}):
        schedules(diffusion).savefig(image, format="svg", metadata={"Date": None})
    return image.getvalue()
