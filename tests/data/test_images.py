"""What counts as an image, and what becomes of its pixels."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sapnet.data.images import ImageProblem, drawings, image_files, probe, read_rgb

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)


def save(path: Path, pixels, mode=None, **options) -> Path:
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


@pytest.mark.parametrize("ending", ["png", "bmp", "tiff", "webp", "jpg"])
def test_formats(tmp_path, ending):
    path = save(tmp_path / f"a.{ending}", NOISE, **({"lossless": True} if ending == "webp" else {}))
    assert probe(path) == (20, 30)
    assert probe(io.BytesIO(path.read_bytes())) == (20, 30)
    pixels = read_rgb(path)
    assert pixels.shape == (20, 30, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable
    if ending != "jpg":
        assert np.array_equal(pixels, NOISE)


def test_one_pixel(tmp_path):
    path = save(tmp_path / "a.png", np.full((1, 1, 3), 9, np.uint8))
    assert probe(path) == (1, 1)
    assert read_rgb(path).tolist() == [[[9, 9, 9]]]


@pytest.mark.parametrize("ending", ["png", "jpg", "tiff", "bmp", "webp"])
def test_cut_off(tmp_path, ending):
    path = save(tmp_path / f"a.{ending}", RNG.integers(0, 256, (200, 200, 3), dtype=np.uint8))
    data = path.read_bytes()
    for keep in (0.9, 0.5, 0.1):
        path.write_bytes(data[: int(len(data) * keep)])
        with pytest.raises(ImageProblem):
            probe(path)


def test_damaged_pixels(tmp_path):
    path = save(tmp_path / "a.png", NOISE)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(ImageProblem, match="cannot be decoded"):
        probe(path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"not an image", "no image"),
        (b"GIF89a" + bytes(50), "no image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image"),
        (b"\xff\xd8\xff", "no image|opened|decoded"),
    ],
)
def test_no_image(tmp_path, data, words):
    path = tmp_path / "text.jpg"
    path.write_bytes(data)
    with pytest.raises(ImageProblem, match=words):
        probe(path)
    with pytest.raises(ImageProblem, match=words):
        read_rgb(io.BytesIO(data))


def test_missing_and_folder(tmp_path):
    with pytest.raises(ImageProblem, match="missing"):
        probe(tmp_path / "none.png")
    with pytest.raises(ImageProblem):
        probe(tmp_path)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing: decoding it would take the memory."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 99))


@pytest.mark.parametrize("side", [10_001, 20_000, 2_000_000])
def test_too_many_pixels_are_refused_before_decoding(side):
    with pytest.raises(ImageProblem, match="pixels"):
        probe(io.BytesIO(png_header(side, side)))


def test_the_cap_is_a_setting(tmp_path):
    path = save(tmp_path / "a.png", NOISE)
    assert probe(path, max_pixels=600) == (20, 30)
    with pytest.raises(ImageProblem, match="30×20 pixels are more than the 599 allowed"):
        probe(path, max_pixels=599)


def test_orientation_is_left_as_stored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees to show"
    path = tmp_path / "a.jpg"
    Image.fromarray(NOISE).save(path, exif=exif)
    assert probe(path) == (20, 30)
    assert read_rgb(path).shape == (20, 30, 3)


@pytest.mark.parametrize("ending", ["png", "tiff"])
def test_sixteen_bits_go_to_eight_by_their_own_range(tmp_path, ending):
    values = np.array([[1000, 3000], [5000, 2000]], dtype=np.uint16)
    path = save(tmp_path / f"a.{ending}", values)
    expected = np.array([[0, 128], [255, 64]])
    assert np.array_equal(read_rgb(path), np.repeat(expected[:, :, None], 3, axis=2))


def test_float_pixels_with_nan(tmp_path):
    path = save(tmp_path / "a.tiff", np.array([[0.0, 1.0], [np.nan, 2.0]], dtype=np.float32))
    assert read_rgb(path)[..., 0].tolist() == [[0, 128], [0, 255]]


def test_flat_sixteen_bits(tmp_path):
    path = save(tmp_path / "a.png", np.full((2, 2), 700, np.uint16))
    assert len(np.unique(read_rgb(path))) == 1


def test_grey_palette_and_two_tone(tmp_path):
    grey = save(tmp_path / "grey.png", NOISE[..., 0])
    assert np.array_equal(read_rgb(grey), np.repeat(NOISE[..., :1], 3, axis=2))
    palette = save(tmp_path / "palette.png", np.full((3, 3, 3), (255, 0, 51), np.uint8), "P")
    assert (read_rgb(palette) == (255, 0, 51)).all()
    two = save(tmp_path / "two.png", np.array([[0, 255]], np.uint8), "1")
    assert read_rgb(two)[0, :, 0].tolist() == [0, 255]


def test_transparency_lies_over_white(tmp_path):
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0]]], dtype=np.uint8)
    assert read_rgb(save(tmp_path / "a.png", rgba)).tolist() == [[[10, 20, 30], [255, 255, 255]]]
    grey = np.array([[[7, 255], [7, 0]]], dtype=np.uint8)
    assert read_rgb(save(tmp_path / "b.png", grey)).tolist() == [[[7] * 3, [255] * 3]]


def test_cmyk(tmp_path):
    path = save(tmp_path / "a.tiff", np.full((4, 4, 3), (0, 128, 255), np.uint8), "CMYK")
    assert np.abs(read_rgb(path).astype(int) - (0, 128, 255)).max() <= 2


def test_real_images_open(real_data: Path):
    for path in sorted((real_data / "images").iterdir())[:5]:
        assert read_rgb(path).shape == (*probe(path), 3)


def test_the_cap_is_ours_and_not_pillows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    Image.new("1", (60, 50)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow refuses twice as many
    assert probe(path) == (50, 60)
    assert Image.MAX_IMAGE_PIXELS == 1000
    with pytest.raises(ImageProblem, match="60×50 pixels are more than the 2,999 allowed"):
        probe(path, 2999)


def test_image_files_of_folders_and_files(tmp_path):
    """By name, folders within folders too; what is not named as an image stays out."""
    for name in ("a/1.jpg", "a/sub/1.PNG", "a/notes.txt", "b/1.jpg", "c/readme", "odd"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = image_files([tmp_path / "a", tmp_path / "odd"])
    assert found == {
        "1.jpg": tmp_path / "a/1.jpg",
        "sub/1.PNG": tmp_path / "a/sub/1.PNG",
        "odd": tmp_path / "odd",  # who names a file means it
    }
    with pytest.raises(ImageProblem, match=r"no image in .*c \(\.jpg"):
        image_files([tmp_path / "c"])
    with pytest.raises(ImageProblem, match=r"a.1\.jpg and .*b.1\.jpg would both be called 1\.jpg"):
        image_files([tmp_path / "a", tmp_path / "b"])


def test_image_files_behind_links(tmp_path):
    """Links are followed, a ring of them ends, and one that leads nowhere is named."""
    photos, other = tmp_path / "photos", tmp_path / "other"
    for folder in (photos, other):
        folder.mkdir()
    Image.new("RGB", (3, 2)).save(other / "A.JPG")
    (photos / "more").symlink_to(other)
    (other / "back").symlink_to(photos)
    (photos / "b.png").symlink_to(other / "A.JPG")
    (photos / "folder.png").mkdir()
    files = image_files([photos])
    assert set(files) == {"more/A.JPG", "b.png"}
    assert all(probe(file) == (2, 3) for file in files.values())
    (photos / "c.png").symlink_to("nowhere.png")
    with pytest.raises(ImageProblem, match="missing"):
        read_rgb(image_files([photos])["c.png"])


def test_no_two_drawings_are_one_file():
    drawn = drawings(["a.jpg", "b/a.jpg", "c.tiff", "c.png"], ".png")
    named = {name: path.as_posix() for name, path in drawn.items()}
    assert named == {
        "a.jpg": "a.png",
        "b/a.jpg": "b/a.png",
        "c.tiff": "c.tiff.png",
        "c.png": "c.png.png",
    }
