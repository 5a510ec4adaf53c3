"""Places that are named once and looked up where a run computes, such as ``$TMPDIR``: a disk of the node."""

import os
import platform
import re
from argparse import ArgumentTypeError
from pathlib import Path

from blurdm.core.errors import InputError

VARIABLE = re.compile(r"\$(\w+|\{\w*\})")


def place(text: str) -> Path:
    """A folder on a command line; variables and ``~`` stay as they are, for the machine that will use it."""
    if not text.strip() or not text.isprintable():
        raise ArgumentTypeError(f"'{text}' should be a folder, such as /scratch/me or '$TMPDIR'")
    return Path(text) if text[0] in "$~" else Path(text).absolute()


def on_this_machine(folder: Path) -> Path:
    """``folder`` with its variables and ``~`` as on this machine; InputError for one that is not set here."""
    unset = [name for name in VARIABLE.findall(str(folder)) if not os.environ.get(name.strip("{}"))]
    if unset:
        raise InputError(f"cache {folder}: ${unset[0]} is not set on {platform.node()}; should name a folder there")
    return Path(os.path.expandvars(folder)).expanduser().absolute()
