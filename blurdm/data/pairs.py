"""Reading and writing 8-bit RGB images, and their conversion to and from float in [0, 1]."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile, ImageOps

from blurdm.core.errors import InputError
from blurdm.core.store import write_bytes

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})
MIN_SIZE = 16  # px: what every backbone accepts


def read_image(path: Path | str, grey_ok: bool = False) -> np.ndarray:
    """The uint8 RGB image (H, W, 3) at ``path``; InputError for anything else, and (unless ``grey_ok``) for grey."""
    return decode_image(read_bytes(path), path, grey_ok)


def read_bytes(path: Path | str) -> bytes:
    """The content of a file; InputError where it is missing or cannot be read."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); should be a readable file") from None


def decode_image(data: bytes, path: Path | str, grey_ok: bool = False) -> np.ndarray:
    """As ``read_image``, from the bytes of the file; ``path`` is only named in errors."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            _require_rgb8(image, path, grey_ok)
            image.load()
            pixels = np.array(ImageOps.exif_transpose(image).convert("RGB"))  # as every viewer shows it
    except InputError:
        raise
    # Pillow reports a damaged file by any of these, depending on where the damage is.
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: truncated or not an image ({reason}); should be an 8-bit RGB image") from None
    height, width = pixels.shape[:2]
    if min(height, width) < MIN_SIZE:
        raise InputError(f"{path}: {height}x{width} px (height x width) is too small; should be at least 16x16 px")
    return pixels


def write_image(path: Path | str, pixels: np.ndarray) -> None:
    """Write uint8 (H, W, 3) as PNG, by rename, so that no half-written image is ever seen; makes the folder."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"an image to write is uint8 (H, W, 3), not {pixels.dtype} {pixels.shape}")
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=3)
    write_bytes(Path(path), buffer.getvalue())


def to_float(pixels: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) as contiguous float32 (3, H, W) in [0, 1]."""
    return np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32) / np.float32(255)


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Float (3, H, W) or (H, W, 3) in [0, 1] as uint8 (H, W, 3), clipped and rounded to the nearest level."""
    if image.ndim != 3 or 3 not in (image.shape[0], image.shape[2]):
        raise ValueError(f"an image is (3, H, W) or (H, W, 3), not {image.shape}")
    pixels = image if image.shape[2] == 3 else image.transpose(1, 2, 0)
    return np.ascontiguousarray(np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8))


def check_pair(blur: np.ndarray, sharp: np.ndarray, blur_name: Path | str, sharp_name: Path | str) -> None:
    """InputError unless the two images of a pair have the same size."""
    if blur.shape != sharp.shape:
        sizes = [f"{a.shape[0]}x{a.shape[1]}" for a in (blur, sharp)]
        raise InputError(
            f"{blur_name}: {sizes[0]} px, but its sharp image {sharp_name} has {sizes[1]}; should be equal"
        )


def check_crop(pair: Mapping[str, Any], side: int, margin: int, key: str = "data.crop") -> None:
    """InputError if a ``pair`` of an index is too small for a crop of ``side`` px with ``margin`` px around it.

    ``key`` of the config states the crop.
    """
    least = side + 2 * margin
    if min(pair["height"], pair["width"]) < least:
        around = f" with {margin} px around it for the blur" if margin else ""
        raise InputError(
            f"{pair['blur']}: {pair['height']}x{pair['width']} px is smaller than {key} = {side}{around};"
            f" should be at least {least}"
        )


def require_plain_tiff(image: ImageFile.ImageFile) -> None:
    """InputError for layouts of a TIFF of which Pillow makes another picture without a word."""
    tags: Any = getattr(image, "tag_v2", {})

    def numbers(tag: int) -> tuple[int, ...]:
        values = tags.get(tag, ())
        return tuple(v if isinstance(v, int) else -1 for v in (values if isinstance(values, tuple) else (values,)))

    bits, extra, colours = numbers(258), numbers(338), numbers(320)
    sixteen = max(bits, default=1) > 8
    for wrong, reason in (
        (set(bits) - {1, 2, 4, 8, 16}, f"{max(bits, default=0)} bits per sample"),
        (sixteen and tags.get(284) == 2, "16 bits in separate planes"),
        (sixteen and (tags.get(266) == 2 or 1 in extra), "16 bits with alpha multiplied in, or bits in reverse order"),
        (2 in numbers(339), "values with a sign"),
        (tags.get(262) == 6 and tags.get(259) != 7, "YCbCr colours that are not compressed as JPEG"),
        (set(extra) - {1, 2} or len(extra) > 1, "channels beside colour and alpha"),
        (colours and 0 < max(colours) < 256, "a palette of 8 bits"),
    ):
        if wrong:
            raise InputError(
                f"a TIFF with {reason}; should have 8 or 16 bits of grey or RGB, interleaved (save it anew)"
            )


def _require_rgb8(image: ImageFile.ImageFile, path: Path | str, grey_ok: bool) -> None:
    mode = image.mode
    try:
        require_plain_tiff(image)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    # Pillow silently halves the depth of 16-bit RGB files: only the decoder's raw mode shows it.
    if mode.startswith(("I", "F")) or any(";16" in str(tile) for tile in image.tile):
        raise InputError(
            f"{path}: more than 8 bits per channel; should be 8-bit RGB (convert it with your own tone curve)"
        )
    if mode in ("RGBA", "LA", "PA", "La", "RGBa", "P") or "transparency" in image.info:
        kind = "a palette" if mode in ("P", "PA") else "an alpha channel"
        raise InputError(
            f"{path}: has {kind}; should be plain 8-bit RGB (flatten it first, e.g. magick IN -alpha off PNG24:OUT)"
        )
    if mode == "L" and not grey_ok:
        raise InputError(f"{path}: grey; should be 8-bit RGB (replicate the channel to all three if grey is meant)")
    if mode not in ("RGB", "L"):
        raise InputError(f"{path}: colour mode {mode}; should be 8-bit RGB")


def brightness(pixels: np.ndarray) -> float:
    """The mean over pixels and channels of uint8 (H, W, 3), in [0, 1]."""
    return float(pixels.mean() / 255)


def noise_level(pixels: np.ndarray) -> float:
    """The standard deviation of the noise of uint8 (H, W, 3), in [0, 1], as diagonal details show it.

    Median absolute detail of 2 x 2 blocks of grey values, by 0.6745 (Donoho and Johnstone 1994). Fine texture counts as
    noise.
    """
    grey = pixels[: len(pixels) // 2 * 2, : pixels.shape[1] // 2 * 2].mean(axis=2)
    details = (grey[::2, ::2] - grey[::2, 1::2] - grey[1::2, ::2] + grey[1::2, 1::2]) / 2
    # grey is the mean of three channels; noise that is independent in each is sqrt(3) times as strong
    return float(np.median(np.abs(details)) / 0.6745 * np.sqrt(3) / 255)
