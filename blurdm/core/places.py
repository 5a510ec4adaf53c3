"""Places that are named once and looked up where a run computes, such as ``$TMPDIR``: a disk of the node."""

import os
import platform
import re
from argparse import ArgumentTypeError
from pathlib import Path, PosixPath

from blurdm.core.errors import InputError

VARIABLE = re.compile(r"\$(\w+|\{\w*\})")


class NodePath(PosixPath):
    """A folder with variables, or ``~``, of the machine that will use it. In other paths these are letters."""


def place(text: str) -> Path:
    """A folder on a command line; one with variables stays as it is, for the machine that will use it."""
    if not text.strip() or not text.isprintable():
        raise ArgumentTypeError(f"'{text}' should be a folder, such as /scratch/me or '$TMPDIR'")
    return NodePath(text) if "$" in text or text.startswith("~") else Path(text).absolute()


def on_this_machine(folder: Path) -> Path:
    """``folder`` as it is called on this machine; InputError for a variable that is not set here."""
    if not isinstance(folder, NodePath):
        return folder
    unset = [name for name in VARIABLE.findall(str(folder)) if not os.environ.get(name.strip("{}"))]
    if unset:
        raise InputError(f"cache {folder}: ${unset[0]} is not set on {platform.node()}; should name a folder there")
    return Path(os.path.expandvars(folder)).expanduser().absolute()
