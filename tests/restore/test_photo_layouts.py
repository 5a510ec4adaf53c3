"""TIFFs of every layout come out as an independent reader sees them, or are refused; metadata fits the pixels."""

import io
import struct
import zlib
from itertools import product
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from blurdm.core.errors import InputError
from blurdm.data.pairs import decode_image
from blurdm.restore.encoding import encode_photo
from blurdm.restore.metadata import png_chunk
from blurdm.restore.photo import Photo, decode_photo
from tests.support.photos import encoded

HEIGHT, WIDTH = 37, 31


def written(data: np.ndarray, **options: Any) -> bytes:
    """A TIFF by tifffile, whose own options choose its layout."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(
        buffer, byteorder=options.pop("byteorder", "<"), bigtiff=options.pop("bigtiff", False)
    ) as file:
        file.write(data, **options)
    return buffer.getvalue()


def noise(dtype: str, *channels: int, planes: bool = False) -> np.ndarray:
    shape = (*channels, HEIGHT, WIDTH) if planes else (HEIGHT, WIDTH, *channels)
    bits = np.random.default_rng(0).integers(0, 256, (*shape, np.dtype(dtype).itemsize), dtype=np.uint8)
    return bits.view(dtype)[..., 0]


def expected(content: bytes) -> np.ndarray:
    """Colour and alpha, as tifffile and the specification have it."""
    page: Any = tifffile.TiffFile(io.BytesIO(content)).pages[0]
    values = page.asarray()
    values = np.moveaxis(values, 0, -1) if page.planarconfig == 2 and values.ndim == 3 else values
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        values = ~values
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
        values = np.moveaxis(page.colormap[:, values] >> 8, 0, -1).astype(np.uint8)
    return values


def pixels_of(photo: Photo) -> np.ndarray:
    return photo.pixels if photo.alpha is None else np.dstack([photo.pixels, photo.alpha])


STORAGE: list[dict[str, Any]] = [
    dict(zip(("byteorder", "compression", "predictor", "tile", "bigtiff"), values, strict=True))
    for values in (
        *product("<>", (None, "zlib"), (None,), (None, (16, 16)), (False,)),
        *product("<>", ("zlib",), (True,), (None, (32, 16)), (False,)),
        *product("<>", (None, "zlib"), (None,), (None,), (True,)),
    )
]
# data and options; whether it may be refused in these storages
LAYOUTS: dict[str, tuple[np.ndarray, dict[str, Any], bool]] = {
    "grey": (noise("u1"), {"photometric": "minisblack"}, False),
    "grey 16": (noise("u2"), {"photometric": "minisblack"}, False),
    "inverted": (noise("u1"), {"photometric": "miniswhite"}, False),
    "inverted 16": (noise("u2"), {"photometric": "miniswhite"}, True),
    "colour": (noise("u1", 3), {"photometric": "rgb"}, False),
    "colour 16": (noise("u2", 3), {"photometric": "rgb"}, False),
    "alpha": (noise("u1", 4), {"photometric": "rgb", "extrasamples": ["unassalpha"]}, False),
    "alpha 16": (noise("u2", 4), {"photometric": "rgb", "extrasamples": ["unassalpha"]}, False),
    "grey and alpha": (noise("u1", 2), {"photometric": "minisblack", "extrasamples": ["unassalpha"]}, False),
    "grey and alpha 16": (noise("u2", 2), {"photometric": "minisblack", "extrasamples": ["unassalpha"]}, True),
    "planes": (noise("u1", 3, planes=True), {"photometric": "rgb", "planarconfig": "separate"}, True),
    "planes 16": (noise("u2", 3, planes=True), {"photometric": "rgb", "planarconfig": "separate"}, True),
    "planes alpha": (
        noise("u1", 4, planes=True),
        {"photometric": "rgb", "planarconfig": "separate", "extrasamples": ["unassalpha"]},
        True,
    ),
    "palette": (
        noise("u1"),
        {"photometric": "palette", "colormap": np.random.default_rng(1).integers(0, 65536, (3, 256), dtype="u2")},
        False,
    ),
}
REFUSED: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
    "signed": (noise("i1"), {"photometric": "minisblack"}),
    "signed 16": (noise("i2"), {"photometric": "minisblack"}),
    "32 bits": (noise("u4"), {"photometric": "minisblack"}),
    "float": (noise("f4"), {"photometric": "minisblack"}),
    "half": (noise("f2"), {"photometric": "minisblack"}),
    "double colour": (noise("f8", 3), {"photometric": "rgb"}),
    "bilevel": (noise("u1") > 127, {"photometric": "minisblack"}),
    "premultiplied 16": (noise("u2", 4), {"photometric": "rgb", "extrasamples": ["assocalpha"]}),
    "further channel": (noise("u1", 4), {"photometric": "rgb", "extrasamples": ["unspecified"]}),
    "further channel 16": (noise("u2", 4), {"photometric": "rgb", "extrasamples": ["unspecified"]}),
    "alpha and more": (noise("u1", 5), {"photometric": "rgb", "extrasamples": ["unassalpha", "unspecified"]}),
    "CMYK": (noise("u1", 4), {"photometric": "separated"}),
    "CMYK 16": (noise("u2", 4), {"photometric": "separated"}),
    "LAB": (noise("u1", 3), {"photometric": "cielab"}),
    "LAB 16": (noise("u2", 3), {"photometric": "cielab"}),
    "YCbCr": (noise("u1", 3), {"photometric": "ycbcr"}),
    "palette of bytes": (
        noise("u1"),
        {"photometric": "palette", "colormap": np.random.default_rng(1).integers(0, 256, (3, 256), dtype="u2")},
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_tiff_comes_out_as_an_independent_reader_sees_it(layout: str) -> None:
    data, options, refusable = LAYOUTS[layout]
    right = 0
    for storage in STORAGE:
        content = written(data, **options, **storage)
        try:
            photo = decode_photo(content, "photo")
        except InputError:
            assert refusable or (storage["bigtiff"] and storage["byteorder"] == ">"), storage  # Pillow knows none such
            continue
        right += 1
        values = expected(content)
        assert photo.pixels.dtype == values.dtype and np.array_equal(pixels_of(photo), values), storage
        assert np.array_equal(expected(encode_photo(photo, photo.pixels)), values), storage
    assert right >= (0 if "16" in layout and refusable else len(STORAGE) // 2)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("layout", REFUSED)
def test_other_layouts_are_refused_in_one_line(layout: str, compression: str | None) -> None:
    data, options = REFUSED[layout]
    with pytest.raises(InputError, match=r"^photo: [^\n]+$"):
        decode_photo(written(data, **options, compression=None if layout == "bilevel" else compression), "photo")


@pytest.mark.parametrize("turn", range(1, 9))
def test_sixteen_bits_are_turned_upright(turn: int) -> None:
    data = noise("u2", 3)
    photo = decode_photo(written(data, photometric="rgb", extratags=[(274, 3, 1, turn, True)]), "photo")
    with Image.open(io.BytesIO(encoded((data >> 8).astype(np.uint8), "TIFF", tiffinfo={274: turn}))) as image:
        high = np.asarray(image)
    assert photo.pixels.dtype == np.uint16 and np.array_equal(photo.pixels >> 8, high)
    assert sorted(photo.pixels.ravel()) == sorted(data.ravel())


@pytest.mark.parametrize("layout", ["planes 16", "inverted 16", "colour 16"])
def test_no_such_tiff_becomes_data(layout: str) -> None:
    data, options, _ = LAYOUTS[layout]
    with pytest.raises(InputError, match=r"photo\.tif: .*16 bits|more than 8 bits"):
        decode_image(written(data, **options), "photo.tif", grey_ok=True)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_an_interlaced_png_of_sixteen_bits(channels: int) -> None:
    data = noise("u2", channels)
    rows, header = [], struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, {1: 0, 3: 2, 4: 6}[channels], 0, 0, 1)
    for top, left, down, right in (
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    ):
        rows += [b"\0" + row.astype(">u2").tobytes() for row in data[top::down, left::right]]
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b"".join(rows))) + png_chunk(b"IEND", b"")
    content = b"\x89PNG\r\n\x1a\n" + chunks
    read = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert read is not None
    read = read.reshape(data.shape)
    assert np.array_equal(
        read[..., ::-1] if channels == 3 else read[..., [2, 1, 0, 3]] if channels == 4 else read, data
    )
    assert np.array_equal(pixels_of(decode_photo(content, "photo")).reshape(data.shape), data)
