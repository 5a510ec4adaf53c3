"""PyTorch's files of tensors (torch.save), read without calling anything that they name.

A file is a program for pickle's stack machine. This one knows containers, numbers, text and tensors; a few further
types, which training scripts store beside tensors, become ``None``, and any other is refused. Every tensor is a view of
bytes that the file holds, so memory stays within the file's size, whatever shapes it claims.
"""

import io
import pickletools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from blurdm.core.errors import InputError

MOST_BYTES = 4 << 30  # of a file
MOST_OPERATIONS = 5_000_000  # of a pickle; a second's worth is 1,000,000
MOST_DIMENSIONS = 8
LEGACY = 0x1950A86A20F9469CFC6C  # what torch.save wrote first, before version 1.6

STORAGES = {
    "Float": torch.float32,
    "Double": torch.float64,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
}
DTYPES = {f"torch.{name}Storage": dtype for name, dtype in STORAGES.items()}
TENSOR, TYPED = "torch._utils._rebuild_tensor_v2", "torch._tensor._rebuild_from_type_v2"
PARAMETERS = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")
IGNORED = (
    *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in ("set", "bytearray", "complex")),
    *("argparse.Namespace", "collections.Counter"),
    *("_codecs.encode", "torch.Size", "torch.device", "torch.serialization._get_layout", "torch.Tensor"),
    *(f"torch.{name}" for name in ("float32", "float64", "float16", "bfloat16", "int64", "int32", "uint8", "bool")),
    "torch.nn.parameter.Parameter",
)
VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": (), "EMPTY_SET": None}


class Name(NamedTuple):
    """A class or function that a file names; never looked up."""

    text: str


class Storage(NamedTuple):
    """Numbers that tensors are views of; None where they come later in the file."""

    values: Tensor | None


Load = Callable[[str, torch.dtype, int], Storage]
"""(key, dtype, number of values) -> the storage of that key."""


def read_tensors(source: Path | bytes, where: str) -> Any:
    """The content of a file that torch.save wrote, or of its bytes: containers, plain values and tensors on the CPU.

    InputError names what would have to be run to rebuild it, or says that it is damaged.
    """
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    if size > MOST_BYTES:
        raise InputError(f"{where}: larger than {MOST_BYTES >> 30} GB; should be a checkpoint")
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
            is_zip = file.read(4) == b"PK\x03\x04"
            file.seek(0)
            return _read_zip(file, size) if is_zip else _read_legacy(io.BytesIO(file.read()))
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    except Exception as error:  # of any kind: a damaged program may fail at any point of it
        raise InputError(f"{where}: not a checkpoint ({type(error).__name__}: {str(error)[:100]})") from None


def _read_zip(file: BinaryIO, size: int) -> Any:
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
        if not stored or sum(entry.file_size for entry in archive.infolist()) > size:
            raise InputError("holds compressed or overlapping parts; should be as torch.save wrote it")
        (program,) = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
        folder = program.removesuffix("data.pkl")
        if f"{folder}byteorder" in entries and archive.read(f"{folder}byteorder") != b"little":
            raise InputError("was written on a big-endian machine; save it again on this one")
        storages: dict[str, Storage] = {}

        def load(key: str, dtype: torch.dtype, number: int) -> Storage:
            if key not in storages:
                entry = entries[f"{folder}data/{key}"]
                with archive.open(entry) as part:
                    storages[key] = _storage(part, entry.file_size // dtype.itemsize, dtype)
            values = storages[key].values
            if values is None or values.dtype != dtype or len(values) < number:
                raise ValueError(f"storage {key} is smaller than stated, or of another type")
            return storages[key]

        return run(io.BytesIO(archive.read(program)), load)


def _read_legacy(file: BinaryIO) -> Any:
    """One pickle after another, then the storages; so the one with the tensors is read twice."""
    types: dict[str, tuple[torch.dtype, int]] = {}

    def note(key: str, dtype: torch.dtype, number: int) -> Storage:
        types[key] = dtype, number
        return Storage(None)

    if run(file, note) != LEGACY:
        raise InputError("not a checkpoint, or one that cannot be read without running its code")
    run(file, note), run(file, note)  # version and machine
    start = file.tell()
    run(file, note)
    storages: dict[str, Storage] = {}
    for key in run(file, note):
        dtype, number = types[key]
        if int.from_bytes(file.read(8), "little") < number:
            raise ValueError(f"storage {key} is smaller than stated")
        storages[key] = _storage(file, number, dtype)
    file.seek(start)
    return run(file, lambda key, dtype, number: storages[key])


def _storage(file: Any, number: int, dtype: torch.dtype) -> Storage:
    content = file.read(number * dtype.itemsize)
    if len(content) < number * dtype.itemsize:
        raise ValueError("ends within a storage")
    values = torch.empty(number, dtype=dtype)  # aligned, which the bytes need not be
    if number:
        values.view(torch.uint8).numpy()[:] = memoryview(content)
    return Storage(values)


def run(program: BinaryIO, load: Load) -> Any:
    """The value that a pickle makes, with storages from ``load``; stops behind it. Fails with any exception."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    value: Any
    for count, (operation, value, _) in enumerate(pickletools.genops(program)):
        name = operation.name
        if count > MOST_OPERATIONS:
            raise ValueError(f"more than {MOST_OPERATIONS} operations")
        if name in VALUES:
            stack.append(value)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in ("EMPTY_DICT", "EMPTY_LIST"):
            stack.append({} if name == "EMPTY_DICT" else [])
        elif name == "MARK":
            marks.append(len(stack))
        elif name in ("TUPLE", "LIST", "DICT"):
            items = since_mark()
            stack.append(items if name == "LIST" else tuple(items) if name == "TUPLE" else _set_items({}, items))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            length = int(name[-1])
            stack[-length:] = [tuple(stack[-length:])]
        elif name in ("APPEND", "SETITEM", "APPENDS", "SETITEMS", "ADDITEMS"):
            items = since_mark() if name.endswith("S") else [stack.pop() for _ in range(1 + (name == "SETITEM"))][::-1]
            _set_items(stack[-1], items)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if value is None else value] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[value])
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            stack.append(_name(value.split(" ", 1) if name == "GLOBAL" else [stack.pop(), stack.pop()][::-1]))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments = stack.pop()
            stack.append(_rebuild(stack.pop(), arguments))
        elif name == "BUILD":  # attributes, which no container of ours has
            stack.pop()
        elif name == "BINPERSID":
            stack.append(_stored(stack.pop(), load))
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise ValueError(f"{name} is no operation of a file of tensors")
    (result,) = stack
    return result


def _set_items(target: Any, items: list[Any]) -> Any:
    """``target`` with more items: of a dict keys and values in turn, of an ignored object none."""
    if type(target) is list:
        target.extend(items)
    elif type(target) is dict:
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | int | float | None):  # nor a tuple, whose depth may end the interpreter
                raise ValueError(f"a key is a {type(key).__name__}")
            target[key] = value
    elif target is not None:
        raise ValueError(f"items for a {type(target).__name__}")
    return target


def _name(parts: list[Any]) -> Name:
    text = ".".join(parts)
    known = text in (TENSOR, TYPED, *PARAMETERS, "collections.OrderedDict", *DTYPES, *IGNORED)
    if not known and not text.startswith("numpy."):
        raise InputError(f"holds {text}, which only running it would rebuild; refused")
    return Name(text)


def _rebuild(function: Any, arguments: Any) -> Any:
    if type(function) is not Name or type(arguments) is not tuple:
        raise ValueError(f"calls a {type(function).__name__}")
    if function.text == TENSOR:
        return _view(*arguments[:4])
    if function.text in PARAMETERS:
        return arguments[0]
    if function.text == TYPED:
        return _rebuild(arguments[0], arguments[2])
    if function.text == "collections.OrderedDict":
        if arguments:
            raise ValueError("an OrderedDict in the way of Python 2")
        return {}
    return None


def _stored(address: Any, load: Load) -> Storage:
    kind, type_, key, _, number, *view = address
    if kind != "storage" or type(type_) is not Name or type_.text not in DTYPES or any(view):
        raise ValueError("a storage of an unknown kind")
    if type(key) is not str or type(number) is not int or number < 0:
        raise ValueError("a storage without key and size")
    return load(key, DTYPES[type_.text], number)


def _view(storage: Any, offset: Any, size: Any, stride: Any) -> Tensor | None:
    """The tensor, which may show no value of the storage more than once."""
    if type(storage) is not Storage or type(size) is not tuple or type(stride) is not tuple:
        raise ValueError("a tensor without storage or shape")
    numbers = (offset, *size, *stride)
    if any(type(n) is not int or n < 0 for n in numbers) or not len(size) == len(stride) <= MOST_DIMENSIONS:
        raise ValueError("a tensor with a shape that there is not")
    if storage.values is None:
        return None
    count, last = 1, offset
    for length, step in zip(size, stride, strict=True):
        count, last = count * length, last + (length - 1) * step
    if count and (last >= len(storage.values) or count > len(storage.values)):
        raise ValueError(f"a tensor of shape {size} in {len(storage.values)} stored values")
    return storage.values.as_strided(size, stride, offset) if count else storage.values.new_empty(size)
