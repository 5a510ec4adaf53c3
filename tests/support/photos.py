"""Small models and photo files for the tests of restoring; nothing is trained for them."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, TiffImagePlugin

from blurdm.core.config import Backbone, Diffusion, Latent
from blurdm.core.store import write_json
from blurdm.models.build import initialise
from blurdm.models.network import Network
from blurdm.restore.models import Model
from blurdm.restore.photo import register_heif
from blurdm.training.checkpoint import save_weights
from tests.support.sections import small_backbone, small_latent

# for scripts: this process's own peak in MB (ru_maxrss begins with that of the process that started it)
PEAK = """
def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
"""
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><d tiff:Orientation="6" dc:title="bridge"/></x:xmpmeta>'
TAKEN = "2026:01:02 03:04:05"
LATENT = {"gain": "1+k", "fusion_init_std": 0.3, "encoder_init": "kaiming"}


def sections(diffusion: Diffusion) -> tuple[Backbone, Latent, Diffusion]:
    return small_backbone(dropout=0.0), small_latent(**LATENT), diffusion


def small_network(kind: Any, diffusion: Diffusion, **latent: Any) -> Network:
    """Fresh weights from a fixed seed: it changes pictures, if not for the better."""
    network = Network(kind, small_backbone(dropout=0.0), small_latent(**(LATENT | latent)), diffusion)
    initialise(network, seed=0)
    return network.requires_grad_(False).eval()


def small_model(kind: Any, diffusion: Diffusion, **latent: Any) -> Model:
    return Model(small_network(kind, diffusion, **latent), "small", f"{kind} {latent}", {})


def run_folder(folder: Path, kind: Any, diffusion: Diffusion) -> Path:
    """The same network as a finished run, as far as restoring looks at one."""
    names = {"baseline": ("backbone",), "direct": ("backbone", "latent"), "joint": ("backbone", "latent", "diffusion")}
    network = small_network(kind, diffusion)
    found = dict(zip(("backbone", "latent", "diffusion"), sections(diffusion), strict=True))
    stored = {name: found[name].model_dump(mode="json") for name in names[kind]}
    folder.mkdir(parents=True)
    write_json(folder / "config.json", {"stage": kind, "sections": stored})
    write_json(folder / "result.json", {"weights_sha256": save_weights(folder, network), "key": folder.name})
    return folder


def picture(height: int = 31, width: int = 37, channels: int = 3, seed: int = 0, dtype: Any = np.uint8) -> np.ndarray:
    """Smooth colours, (H, W, channels), or (H, W) for one."""
    small = np.random.default_rng(seed).integers(30, 226, (4, 5, 4), dtype=np.uint8)
    pixels = np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))[..., :channels]
    pixels = pixels[..., 0] if channels == 1 else pixels
    return pixels if dtype == np.uint8 else pixels.astype(dtype) * np.uint16(257)


def encoded(pixels: np.ndarray, format: str, **options: Any) -> bytes:
    register_heif()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format, **options)
    return buffer.getvalue()


def described(pixels: np.ndarray, format: str, turn: int = 6) -> bytes:
    """The picture as a file with orientation, EXIF, profile and XMP."""
    if format == "TIFF":
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        for tag, kind, value in (
            (274, 3, turn),
            (271, 2, "Maker"),
            (700, 1, XMP),
            (34665, 4, {0x9003: TAKEN}),
            (65000, 7, b"private"),
        ):
            tags.tagtype[tag] = kind
            tags[tag] = value
        return encoded(pixels, format, tiffinfo=tags, icc_profile=PROFILE)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = turn, "Maker"
    exif.get_ifd(0x8769)[0x9003] = TAKEN
    options: dict[str, Any] = {} if format == "PNG" else {"xmp": XMP}
    if format == "WEBP":
        options["lossless"] = True
    return encoded(pixels, format, exif=exif, icc_profile=PROFILE, **options)
