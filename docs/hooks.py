"""MkDocs hooks: make the reference pages from the code, and point links at files outside of docs/ to copies of them."""

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
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from analysis.drawing import styled
from analysis.figures.schedules import schedules
from blurdm.cli.main import FORMER_NAMES, main, parser
from blurdm.core.config import Config
from blurdm.core.config_io import load_config, read_yaml
from docs import claims, make_images
from experiments import sweep

REPOSITORY = Path(__file__).resolve().parent.parent

LINK = re.compile(r"\]\(([^)\s]+)\)")
MATHS = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
ANALYSES = ("build", "grid", "report", "trace", "verify")
HELP_ENVIRONMENT = {"COLUMNS": "84", "NO_COLOR": "1"}  # of --help


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and the figure that are made from the code."""
    canonical = load_config(REPOSITORY / "params.yaml")
    generated: dict[str, str | bytes] = {
        "reference/commands.md": _commands_page(),
        "reference/config.md": _config_page(read_yaml(REPOSITORY / "params.yaml")),
        "schedules.svg": _schedules(canonical.diffusion.model_dump()),
    }
    for name, content in generated.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links at files of the repository outside of docs/ to copies on the site; PluginError names a dead link."""

    def link(match: re.Match[str]) -> str:
        path = os.path.normpath(PurePosixPath("docs", page.file.src_uri).parent / match[1].partition("#")[0])
        if ":" in match[1] or path.startswith("docs"):
            return match[0]  # MkDocs checks links within docs/
        if not (REPOSITORY / path).is_file():
            raise PluginError(f"docs/{page.file.src_uri}: the link {match[1]} leads to no file")
        copy = f"files/{path}.txt" if path.endswith(".md") else f"files/{path}"  # MkDocs would take .md for a page
        if files.get_file_from_path(copy) is None:
            files.append(File.generated(config, copy, abs_src_path=str(REPOSITORY / path)))
        return f"]({os.path.relpath(copy, PurePosixPath(page.file.src_uri).parent)})"

    return LINK.sub(link, markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Convert LaTeX to MathML, which browsers render without a script."""
    return MATHS.sub(lambda m: convert(unescape(m[2]), display="inline" if m[1] == "span" else "block"), html)


def _commands_page() -> str:
    """A page with the ``--help`` of every command."""
    parts = ["# Commands", "", "The `--help` of every command."]
    for words in _commands(parser()):
        parts += _help(f"blurdm {' '.join(words)}", main, words)
    parts += _help("python experiments/sweep.py", sweep.main, [])
    for name in ANALYSES:
        parts += _help(f"python -m analysis.{name}", import_module(f"analysis.{name}").main, [])
    for module in (make_images, claims):
        parts += _help(f"python -m {module.__name__}", module.main, [])
    return "\n".join(parts) + "\n"


def _commands(parser: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command of an argparse parser, without aliases, commands with sub-commands before these."""
    choices = [action.choices for action in parser._actions if isinstance(action.choices, dict)]
    if words and (not choices or parser.get_default("command")):
        yield words
    for name, child in (item for mapping in choices for item in mapping.items()):
        if name not in FORMER_NAMES:
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
        "All keys of a config. `--set section.key=value` overrides one. A config states every key; only keys that came"
        " in a later release may be absent. A key that is not listed here is an error."
    )
    parts = ["# Every configuration key", "", intro]
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
