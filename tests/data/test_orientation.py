"""EXIF orientation: read as Pillow does, taken out without a pixel changed, and followed by points
and masks."""

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, PngImagePlugin

from sapnet.data.exif import as_stored, orientation_of, upright_patches
from sapnet.data.images import inspect, read_header, read_rgb
from sapnet.data.masks import decode, encode
from sapnet.data.orientation import (
    stored_array,
    stored_box,
    stored_mask,
    stored_point,
    stored_polygon,
    upright_size,
)

SIZE = (24, 40)
ALL = range(1, 9)
NAMES = ("a.jpg", "a.png", "a.webp", "a.tif", "packed.tif", "a.mpo")
METHODS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def stored() -> Image.Image:
    """Smooth, so that JPEG keeps it, and like no turn of itself."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    return Image.fromarray(np.dstack([6 * x, 10 * y, 3 * x + y]).astype(np.uint8))


def write(folder: Path, name: str, orientation: int, image: Image.Image | None = None) -> Path:
    path, image = folder / name, image or stored()
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "a maker whose name is longer than four bytes"
    if name.endswith(".tif"):
        image.save(path, exif=exif, compression="tiff_lzw" if "packed" in name else None)
    elif name.endswith(".mpo"):
        path = path.with_suffix(".jpg")
        small = image.resize((10, 6))
        image.save(path, "MPO", save_all=True, append_images=[small], exif=exif, quality=95)
    else:
        options = {"quality": 95} if "jpg" in name else {}
        options |= {"lossless": True} if "webp" in name else {}
        image.save(path, exif=exif, **options)
    return path


def patched(path: Path) -> Path:
    data = bytearray(path.read_bytes())
    for patch in upright_patches(path):
        data[patch.offset : patch.offset + len(patch.data)] = patch.data
    target = path.with_name(f"upright-{path.name}")
    target.write_bytes(data)
    assert len(data) == path.stat().st_size
    return target


def by_pillow(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))


def by_opencv(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("orientation", ALL)
def test_pixels_are_as_stored(tmp_path: Path, name: str, orientation: int) -> None:
    path = write(tmp_path, name, orientation)
    told = inspect(path)
    assert (told.size, told.orientation, told.notes) == (SIZE, orientation, ())
    assert inspect(io.BytesIO(path.read_bytes())) == told
    assert read_header(path).size == SIZE
    pixels = read_rgb(path)
    assert np.abs(pixels.astype(int) - np.asarray(stored())).max() < 12
    # what Pillow shows upright is the same image
    assert np.array_equal(stored_array(by_pillow(path), orientation), pixels)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("orientation", ALL)
def test_taken_out_every_reader_shows_stored_pixels(
    tmp_path: Path, name: str, orientation: int
) -> None:
    path = write(tmp_path, name, orientation)
    pixels, target = read_rgb(path), patched(path)
    assert (upright_patches(path) == []) is (orientation == 1)
    assert orientation_of(target) == 1
    assert upright_patches(target) == []
    assert as_stored(path.read_bytes()) == target.read_bytes()
    assert np.array_equal(read_rgb(target), pixels)
    assert np.array_equal(by_pillow(target), pixels)
    assert np.abs(by_opencv(target).astype(int) - pixels).max() < 12
    with Image.open(target) as image:
        assert image.getexif()[0x010F].startswith("a maker")  # the rest of EXIF stays


@pytest.mark.parametrize(("order", "big"), [("<", False), (">", False), ("<", True)])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_tiffs_of_all_kinds(tmp_path: Path, order: str, big: bool, orientation: int) -> None:
    pixels = np.asarray(stored())
    path = tmp_path / "a.tif"
    tags = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(path, pixels, byteorder=order, bigtiff=big, extratags=tags)
    assert inspect(path).orientation == orientation
    assert np.array_equal(read_rgb(path), pixels)
    target = patched(path)
    assert np.array_equal(by_pillow(target), pixels)
    assert np.array_equal(tifffile.imread(target), pixels)


def xmp(orientation: int) -> bytes:
    said = '<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="{}"/>'
    return f"<x:xmpmeta>{said}</x:xmpmeta>".format(orientation).encode()


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "zip.png", "a.webp", "a.tif"])
@pytest.mark.parametrize("orientation", [1, 3, 8])
def test_orientation_in_xmp(tmp_path: Path, name: str, orientation: int) -> None:
    path, text = tmp_path / name, xmp(orientation)
    if name.endswith(".png"):
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", text.decode(), zip="zip" in name)
        stored().save(path, pnginfo=info)
    elif name == "a.tif":
        stored().save(path, tiffinfo={700: text})
    else:
        stored().save(path, xmp=text, **({"lossless": True} if "webp" in name else {}))
    assert inspect(path).orientation == orientation
    pixels = read_rgb(path)
    assert pixels.shape[:2] == SIZE
    target = patched(path)
    assert orientation_of(target) == 1
    assert np.array_equal(by_pillow(target), pixels)


def test_exif_in_hex_as_imagemagick_writes_it(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    text = exif.tobytes().hex()
    info = PngImagePlugin.PngInfo()
    info.add_text("Raw profile type exif", f"\nexif\n{len(text) // 2:8}\n{text}\n", zip=True)
    stored().save(tmp_path / "a.png", pnginfo=info)
    assert inspect(tmp_path / "a.png").orientation == 6
    target = patched(tmp_path / "a.png")
    assert orientation_of(target) == 1
    assert np.array_equal(by_pillow(target), np.asarray(stored()))


def tiff_of(kind: int, count: int, value: bytes) -> bytes:
    head = b"II*\0" + struct.pack("<IH", 8, 1)
    return head + struct.pack("<HHI", 0x0112, kind, count) + value.ljust(4, b"\0") + bytes(4)


@pytest.mark.parametrize(
    "exif",
    [
        tiff_of(3, 1, b"\0\0"),
        tiff_of(3, 1, b"\x09\0"),
        tiff_of(3, 1, b"\xff\xff"),
        tiff_of(2, 2, b"6\0"),
        tiff_of(3, 0, b"\x06\0"),
        tiff_of(3, 1, b"\x06")[:18],
        b"II*\0\xff\xff\xff\xff",
        b"II*\0",
        b"XX*\0\x08\0\0\0\0\0",
        b"",
        bytes(40),
    ],
)
def test_orientations_that_there_are_not(tmp_path: Path, exif: bytes) -> None:
    for name in ("a.jpg", "a.png", "a.webp"):
        path = tmp_path / name
        stored().save(path, exif=b"Exif\0\0" + exif)
        told = inspect(path)
        assert (told.size, told.orientation) == (SIZE, 1), name
        patched(path)


@pytest.mark.slow
@settings(deadline=None, max_examples=200)
@given(
    st.binary(max_size=200), st.sampled_from([b"\xff\xd8\xff\xe1", b"\x89PNG\r\n\x1a\n", b"II*\0"])
)
def test_damaged_files_never_raise(data: bytes, head: bytes) -> None:
    for text in (data, head + data, b"RIFF\0\0\0\0WEBP" + data):
        assert orientation_of(io.BytesIO(text)) in ALL
        for patch in upright_patches(io.BytesIO(text)):
            assert patch.offset >= 0


def test_a_damaged_byte_anywhere_never_raises(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png", "a.webp", "a.tif"):
        data = write(tmp_path, name, 6).read_bytes()
        for at in range(min(len(data), 400)):
            spoiled = data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]
            assert orientation_of(io.BytesIO(spoiled)) in ALL
            upright_patches(io.BytesIO(spoiled))


def test_the_checksum_of_a_png_is_corrected(tmp_path: Path) -> None:
    data = patched(write(tmp_path, "a.png", 6)).read_bytes()
    at = data.index(b"eXIf")
    length = int.from_bytes(data[at - 4 : at], "big")
    found = int.from_bytes(data[at + 4 + length : at + 8 + length], "big")
    assert found == zlib.crc32(data[at : at + 4 + length])


@pytest.mark.parametrize("orientation", ALL)
def test_what_is_drawn_on_the_upright_image_is_found_in_the_stored_one(orientation: int) -> None:
    height, width = SIZE
    mask = np.zeros(SIZE, bool)
    mask[3:9, 10:31] = True
    mask[4, 11] = False
    turned = Image.fromarray(mask)
    if orientation in METHODS:
        turned = turned.transpose(METHODS[orientation])
    upright = np.array(turned)
    assert upright.shape == upright_size(SIZE, orientation)
    assert np.array_equal(stored_array(upright, orientation), mask)
    back = stored_mask(encode(np.asfortranarray(upright)), orientation)
    assert np.array_equal(decode(back), mask)

    rows, columns = np.nonzero(upright)
    for y, x in zip(rows[::7], columns[::7], strict=True):
        px, py = stored_point(x + 0.5, y + 0.5, orientation, SIZE)
        assert mask[int(py), int(px)]
    x, y = int(columns.min()), int(rows.min())
    box = [x, y, int(columns.max()) + 1 - x, int(rows.max()) + 1 - y]
    assert stored_box(box, orientation, SIZE) == [10, 3, 21, 6]
    polygon = [x, y, x + box[2], y, x + box[2], y + box[3], x, y + box[3]]
    found = np.array(stored_polygon(polygon, orientation, SIZE)).reshape(-1, 2)
    assert (found.min(0).tolist(), found.max(0).tolist()) == ([10, 3], [31, 9])

    # all that counts as inside there does so here
    up_height, up_width = upright.shape
    for corner in ((0, 0), (up_width - 0.001, up_height - 0.001), (0, up_height - 0.001)):
        px, py = stored_point(*corner, orientation, SIZE)
        assert 0 <= px < width
        assert 0 <= py < height
