"""Pixels of more than 8 bits, of odd bands, of several pages: what is seen, and what is said."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from sapnet.data.images import ImageProblem, inspect, read_header, read_rgb, value_sample
from sapnet.data.pixels import LEVELS, MORE_BANDS, NO_ALPHA, NO_VALUE, PAGES, UPPER_BITS

RNG = np.random.default_rng(0)


def micrograph(high: int = 2400, dtype=np.uint16) -> np.ndarray:
    """(64, 96) of 12 bits: a ground of 400, an object of `high`, and noise."""
    values = RNG.normal(400, 15, (64, 96))
    values[20:40, 30:60] = RNG.normal(high, 15, (20, 30))
    return values.clip(0).astype(dtype)


def scene() -> np.ndarray:
    """(64, 96, 3) uint8 with a bright object."""
    pixels = RNG.integers(20, 60, (64, 96, 3), dtype=np.uint8)
    pixels[20:40, 30:60] = (200, 120, 90)
    return pixels


def contrast(pixels: np.ndarray) -> tuple[float, float]:
    return pixels[25:35, 35:55].mean(), pixels[50:, :20].mean()


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("defects", [1, 10])
def test_hot_and_dead_pixels_do_not_darken(tmp_path: Path, ending: str, defects: int) -> None:
    plain = micrograph()
    hot = plain.copy()
    hot[:defects, 0], hot[:defects, 1] = 65535, 0
    seen = []
    for name, values in (("plain", plain), ("hot", hot)):
        path = tmp_path / f"{name}.{ending}"
        Image.fromarray(values).save(path)
        assert LEVELS in inspect(path).notes
        seen.append(contrast(read_rgb(path)))
    assert seen[0] == pytest.approx(seen[1], abs=3)
    assert seen[0][0] > 200
    assert seen[0][1] < 40


def test_sparse_objects_are_not_lost(tmp_path: Path) -> None:
    values = np.full((100, 100), 500, np.uint16)
    values[10:12, 10:12] = 900  # 0.04 % of the pixels
    Image.fromarray(values).save(tmp_path / "a.png")
    pixels = read_rgb(tmp_path / "a.png")
    assert pixels[10, 10].tolist() == [255] * 3
    assert pixels[50, 50].tolist() == [0] * 3


@pytest.mark.parametrize(
    ("nodata", "tag"),
    [(np.nan, None), (-9999.0, None), (-3.4028235e38, None), (1e30, None), (7.25, "7.25")],
)
def test_floats_without_a_value(tmp_path: Path, nodata: float, tag: str | None) -> None:
    values = (micrograph() / 4096).astype(np.float32)
    values[:16] = nodata
    path = tmp_path / "a.tif"
    extra = [(42113, "s", 0, tag, True)] if tag else []
    tifffile.imwrite(path, values, extratags=extra)
    told = inspect(path)
    pixels = read_rgb(path)
    assert {LEVELS, NO_VALUE} <= set(told.notes)
    assert not pixels[:16].any()
    bright, ground = contrast(pixels)
    assert bright > 200 > 40 > ground > 0


def test_infinities_are_no_values(tmp_path: Path) -> None:
    values = micrograph().astype(np.float32)
    values[0, 0], values[0, 1] = np.inf, -np.inf
    tifffile.imwrite(tmp_path / "a.tif", values)
    assert contrast(read_rgb(tmp_path / "a.tif"))[0] > 200
    assert NO_VALUE in inspect(tmp_path / "a.tif").notes


@pytest.mark.parametrize("values", [[[0, 1], [1, 0]], [[-1, 1], [1, -1]], [[-5, -5], [-5, -5]]])
def test_small_whole_numbers_are_values(tmp_path: Path, values: list[list[int]]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.array(values, np.float32))
    assert NO_VALUE not in inspect(tmp_path / "a.tif").notes


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint32, np.float32, np.uint16])
def test_types_of_grey(tmp_path: Path, dtype: type) -> None:
    top = {np.uint32: 4_000_000_000, np.int32: 2_000_000_000, np.int16: 30_000}.get(dtype, 60_000)
    values = np.full((64, 96), top // 8, np.float64)
    values[20:40, 30:60] = top
    tifffile.imwrite(tmp_path / "a.tif", values.astype(dtype))
    assert contrast(read_rgb(tmp_path / "a.tif")) == (255, 0)


def test_white_is_zero(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", 4095 - micrograph(), photometric="miniswhite")
    bright, ground = contrast(read_rgb(tmp_path / "a.tif"))
    assert bright > 200 > 40 > ground


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("bands", [3, 4])
def test_colours_of_twelve_bits(tmp_path: Path, ending: str, bands: int) -> None:
    """Pillow alone gives the upper 8 of 16 bits: of these images next to nothing."""
    values = np.repeat(micrograph()[:, :, None], bands, axis=2)
    values[..., 1] //= 2
    if bands == 4:
        values[..., 3] = 65535
    assert cv2.imwrite(str(tmp_path / f"a.{ending}"), values)
    path = tmp_path / f"a.{ending}"
    pixels = read_rgb(path)
    assert LEVELS in inspect(path).notes
    assert pixels[30, 40].tolist()[::2] == pytest.approx([250, 250], abs=10)
    assert 90 < pixels[25:35, 35:55, 1].mean() < 150
    assert len(np.unique(pixels)) > 25  # noise is told from the ground


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_colours_of_sixteen_bits_are_exact(
    tmp_path: Path, compression: str | None, order: str
) -> None:
    values = RNG.integers(0, 65536, (20, 30, 3), dtype=np.uint16)
    if compression == "lzw":
        Image.fromarray(np.zeros((1, 1), np.uint8)).save(tmp_path / "a.tif")
        assert cv2.imwrite(str(tmp_path / "a.tif"), values[..., ::-1])
    else:
        tifffile.imwrite(tmp_path / "a.tif", values, compression=compression, byteorder=order)
    expected = np.rint(values / 65535 * 255).astype(np.uint8)
    ranges = {"integer": (0.0, 65535.0)}
    assert np.array_equal(read_rgb(tmp_path / "a.tif", ranges=ranges), expected)


def test_transparent_sixteen_bits_say_what_is_lost(tmp_path: Path) -> None:
    values = np.zeros((4, 6, 4), np.uint16)
    values[..., :3], values[:2, :, 3] = 30_000, 65535
    assert cv2.imwrite(str(tmp_path / "a.png"), values)
    assert read_rgb(tmp_path / "a.png")[0, 0].tolist() == [117] * 3
    assert read_rgb(tmp_path / "a.png")[3, 0].tolist() == [255] * 3
    assert UPPER_BITS in inspect(tmp_path / "a.png").notes


BANDS = {
    "nothing": np.zeros((64, 96), np.uint8),
    "noise": RNG.integers(0, 256, (64, 96), dtype=np.uint8),
    "even": np.full((64, 96), 180, np.uint8),
    "few objects": np.where(np.arange(96) < 5, 140, 0)[None].repeat(64, 0).astype(np.uint8),
}


@pytest.mark.parametrize("band", BANDS)
@pytest.mark.parametrize("said", ["unassalpha", "assocalpha", "unspecified"])
def test_a_fourth_band_does_not_whiten(tmp_path: Path, band: str, said: str) -> None:
    pixels = scene()
    four = np.dstack([pixels, BANDS[band]])
    tifffile.imwrite(tmp_path / "a.tif", four, photometric="rgb", extrasamples=[said])
    assert np.array_equal(read_rgb(tmp_path / "a.tif"), pixels)
    notes = inspect(tmp_path / "a.tif").notes
    assert notes == ((MORE_BANDS,) if said == "unspecified" else (NO_ALPHA,))


def test_transparency_of_tiff_and_png(tmp_path: Path) -> None:
    alpha = np.zeros((64, 96), np.uint8)
    alpha[10:50, 20:70], alpha[10, 20:70] = 255, 120
    four = np.dstack([scene(), alpha])
    for name in ("a.tif", "a.png", "a.webp"):
        Image.fromarray(four).save(tmp_path / name, **({"lossless": True} if "w" in name else {}))
        pixels = read_rgb(tmp_path / name)
        assert (pixels[0, 0] == 255).all(), name
        assert np.array_equal(pixels[20:40, 30:60], four[20:40, 30:60, :3])
        assert inspect(tmp_path / name).notes == ()


@pytest.mark.parametrize("name", ["a.png", "a.webp"])
def test_transparency_that_hides_everything_is_none(tmp_path: Path, name: str) -> None:
    pixels = scene()
    four = np.dstack([pixels, np.zeros((64, 96), np.uint8)])
    options = {"lossless": True, "exact": True} if "webp" in name else {}
    Image.fromarray(four).save(tmp_path / name, **options)
    assert np.array_equal(read_rgb(tmp_path / name), pixels)
    assert inspect(tmp_path / name).notes == (NO_ALPHA,)


def test_more_bands_than_colours(tmp_path: Path) -> None:
    pixels = scene()
    five = np.dstack([pixels, BANDS["noise"], BANDS["even"]])
    extra = ["unspecified"] * 2
    tifffile.imwrite(tmp_path / "a.tif", five, photometric="rgb", extrasamples=extra)
    assert np.array_equal(read_rgb(tmp_path / "a.tif"), pixels)
    assert inspect(tmp_path / "a.tif").notes == (MORE_BANDS,)


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.webp"])
def test_the_first_page_is_read_and_said(tmp_path: Path, name: str) -> None:
    frames = [Image.fromarray(np.full((8, 9, 3), level, np.uint8)) for level in (10, 200, 90)]
    options = {"lossless": True} if "webp" in name else {}
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
    assert (read_rgb(tmp_path / name) == 10).all()
    assert inspect(tmp_path / name).notes == (PAGES,)
    assert inspect(io.BytesIO((tmp_path / name).read_bytes())).notes == (PAGES,)


def test_a_cameras_previews_are_no_pages(tmp_path: Path) -> None:
    photo = Image.fromarray(scene())
    photo.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[photo.resize((12, 8))])
    assert inspect(tmp_path / "a.jpg").notes == ()
    assert read_rgb(tmp_path / "a.jpg").shape == (64, 96, 3)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "LAB"])
def test_modes_of_eight_bits(tmp_path: Path, mode: str) -> None:
    """Each looks like the image that it was made from."""
    from PIL import ImageCms

    image = Image.fromarray(scene())
    if mode == "LAB":
        to_lab = ImageCms.buildTransform(
            ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
        )
        ImageCms.applyTransform(image, to_lab).save(tmp_path / "a.tif")
    else:
        image.convert(mode).save(tmp_path / "a.tif")
    bright, ground = contrast(read_rgb(tmp_path / "a.tif"))
    assert bright > ground + 60
    assert inspect(tmp_path / "a.tif").notes == ()


def test_cmyk_jpeg_of_adobe(tmp_path: Path) -> None:
    Image.fromarray(scene()).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert np.abs(read_rgb(tmp_path / "a.jpg")[30, 40].astype(int) - (200, 120, 90)).max() < 12


def test_palette_with_transparency(tmp_path: Path) -> None:
    palette = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.save(tmp_path / "a.png", transparency=1)
    white, dark = [255] * 3, [10, 20, 30]
    assert read_rgb(tmp_path / "a.png").tolist() == [[dark, white], [white, dark]]


def test_one_range_for_all_of_a_series(tmp_path: Path) -> None:
    """Two images of one series keep what tells them apart."""
    for name, top in (("dim.png", 1200), ("bright.png", 3600)):
        Image.fromarray(micrograph(top)).save(tmp_path / name)
    ranges = {"integer": (400.0, 3600.0)}
    dim, bright = (
        contrast(read_rgb(tmp_path / n, ranges=ranges))[0] for n in ("dim.png", "bright.png")
    )
    assert dim == pytest.approx(64, abs=3)
    assert bright > 245
    assert contrast(read_rgb(tmp_path / "dim.png"))[0] > 245  # alone, by its own


def test_a_range_says_nothing_to_eight_bits(tmp_path: Path) -> None:
    pixels = scene()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(read_rgb(tmp_path / "a.png", ranges={"integer": (0, 9)}), pixels)
    assert value_sample(tmp_path / "a.png", 100) is None
    assert not read_header(tmp_path / "a.png").deep


def test_values_are_sampled(tmp_path: Path) -> None:
    values = micrograph()
    Image.fromarray(values).save(tmp_path / "a.png")
    found = value_sample(tmp_path / "a.png", 500)
    assert found is not None
    kind, sample = found
    assert (kind, len(sample) <= 500) == ("integer", True)
    assert (np.diff(sample) >= 0).all()
    assert set(sample) <= set(values.ravel().tolist())
    assert np.median(sample) == pytest.approx(np.median(values), abs=5)


def test_a_tiff_that_pillow_cannot_read_says_what_to_do(tmp_path: Path) -> None:
    values = np.zeros((8, 9, 3), np.float32)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    with pytest.raises(ImageProblem, match=r"TIFF whose kind of pixels is not read.*save it as"):
        read_rgb(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypavif\0\0\0\0", "AVIF"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0", "video"),
        (bytes(128) + b"DICM", "DICOM"),
        (b"\xff\x0a\0\0", "JPEG XL"),
        (b"%PDF-1.7", "PDF"),
    ],
)
def test_other_formats_are_named(tmp_path: Path, data: bytes, name: str) -> None:
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(ImageProblem, match=rf"no image of a known format.*{name}.*; convert it"):
        inspect(tmp_path / "a.jpg")
