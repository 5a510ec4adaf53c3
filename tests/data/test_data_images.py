"""Images are read as 8-bit RGB or refused in one line that names the file; writing and conversion round-trip."""

import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from blurdm.core.errors import InputError
from blurdm.data.pairs import brightness, check_pair, noise_level, read_image, to_float, to_uint8, write_image

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)


def saved(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind)
    return buffer.getvalue()


def flipped(content: bytes, at: int) -> bytes:
    spoilt = bytearray(content)
    spoilt[at] ^= 0x55
    return bytes(spoilt)


PNG = saved(Image.fromarray(PIXELS))
GREY = Image.fromarray(PIXELS[..., 0])
BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "truncated png": (lambda: PNG[: len(PNG) // 2], "truncated or not an image"),
    "truncated jpeg": (lambda: saved(Image.fromarray(PIXELS), "JPEG")[:700], "truncated or not an image"),
    "flipped byte": (lambda: flipped(PNG, len(PNG) // 2), "truncated or not an image"),
    "header only": (lambda: PNG[:40], "truncated or not an image"),
    "empty": (lambda: b"", "truncated or not an image"),
    "text": (lambda: b"hello", "truncated or not an image"),
    "16-bit rgb": (lambda: cv2.imencode(".png", PIXELS.astype(np.uint16) * 257)[1].tobytes(), "more than 8 bits"),
    "16-bit grey": (lambda: cv2.imencode(".png", PIXELS[..., 0].astype(np.uint16))[1].tobytes(), "more than 8 bits"),
    "16-bit tiff": (lambda: cv2.imencode(".tiff", PIXELS.astype(np.uint16) * 257)[1].tobytes(), "more than 8 bits"),
    "grey": (lambda: saved(GREY), "grey; should be 8-bit RGB"),
    "rgba": (lambda: saved(Image.fromarray(PIXELS).convert("RGBA")), "has an alpha channel; should be plain"),
    "grey with alpha": (lambda: saved(GREY.convert("LA")), "has an alpha channel"),
    "palette": (lambda: saved(Image.fromarray(PIXELS).convert("P")), "has a palette; should be plain"),
    "cmyk": (lambda: saved(Image.fromarray(PIXELS).convert("CMYK"), "TIFF"), "colour mode CMYK"),
    "too small": (lambda: saved(Image.fromarray(PIXELS[:15])), "15x30 px"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_images_are_refused_in_one_line(tmp_path: Path, name: str) -> None:
    make, told = BAD[name]
    path = tmp_path / "picture.png"
    path.write_bytes(make())
    with pytest.raises(InputError) as error:
        read_image(path)
    assert str(error.value).startswith(f"{path}: ") and told in str(error.value) and "should be" in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a.png: no such file"):
        read_image(tmp_path / "a.png")
    with pytest.raises(InputError, match="cannot be read"):
        read_image(tmp_path)


def test_grey_is_replicated_on_request(tmp_path: Path) -> None:
    (tmp_path / "grey.png").write_bytes(saved(GREY))
    image = read_image(tmp_path / "grey.png", grey_ok=True)
    assert (image == PIXELS[..., :1]).all() and image.shape == PIXELS.shape


def test_orientation_is_applied_as_viewers_do(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.fromarray(PIXELS).save(tmp_path / "turned.png", exif=exif)
    assert (read_image(tmp_path / "turned.png") == np.rot90(PIXELS, -1)).all()


def test_round_trips(tmp_path: Path) -> None:
    write_image(tmp_path / "deep/a.png", PIXELS)
    write_image(tmp_path / "deep/a.png", PIXELS)
    assert (read_image(tmp_path / "deep/a.png") == PIXELS).all()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.png"]
    image = to_float(PIXELS)
    assert image.shape == (3, 40, 30) and image.dtype == np.float32 and image.flags.c_contiguous
    assert image.min() >= 0 and image.max() <= 1
    assert (to_uint8(image) == PIXELS).all() and (to_uint8(image.transpose(1, 2, 0)) == PIXELS).all()


def test_to_uint8_clips_and_rounds() -> None:
    levels = np.array([-0.5, 0.0, 0.49 / 255, 0.51 / 255, 254.51 / 255, 1.0, 1.5])
    image = np.broadcast_to(levels, (3, 16, 7))
    assert to_uint8(image)[0, :, 0].tolist() == [0, 0, 0, 1, 255, 255, 255]


def test_pair_of_two_sizes() -> None:
    with pytest.raises(InputError, match="b.png: 40x30 px, but its sharp image s.png has 40x29; should be equal"):
        check_pair(PIXELS, PIXELS[:, 1:], "b.png", "s.png")


@pytest.mark.parametrize("sigma", [0.0, 0.02, 0.05])
def test_noise_level_is_the_standard_deviation_of_noise_on_a_smooth_image(sigma: float) -> None:
    ramp = np.linspace(0.3, 0.6, 171)[None, :, None] * np.ones((133, 1, 3))
    noisy = ramp + sigma * np.random.default_rng(3).standard_normal(ramp.shape)
    assert noise_level(to_uint8(noisy)) == pytest.approx(sigma, rel=0.06, abs=0.004)
    assert brightness(to_uint8(noisy)) == pytest.approx(0.45, abs=0.002)
