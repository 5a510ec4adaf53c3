"""Restoring keeps the memory that it frees, for the next tile; a process that only imports the package does not."""

import subprocess
import sys
from pathlib import Path

from PIL import Image

# What stays of 200 MB that are allocated, written and freed, after a command.
CODE = """
import ctypes, sys
from blurdm.cli.main import main
if len(sys.argv) > 1:
    assert main(sys.argv[1:]) == 0
resident = lambda: int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes, libc.memset.argtypes = [ctypes.c_void_p], [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
size, before = 200_000_000, resident()
block = libc.malloc(size)
libc.memset(block, 1, size)
libc.free(block)
print("stays", resident() - before)
"""


def stays(*arguments: str | Path) -> float:
    done = subprocess.run([sys.executable, "-c", CODE, *arguments], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def test_deblur_keeps_freed_memory(tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    Image.new("RGB", (45, 37), "grey").save(photo)
    assert stays() < 20
    assert stays("deblur", photo, "--out", tmp_path / "out") > 100
