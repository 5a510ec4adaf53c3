"""Size and structure of the code, to compare two checkouts: ``python benchmarks/structure.py [--repo FOLDER]``.

Counts production code (not tests). One-use helpers: private functions and methods with exactly one use, in their own
file. Vague bindings: assignments, arguments and loop variables whose name says nothing. Ambiguous names: class names
with more than one definition.
"""

import argparse
import ast
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDERS = ("blurdm", "analysis", "experiments", "benchmarks", "docs")
VAGUE = {
    *("found", "told", "tell", "tells", "one", "mine", "theirs", "known", "made", "said", "got", "it", "them"),
    *("thing", "things", "stuff", "here", "there", "more", "others"),
}
STAGE = "direct"  # a stage whose name is no other word of the code


@dataclass(frozen=True)
class SourceFile:
    """A file with its syntax tree."""

    path: Path
    tree: ast.Module
    lines: int


def read(repo: Path, folders: tuple[str, ...] = FOLDERS) -> list[SourceFile]:
    """Every Python file below ``folders``, in order of path."""
    files = sorted(path for folder in folders for path in (repo / folder).rglob("*.py"))
    texts = {path: path.read_text() for path in files}
    return [SourceFile(path, ast.parse(text), text.count("\n")) for path, text in texts.items()]


def functions(tree: ast.Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def one_use_helpers(source: SourceFile) -> list[str]:
    """Names of private functions and methods that one place of their file uses."""
    uses = Counter(
        node.id if isinstance(node, ast.Name) else node.attr
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Name | ast.Attribute)
    )
    names = [f.name for f in functions(source.tree) if f.name.startswith("_") and not f.name.startswith("__")]
    decorated = {f.name for f in functions(source.tree) if f.decorator_list}
    return [name for name in names if uses[name] == 1 and name not in decorated]


def bindings(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """(name, line) of every assignment, loop variable, argument and import alias."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno


def vague(source: SourceFile) -> list[tuple[str, int]]:
    return [(name, line) for name, line in bindings(source.tree) if name.strip("_").lower() in VAGUE]


def ambiguous(sources: list[SourceFile]) -> list[str]:
    """Names of classes that are defined in several places."""
    counts = Counter(n.name for s in sources for n in ast.walk(s.tree) if isinstance(n, ast.ClassDef))
    return sorted(name for name, count in counts.items() if count > 1)


def stage_files(repo: Path) -> list[str]:
    """Files outside tests whose code names one stage: where another stage might have to be added."""
    naming = [
        str(source.path.relative_to(repo))
        for source in read(repo)
        if any(isinstance(node, ast.Constant) and node.value == STAGE for node in ast.walk(source.tree))
    ]
    return naming + [name for name in ("dvc.yaml", "params.yaml") if STAGE in (repo / name).read_text()]


def layers(repo: Path) -> int:
    """Layers of the longest import contract."""
    contracts = tomllib.loads((repo / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return max(len(contract.get("layers", ())) for contract in contracts)


def counts(repo: Path) -> dict[str, str]:
    """What the table of ``main`` shows."""
    sources, tests = read(repo), read(repo, ("tests",))
    every = [function for source in sources for function in functions(source.tree)]
    lengths = sorted((f.end_lineno or f.lineno) - f.lineno + 1 for f in every)
    helpers = sum(len(one_use_helpers(source)) for source in sources)
    bound = sum(1 for source in sources for _ in bindings(source.tree))
    empty = sum(len(vague(source)) for source in sources)
    names = ambiguous(sources)
    return {
        "files": str(len(sources)),
        "lines": f"{sum(source.lines for source in sources):,}",
        "lines of tests": f"{sum(source.lines for source in tests):,}",
        "modules directly in blurdm/": str(len(list((repo / "blurdm").glob("*.py")))),
        "import layers": str(layers(repo)),
        "functions": str(len(every)),
        "lines of a function, median / longest": f"{lengths[len(lengths) // 2]} / {lengths[-1]}",
        "one-use helpers": f"{helpers} ({100 * helpers / len(every):.1f} % of functions)",
        "vague bindings": f"{empty} ({100 * empty / bound:.2f} % of {bound:,})",
        "ambiguous class names": f"{len(names)} {', '.join(names)}".strip(),
        "files that name one stage": str(len(stage_files(repo))),
        "README, KB": f"{(repo / 'README.md').stat().st_size / 1024:.1f}",
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repo", type=Path, default=Path(__file__).resolve().parent.parent, help="a checkout")
    parser.add_argument("--list", action="store_true", help="also list helpers, vague bindings and files of a stage")
    options = parser.parse_args(arguments)
    for name, value in counts(options.repo).items():
        print(f"{name:40} {value}")
    if options.list:
        for source in read(options.repo):
            place = source.path.relative_to(options.repo)
            for helper in one_use_helpers(source):
                print(f"{place}: helper {helper}")
            for name, line in vague(source):
                print(f"{place}:{line}: vague {name}")
        print(*(f"{name}: names a stage" for name in stage_files(options.repo)), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
