"""What a restored file says of itself is true: sizes, thumbnail, further parts."""

import contextlib
import io
import struct
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import ExifTags, Image

from blurdm.core.errors import InputError
from blurdm.restore.encoding import encode_photo
from blurdm.restore.exif import orientation, updated_exif
from blurdm.restore.metadata import PNG_SIGNATURE, png_chunk, png_chunks, updated_xmp
from blurdm.restore.photo import decode_photo
from tests.support.photos import described, encoded, picture, run_folder
from tests.support.sections import paper_diffusion
from tests.support.tiny import Told

SMALL = encoded(picture(12, 16), "JPEG")
DETAILS, PIXEL_X, PIXEL_Y = 0x8769, 0xA002, 0xA003
MAKER_NOTE = b"maker's own\x00\x01\x02"


def exif_with_thumbnail(order: str = "<", turn: int = 6, width: int = 37, height: int = 31) -> bytes:
    """Sizes as SHORT and as LONG, a maker note, and a thumbnail in a second directory."""

    def directory(place: int, entries: list[tuple[int, int, int, int]], further: int) -> bytes:
        packed = struct.pack(f"{order}H", len(entries))
        for tag, kind, count, value in entries:
            packed += struct.pack(f"{order}HHI", tag, kind, count)
            packed += struct.pack(f"{order}HH", value, 0) if kind == 3 else struct.pack(f"{order}I", value)
        return packed + struct.pack(f"{order}I", further)

    first, details, second = 8, 8 + 2 + 12 * 4 + 4, 8 + 2 * (2 + 12 * 3 + 4) + 12
    data = second + 2 + 12 * 3 + 4
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", first)
    main = [(0x100, 4, 1, width), (0x101, 3, 1, height), (0x112, 3, 1, turn), (DETAILS, 4, 1, details)]
    main_bytes = directory(first, main, second)
    note = data + len(SMALL)
    exif = [(0x927C, 7, len(MAKER_NOTE), note), (PIXEL_X, 3, 1, width), (PIXEL_Y, 4, 1, height)]
    details_bytes = directory(details, exif, 0)
    thumbnail = [(0x103, 3, 1, 6), (0x201, 4, 1, data), (0x202, 4, 1, len(SMALL))]
    content = head + main_bytes + details_bytes + directory(second, thumbnail, 0)
    assert len(content) == data
    return content + SMALL + MAKER_NOTE


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("turn", [1, 6, 3])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "HEIF"])
def test_sizes_are_those_of_the_pixels_and_no_thumbnail_shows_the_photo_as_it_was(
    format: str, turn: int, order: str
) -> None:
    exif = exif_with_thumbnail(order, turn)
    content = encoded(picture(31, 37), format, exif=exif if format == "PNG" else b"Exif\0\0" + exif)
    with Image.open(io.BytesIO(content)) as image:
        assert image.getexif().get_ifd(ExifTags.IFD.IFD1), "a reader sees the thumbnail of the photo"
    photo = decode_photo(content, "photo")
    written = encode_photo(photo, photo.pixels)
    with Image.open(io.BytesIO(written)) as image:
        fields, size = image.getexif(), image.size
        assert size == ((31, 37) if turn == 6 else (37, 31)) and fields.get(0x112, 1) == 1
        assert (fields[0x100], fields[0x101]) == size and not fields.get_ifd(ExifTags.IFD.IFD1)
        details = fields.get_ifd(DETAILS)
        assert (details[PIXEL_X], details[PIXEL_Y]) == size and details[0x927C] == MAKER_NOTE
    assert SMALL[20:60] in content and SMALL[20:60] not in written


def test_orientation_is_heeded_behind_the_pixels_too() -> None:
    content = encoded(picture(31, 37), "PNG", exif=exif_with_thumbnail())
    chunks = list(png_chunks(content))
    assert [name for name, _ in chunks] == [b"IHDR", b"eXIf", b"IDAT", b"IEND"]
    moved = PNG_SIGNATURE + b"".join(png_chunk(*chunks[place]) for place in (0, 2, 1, 3))
    one, other = decode_photo(content, "photo"), decode_photo(moved, "photo")
    assert one.pixels.shape == (37, 31, 3) and np.array_equal(one.pixels, other.pixels)
    with Image.open(io.BytesIO(encode_photo(other, other.pixels))) as image:
        image.load()
        assert image.size == (31, 37) and image.getexif()[0x112] == 1


def test_no_damaged_exif_is_an_error() -> None:
    whole = exif_with_thumbnail()
    rng = np.random.default_rng(0)
    for number in range(3000):
        content = bytearray(whole[: int(rng.integers(len(whole)))] if number % 3 == 0 else whole)
        for place in rng.integers(len(content) or 1, size=int(rng.integers(0, 9))) if content else ():
            content[place] = int(rng.choice([0, 1, 8, 255, int(rng.integers(256))]))
        assert len(updated_exif(bytes(content), 37, 31)) == len(content) and 1 <= orientation(bytes(content)) <= 8


KINDS = (34377, 700, 34665, 34853, 34675, 262, 258, 339, 338, 320, 274, 65000, 330, 40965, 37724, 305, 33432)


def test_no_tags_of_a_tiff_are_an_error_once_it_is_read() -> None:
    rng, read = np.random.default_rng(0), 0
    whole = encoded(picture(), "TIFF", tiffinfo={34377: bytes(40), 700: xmp_of("motion"), 33723: b"iptc", 315: "me"})
    (start,) = struct.unpack_from("<I", whole, 4)
    (count,) = struct.unpack_from("<H", whole, start)
    for number in range(150):
        content, entry = bytearray(whole), start + 2 + 12 * int(rng.integers(count))
        struct.pack_into("<H", content, entry, KINDS[number % len(KINDS)])
        struct.pack_into("<HI", content, entry + 2, int(rng.integers(14)), int(rng.integers(9)))
        with contextlib.suppress(InputError):
            photo = decode_photo(bytes(content), "photo")
            assert decode_photo(encode_photo(photo, photo.pixels), "written").pixels.shape == photo.pixels.shape
            read += 1
    assert read > 50


HEAD = '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
RDF = 'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"'
TIFF_NS = 'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/"'
KEPT = f'{TIFF_NS} xmlns:dc="http://purl.org/dc/elements/1.1/" dc:title="bridge &amp; river" tiff:Orientation="6"'
KEPT += ' tiff:ImageWidth="37" tiff:ImageLength="31"'
ITEM = 'xmlns:Item="http://ns.google.com/photos/1.0/container/item/"'
CONTAINER = f"""<Box:Directory xmlns:Box="http://ns.google.com/photos/1.0/container/" {ITEM}><rdf:Seq><rdf:li>
<Box:Item Item:Semantic="GainMap" Item:Mime="image/jpeg" Item:Length="30"/></rdf:li></rdf:Seq></Box:Directory>"""
XMPS = {
    "gain map": f'xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0">{CONTAINER}',
    "its prefix": 'xmlns:g="http://ns.adobe.com/hdr-gain-map/1.0/" g:Version="1.0" g:GainMapMax="2">',
    "motion": f"""xmlns:GCamera="http://ns.google.com/photos/1.0/camera/" GCamera:MotionPhoto="1"
 GCamera:MotionPhotoVersion="1" GCamera:BurstID="kept">{CONTAINER.replace("GainMap", "MotionPhoto")}""",
    "older motion": """xmlns:C="http://ns.google.com/photos/1.0/camera/" C:BurstID="kept">
<C:MicroVideo>1</C:MicroVideo><C:MicroVideoOffset>4021</C:MicroVideoOffset>""",
    "Apple": 'xmlns:HDRGainMap="http://ns.apple.com/HDRGainMap/1.0/"><HDRGainMap:HDRGainMapVersion>65536'
    "</HDRGainMap:HDRGainMapVersion>",
}
GONE = (b"ainMap", b"hdrgm", b"hdr-gain-map", b"MotionPhoto", b"MicroVideo", b"container")


def xmp_of(kind: str) -> bytes:
    description = (
        f"<rdf:Description {KEPT} {XMPS[kind]}<exif:PixelXDimension>37</exif:PixelXDimension></rdf:Description>"
    )
    return f'{HEAD}<rdf:RDF {RDF}>{description}</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'.encode()


def test_every_xmp_speaks_of_parts_as_it_was() -> None:
    assert all(any(word in xmp_of(kind) for word in GONE) for kind in XMPS)


@pytest.mark.parametrize("kind", XMPS)
@pytest.mark.parametrize("format", ["JPEG", "WEBP", "HEIF", "TIFF"])
def test_metadata_does_not_speak_of_parts_that_are_gone(kind: str, format: str) -> None:
    xmp = xmp_of(kind)
    options = {"tiffinfo": {700: xmp}} if format == "TIFF" else {"xmp": xmp}
    photo = decode_photo(encoded(picture(31, 37), format, **options), "photo")
    with Image.open(io.BytesIO(encode_photo(photo, photo.pixels))) as image:
        said = image.info["xmp"]
    fields = {value for element in ElementTree.fromstring(said).iter() for value in element.attrib.values()}
    assert photo.partial and not any(word in said for word in GONE)
    assert "bridge & river" in fields and ("kept" in fields) == ("otion" in kind)
    width, height = image.size
    assert b'Orientation="6"' not in said
    for words in (f'ImageWidth="{width}"', f'ImageLength="{height}"', f">{width}<"):
        assert words.encode() in said


@pytest.mark.parametrize(
    "xmp",
    [
        b"hdr-gain-map http://ns.adobe.com/hdr-gain-map/ and no XML",
        b'<!DOCTYPE x [<!ENTITY a "' + b"a" * 999 + b'">]><x y="http://ns.adobe.com/hdr-gain-map/">&a;&a;</x',
        b"<x>" * 5000 + b"http://ns.google.com/photos/dd/" + b"</x>" * 5000,
        b"<x>" + b"<y/>" * 200_000 + b"http://ns.google.com/photos/dd/</x>",
    ],
    ids=["no XML", "entities", "deep", "long"],
)
def test_xmp_that_cannot_be_read_is_left_out_if_it_speaks_of_parts(xmp: bytes) -> None:
    assert updated_xmp(xmp, 37, 31) == b""


def test_photoshop_s_thumbnails_are_left_out() -> None:
    def resource(number: int, data: bytes) -> bytes:
        return b"8BIM" + struct.pack(">HBx", number, 0) + struct.pack(">I", len(data)) + data + b"\0" * (len(data) % 2)

    caption, small = resource(1028, b"caption"), resource(1036, b"small" + SMALL) + resource(1033, b"older")
    segment = b"Photoshop 3.0\0" + small + caption + b"rest"
    content = encoded(picture(), "JPEG")
    content = content[:2] + struct.pack(">BBH", 0xFF, 0xED, len(segment) + 2) + segment + content[2:]
    tagged = encoded(picture(), "TIFF", tiffinfo={34377: small + caption, 37724: b"layers of the photo as it was"})
    for original in (content, tagged):
        photo = decode_photo(original, "photo")
        written = encode_photo(photo, photo.pixels)
        assert (
            b"caption" in written and b"small" not in written and b"older" not in written and b"layers" not in written
        )
        assert b"small" in original


def ultra_hdr() -> bytes:
    """A JPEG with a gain map behind it, as phones write it: XMP, the segment of ISO 21496, and a second JPEG."""
    content = encoded(picture(31, 37), "JPEG", xmp=xmp_of("gain map"))
    segment = b"urn:iso:std:iso:ts:21496:-1\0" + bytes(4)
    return content[:2] + struct.pack(">BBH", 0xFF, 0xE2, len(segment) + 2) + segment + content[2:] + SMALL


def multi_picture() -> bytes:
    buffer = io.BytesIO()
    first, second = (Image.fromarray(picture(seed=seed)) for seed in (0, 1))
    first.save(buffer, "MPO", save_all=True, append_images=[second])
    return buffer.getvalue()


def test_parts_that_are_not_kept_are_said_once(tmp_path: Path, blurdm: Callable[..., Told]) -> None:
    model = run_folder(tmp_path / "model", "baseline", paper_diffusion())
    album = tmp_path / "album"
    album.mkdir()
    for name, content in {"a.jpg": ultra_hdr(), "b.jpg": multi_picture(), "c.jpg": encoded(picture(), "JPEG")}.items():
        (album / name).write_bytes(content)
    result = blurdm("deblur", album, "--model", model)
    assert result.code == 0 and result.out.count("(restored)") == 3
    (line,) = (line for line in result.err.splitlines() if "gain maps" in line)
    assert line.startswith("not restored, gain maps") and line.endswith(f": {album}/a.jpg, {album}/b.jpg")
    for name in ("a.jpg", "b.jpg"):
        written = (album / "restored" / name).read_bytes()
        assert not any(word in written for word in (*GONE, b"21496", b"MPF\0"))
        assert decode_photo(written, name).partial is False
    for format in ("PNG", "TIFF", "WEBP", "HEIF"):
        assert decode_photo(described(picture(channels=4), format), format).partial is False
