"""A photo file comes back as a file of the same kind, upright, with the same depth and all that it said."""

import io
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from blurdm.core.errors import InputError
from blurdm.restore.encoding import encode_photo
from blurdm.restore.photo import decode_photo, read_photo
from tests.support.photos import PROFILE, TAKEN, described, encoded, picture

LOSS = {"JPEG": 12, "HEIF": 16, "PNG": 0, "TIFF": 0, "WEBP": 0}


@pytest.mark.parametrize("format", LOSS)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_what_a_file_says_is_kept_and_its_picture_upright(format: str, channels: int) -> None:
    if format == "JPEG" and channels == 4:
        channels = 3
    content = described(picture(channels=channels), format)
    photo = decode_photo(content, "photo")
    with Image.open(io.BytesIO(content)) as original:
        expected = np.asarray(ImageOps.exif_transpose(original))
    colour = photo.pixels if photo.alpha is None else np.dstack([photo.pixels, photo.alpha])
    assert colour.shape[:2] == (37, 31) and np.array_equal(colour, expected)
    written = encode_photo(photo, photo.pixels)
    again = decode_photo(written, "written")
    assert again.pixels.shape == photo.pixels.shape and (again.alpha is None) == (photo.alpha is None)
    assert np.abs(again.pixels.astype(int) - photo.pixels).max() <= LOSS[format]
    with Image.open(io.BytesIO(written)) as image:
        exif = image.getexif()
        assert image.format == format and exif.get(0x0112, 1) == 1 and exif[0x010F] == "Maker"
        assert exif.get_ifd(0x8769)[0x9003] == TAKEN and image.info["icc_profile"] == PROFILE
        if format != "PNG":
            assert b"bridge" in image.info["xmp"] and b'Orientation="6"' not in image.info["xmp"]
        if format == "TIFF":
            assert image.tag_v2[65000] == b"private"  # type: ignore[attr-defined]


@pytest.mark.parametrize("turn", range(1, 9))
def test_every_orientation(turn: int) -> None:
    content = described(picture(), "PNG", turn)
    with Image.open(io.BytesIO(content)) as original:
        expected = np.asarray(ImageOps.exif_transpose(original))
    assert np.array_equal(decode_photo(content, "photo").pixels, expected)


@pytest.mark.parametrize("ending", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_are_read_and_written_exactly(ending: str, channels: int) -> None:
    stored = np.random.default_rng(0).integers(0, 65536, (31, 37, channels), dtype=np.uint16)
    photo = decode_photo(cv2.imencode(ending, stored)[1].tobytes(), "photo")
    assert photo.pixels.dtype == np.uint16 and (photo.alpha is not None) == (channels == 4)
    expected = stored[..., 0] if channels == 1 else stored[..., 2::-1]
    assert np.array_equal(photo.pixels, expected)
    read = cv2.imdecode(np.frombuffer(encode_photo(photo, photo.pixels), np.uint8), cv2.IMREAD_UNCHANGED)
    assert read is not None and np.array_equal(read.reshape(stored.shape), stored)


def test_a_big_endian_tiff_and_many_strips() -> None:
    pixels = np.random.default_rng(1).integers(0, 65536, (600, 41), dtype=np.uint16)
    photo = decode_photo(encoded(pixels, "TIFF", big_endian=True), "photo")
    assert np.array_equal(photo.pixels, pixels)
    assert np.array_equal(decode_photo(encode_photo(photo, photo.pixels), "again").pixels, pixels)


def test_a_palette_becomes_colours_and_a_transparent_colour_alpha() -> None:
    buffer = io.BytesIO()
    Image.fromarray(picture()).quantize(16).save(buffer, "PNG", transparency=3)
    photo = decode_photo(buffer.getvalue(), "photo")
    assert photo.pixels.shape == (31, 37, 3) and photo.alpha is not None and set(np.unique(photo.alpha)) <= {0, 255}


def frames() -> bytes:
    buffer = io.BytesIO()
    first, second = (Image.fromarray(picture(seed=seed)) for seed in (0, 1))
    first.save(buffer, "WEBP", save_all=True, append_images=[second], duration=100)
    return buffer.getvalue()


def converted(mode: str, format: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture()).convert(mode).save(buffer, format)
    return buffer.getvalue()


REFUSED = {
    "a text": (b"not a photo" * 99, "damaged or not a photo (not a known format)"),
    "truncated": (encoded(picture(90, 100), "JPEG")[:900], "damaged or not a photo"),
    "CMYK": (converted("CMYK", "JPEG"), "colour mode CMYK; should be RGB, grey or a palette"),
    "black and white": (converted("1", "PNG"), "colour mode 1; should be"),
    "several": (frames(), "holds several images"),
    "small": (encoded(picture(15, 40), "PNG"), "40x15 px is too small"),
    "many scans": (encoded(picture(), "JPEG") + b"\xff\xda" * 65, "more than 64 scans"),
    "GIF": (converted("P", "GIF"), "not a known format"),
    "empty": (b"", "not a known format"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_photo_is_told_in_one_line(name: str, tmp_path: Path) -> None:
    content, told = REFUSED[name]
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(InputError) as error:
        read_photo(tmp_path / "a.jpg")
    assert str(error.value).startswith(f"{tmp_path}/a.jpg: ") and told in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    for name, told in (("pipe.jpg", "not a file"), ("loop.jpg", "cannot be read"), ("none.jpg", "no such photo")):
        with pytest.raises(InputError, match=told):
            read_photo(tmp_path / name)


def test_a_photo_beyond_the_budget_is_refused_before_it_is_decoded() -> None:
    content = encoded(np.zeros((6000, 6000), np.uint8), "PNG")
    with pytest.raises(InputError, match="6000x6000 px takes .* MB beside the model, more than the memory budget"):
        decode_photo(content, "photo", most_bytes=100 << 20)
