"""The data that the chain and every sweep were made from: is it still what lies in its folder?"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from analysis.load import evaluate_runs
from analysis.sources import SHORT, Sources
from blurdm.core.config_io import load_config
from blurdm.core.errors import InputError
from blurdm.core.ledger import read_ledger
from blurdm.core.store import read_json
from blurdm.data.splits import folder_digest

PRESETS = Path("experiments") / "presets"


def data_problems(sources: Sources, config: Path) -> tuple[list[str], list[str]]:
    """A line per data set that has changed since it was prepared, and one per data set that could not be looked at."""
    changed, unchecked, told = [], [], set()
    for prepared, source, place in _prepared(sources, config):
        try:
            root = place()
            if (prepared, root) in told:
                continue
            told.add((prepared, root))
            if not root.is_dir():
                raise InputError(f"no data folder {root}")
            now = folder_digest(root, sources.runs / ".digests.json")
            then = str(read_json(prepared / "config.json").get("inputs", {}).get("raw"))
        except InputError as error:
            unchecked.append(f"the data of {source}: {error}")
            continue
        if now != then:
            changed.append(
                f"the data of {source} changed: {root} is {now[:SHORT]}, its runs were made from {then[:SHORT]}"
            )
    return changed, unchecked


def _prepared(sources: Sources, config: Path) -> Iterator[tuple[Path, str, Callable[[], Path]]]:
    """(folder of a prepare run, whose data that is, where the data lies, which may not be found out: InputError)."""
    if sources.pointer.is_file():
        for folder in {_prepare(folder) for _, folder in evaluate_runs(sources.pointer)} - {None}:
            yield folder, "the chain", partial(_configured, config)  # type: ignore[misc]
    for name, path in sources.ledgers.items():
        ledger = read_ledger(path)
        preset = config if ledger.preset == "demo" else PRESETS / f"{ledger.preset}.yaml"
        preset = Path(ledger.preset) if ledger.preset.endswith(".yaml") else preset
        folders = {_prepare(sources.runs / r.stage / r.key) for row in ledger.rows for r in row.runs} - {None}
        for folder in sorted(folders):  # type: ignore[type-var]
            told = ledger.data.get(folder.name)  # type: ignore[union-attr]
            place = partial(Path, told) if told else partial(_configured, preset, ledger.overrides)
            yield folder, f"sweep {name}", place  # type: ignore[misc]


def _configured(config: Path, overrides: tuple[str, ...] = ()) -> Path:
    """Where a config says that its data lies."""
    return Path(load_config(config, overrides).data.root)


def _prepare(folder: Path) -> Path | None:
    """The prepare run that an evaluate run used, if both are there."""
    config = folder / "config.json"
    key = read_json(config).get("inputs", {}).get("prepare") if config.is_file() else None
    found = folder.parent.parent / "prepare" / str(key)
    return found if (found / "config.json").is_file() else None
