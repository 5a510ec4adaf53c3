"""Data sets that DVC pins and that are not in place yet, as in the folder of an experiment."""

import subprocess
import sys
from pathlib import Path

from blurdm.core.config import Config
from blurdm.core.errors import InputError
from blurdm.core.progress import Notify


def provide_pinned(config: Config, notify: Notify) -> None:
    """Check out the data sets of ``config`` that are missing and pinned by a ``.dvc`` file beside them.

    InputError for one that DVC's cache lacks.
    """
    roots = [config.data.root, *([config.synthesis.photos] if config.synthesis else [])]
    for root in (Path(place) for place in [*roots, *([config.test.root] if config.test else [])]):
        pin = root.with_name(f"{root.name}.dvc")
        if root.exists() or not pin.is_file():
            continue
        notify(f"{root}: checked out as {pin} pins it")
        done = subprocess.run([sys.executable, "-m", "dvc", "checkout", "--quiet", str(pin)], capture_output=True)
        if done.returncode or not root.exists():
            raise InputError(f"{root}: no such data folder, nor in DVC's cache; get it with: dvc pull {pin}")
