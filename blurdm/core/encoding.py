"""Text is UTF-8, whatever the locale says: names of files, arguments, files, and the output of other programs."""

import os
import sys


def use_utf8() -> None:
    """Start this command again in Python's UTF-8 mode if the locale has another encoding, and with it all it starts.

    Nothing less changes how Python reads names of files, which else reach web pages and JSON files garbled.
    """
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        environment = os.environ | {"PYTHONUTF8": "1"}
        os.execve(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]], environment)
