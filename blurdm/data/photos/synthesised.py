"""Pairs of a config with ``synthesis``: made where there are none, or copied from those that DVC shares."""

import json
import os
import shutil
import tempfile
from pathlib import Path

from blurdm.core.config import Config, Synthesis
from blurdm.core.errors import InputError
from blurdm.core.key import excluded_from_key, identity
from blurdm.core.progress import Notify
from blurdm.core.store import write_bytes

SHARED = "pairs"  # folder beside the chain's pointers
SETTINGS = "synthesis.json"  # as blurdm.data.blur.formation has it, and what is no setting
PLACES = ("photos", "pairs")


def provide_pairs(config: Config, chain: Path, notify: Notify) -> None:
    """Make the pairs of ``config`` if it has a ``synthesis`` section and none; other data sets are the user's.

    Pairs of these settings that DVC has in ``chain`` are copied, since another processor may round a pixel otherwise.
    """
    synthesis, root = config.synthesis, Path(config.data.root)
    if synthesis is None:
        return
    if root.exists():
        _require_same(synthesis, root)
        return
    from blurdm.data.blur.formation import make_pairs, settings_of  # OpenCV

    if _settings(chain / SHARED).items() >= settings_of(synthesis).items():
        _copy(chain / SHARED, root)
        notify(f"{root}: pairs as DVC shares them")
        return
    if not Path(synthesis.photos).exists():
        raise InputError(
            f"{synthesis.photos}: no such folder of photos; fetch the demo's with `blurdm data photos`,"
            " those of data/evidence and data/general with `blurdm data photos --set evidence` and `--set general`"
        )
    notify(f"making pairs in {root} from {synthesis.photos}")
    make_pairs(synthesis, root, lambda done, total: None)


def _require_same(synthesis: Synthesis, root: Path) -> None:
    """InputError if the pairs in ``root`` were made with other settings."""
    usual = excluded_from_key(Synthesis)
    stated, wanted = (usual | settings for settings in (_settings(root), identity(synthesis)))
    other = [key for key in sorted(wanted.keys() & stated.keys() - set(PLACES)) if stated[key] != wanted[key]]
    if other:
        raise InputError(
            f"{root}: its pairs have {other[0]} {stated[other[0]]}, not {wanted[other[0]]}; make them anew with"
            " `blurdm data pairs`, or name another folder (synthesis.pairs)"
        )


def share_pairs(config: Config, target: Path) -> None:
    """Copy the pairs of ``config`` to ``target``, for DVC; of a data set that comes with its own, note that alone.

    InputError unless ``target`` is new, empty, or an earlier copy.
    """
    is_copy = (target / SETTINGS).is_file() and target.resolve() != Path(config.data.root).resolve()
    if target.exists() and not is_copy and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target}: holds something else; should be a new or empty folder, or an earlier export")
    shutil.rmtree(target, ignore_errors=True)
    if config.synthesis is None:
        write_bytes(target / SETTINGS, b"null\n")
    else:
        _copy(Path(config.data.root), target)


def _settings(folder: Path) -> dict[str, object]:
    path = folder / SETTINGS
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    return settings or {}


def _copy(source: Path, target: Path) -> None:
    """Copy a folder; it appears at once, by rename."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as fresh:
        shutil.copytree(source, Path(fresh, "pairs"), copy_function=shutil.copyfile)
        os.replace(Path(fresh, "pairs"), target)
