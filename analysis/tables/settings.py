"""Settings of a chain that differ from the published recipe of its backbone."""

from pathlib import Path
from typing import Any

from analysis.sources import Sources
from analysis.tables.table import Cell, Column, Table, TableRow, finish
from blurdm.core.arms import STAGES, TRAINED
from blurdm.core.command import PRESETS
from blurdm.core.config import Config
from blurdm.core.config_io import load_config
from blurdm.core.errors import InputError

PUBLISHED = "gopro_{}.yaml"  # the recipe of BlurDM with this backbone
PLACES = {"direct": "direct control", "pretrain": "stage 1", "diffusion": "stage 2", "joint": "stage 3"}
OF_PHASES = ("iterations", "lr")  # lists are of phases, one after the other
NOT_SETTINGS = ("root", "layout", "val_scenes", "val_images", "validate_every", "init")  # of the data, or of no result


def settings_table(name: str, title: str, sources: Sources) -> Table:
    """A row per setting and the sections that share it, ours and published; InputError without published recipe."""
    path = published_recipe(sources)
    if path is None:
        raise InputError(f"{PRESETS}: no published recipe of BlurDM with this backbone")
    keys = tuple(sorted(key for key in map(str, sources.chain[0].key.unique()) if sources.model(key)))
    differing: dict[tuple[str, str, str], list[str]] = {}
    for section, (own, published) in _both(sources.settings, load_config(path)).items():
        for key in (key for key in own if key not in NOT_SETTINGS and own[key] != published.get(key)):
            values = in_words(key, own[key]), in_words(key, published.get(key))
            differing.setdefault((key, *values), []).append(section)
    rows = []
    for (key, own_value, published_value), where in differing.items():
        cells = {"own": Cell(own_value, runs=keys), "published": Cell(published_value)}
        label = f"{key.replace('_', ' ')} ({', '.join(PLACES.get(section, section) for section in where)})"
        rows.append(TableRow(f"{'_'.join(where)}.{key}", label, cells, ranked=False))
    columns = (Column("own", "Here", "label"), Column("published", "Published", "label"))
    note = (
        "Names are the keys of the config; in brackets, what the setting is of. Published: the file"
        f" {path}, which says of each value where it is from, and what is an addition to the paper."
    )
    return finish(Table(name, title, note, "none", columns, tuple(rows), "Setting"))


def in_words(key: str, value: Any) -> str:
    """A value of a config as text: ``yes``, ``none``, ``860, then 220 steps``."""
    if isinstance(value, list):
        between = ", then " if key in OF_PHASES else ", "
        return between.join(in_words("", part) for part in value) + (" steps" if key == "iterations" else "")
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return f"{value} steps" if key == "iterations" else str(value)


def published_recipe(sources: Sources) -> Path | None:
    """The config of BlurDM's published recipe with the chain's backbone, if there is one."""
    name = sources.settings.get("backbone", {}).get("name")
    path = PRESETS / PUBLISHED.format(name)
    return path if path.is_file() else None


def _both(sections: dict[str, dict[str, Any]], published: Config) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Ours and the published settings of every section that a trained stage reads, as JSON has them."""
    tree = published.model_dump(mode="json")
    read = dict.fromkeys(name for stage in TRAINED for name in STAGES[stage].reads)
    shared = (name for name in read if name in sections and isinstance(tree.get(name), dict))
    return {name: (sections[name], tree[name]) for name in shared}
