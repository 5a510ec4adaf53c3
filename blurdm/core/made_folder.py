"""A data folder that a command makes as a whole: it appears at once, and replaces only an earlier one of its kind."""

import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from blurdm.core.errors import InputError
from blurdm.core.store import write_bytes


@dataclass(frozen=True)
class MadeFolder:
    """What is made from ``source`` (photos, ...): the file ``settings`` says with which settings.

    The regular expression ``files`` matches the relative posix paths of all other files of it.
    """

    source: str
    settings: str
    files: str

    def make(self, target: Path, settings: str, write: Callable[[Path], None]) -> bool:
        """Have ``write`` fill a folder that then becomes ``target``, by rename; False if it is there already.

        A killed run leaves no part of it. InputError for a folder of something else, or with a file of somebody else.
        """
        if target.exists() and not (target.is_dir() and not any(target.iterdir())):
            if not (target / self.settings).is_file():
                raise InputError(
                    f"{target}: exists and was not made from {self.source} (no {self.settings});"
                    " should be a new or empty folder"
                )
            if (target / self.settings).read_bytes() == settings.encode():
                return False
            self._require_own(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        try:
            fresh.chmod(0o755)  # mkdtemp makes folders that only the owner can read
            write(fresh)
            write_bytes(fresh / self.settings, settings.encode())
            if target.is_dir():  # made with other settings, or empty
                shutil.rmtree(target)
            os.replace(fresh, target)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        return True

    def _require_own(self, folder: Path) -> None:
        """InputError if ``folder`` holds a file that is no part of it."""
        own = re.compile(f"{re.escape(self.settings)}|{self.files}")
        for path in folder.rglob("*"):
            if not path.is_dir() and not own.fullmatch(path.relative_to(folder).as_posix()):
                raise InputError(
                    f"{path}: was not made from {self.source}; move it away, since {folder} is to be made anew"
                )
