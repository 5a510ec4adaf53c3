"""A local MLflow database: opened under any name of its folder, with its artifacts beside it wherever it is moved."""

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import chdir, closing, contextmanager
from pathlib import Path
from urllib.parse import unquote

PREFIX = "sqlite:///"
ARTIFACTS = "mlartifacts"
SAFE = re.compile(r"[\w./ +-]+")  # what MLflow and SQLAlchemy read as it stands
PLACE = re.compile(r"(?:file://)?(?:/.*)?/(mlartifacts|mlruns)/(.+)")
COLUMNS = (  # where MLflow writes down, as a whole path, where artifacts are
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def database_of(uri: str, repo: Path) -> Path | None:
    """The file of a local database, which a relative ``uri`` names from ``repo``; None for a server."""
    return repo.absolute() / uri.removeprefix(PREFIX) if uri.startswith(PREFIX) and "?" not in uri else None


@contextmanager
def safe_uri(database: Path) -> Iterator[str]:
    """An address of ``database`` for MLflow, which would misread some characters in the name of its folder."""
    if SAFE.fullmatch(str(database)):
        yield f"{PREFIX}{database}"
        return
    folder = os.open(database.parent, os.O_RDONLY)
    try:
        with chdir("/"):  # for MLflow puts the name of the current folder into an SQL statement as it stands
            yield f"{PREFIX}/proc/self/fd/{folder}/{database.name}"
    finally:
        os.close(folder)


def relocate(database: Path) -> None:
    """Point ``database`` at the artifacts beside it, if it says where they were before it was moved or copied."""
    with closing(sqlite3.connect(database)) as connection, connection:
        for table, column in COLUMNS:
            for number, place in connection.execute(f"SELECT rowid, {column} FROM {table}").fetchall():
                beside = _beside(place or "", database.parent)
                if beside and beside != place and (table == "experiments" or _path(beside).exists()):
                    connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (beside, number))


def _beside(place: str, folder: Path) -> str | None:
    """``place`` with what is above its folder of artifacts replaced by ``folder``; None if it is no local place."""
    match = PLACE.fullmatch(place)
    above = folder.as_uri() if place.startswith("file:") else str(folder)
    return f"{above}/{match[1]}/{match[2]}" if match else None


def _path(place: str) -> Path:
    return Path(unquote(place.removeprefix("file://")) if place.startswith("file:") else place)
