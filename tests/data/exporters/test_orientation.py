"""Images of an export lie under their masks in every reader, whatever their EXIF says."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import supervision
from PIL import Image, ImageOps

from sapnet.data.exporters import FORMATS
from sapnet.data.images import read_rgb

SIZE = (24, 40)
MASK = np.zeros(SIZE, bool)
MASK[4:9, 25:33] = True
COLOUR = (200, 40, 30)


def write(path: Path, orientation: int) -> None:
    """An object of COLOUR where MASK is."""
    pixels = np.full((*SIZE, 3), 60, np.uint8)
    pixels[2:11, 23:35] = COLOUR
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if path.suffix == ".webp" else {}
    Image.fromarray(pixels).save(path, exif=exif, **lossless)


def source(memory: Any, folder: Path) -> Any:
    """Images of every orientation and format."""
    files = {}
    for number, suffix in enumerate((".jpg", ".png", ".webp", ".tif")):
        for orientation in range(1, 9):
            id_ = 10 * number + orientation
            files[id_] = folder / f"{id_}{suffix}"
            write(files[id_], orientation)

    class Photos(memory):
        def file(self, image: Any) -> Path:
            return files[image.id]

    return Photos({id_: [MASK] for id_ in files}, names={i: f.name for i, f in files.items()})


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_every_reader_shows_them_as_stored(
    memory: Any, exported: Any, tmp_path: Path, format: str
) -> None:
    made = exported(source(memory, tmp_path), format, images=True)
    assert "no EXIF orientation" in made.report["notes"][-1]
    seen = 0
    for path in made.unpacked().rglob("*"):
        if (
            path.suffix not in (".jpg", ".png", ".webp", ".tif")
            or "mask" in path.as_posix().lower()
        ):
            continue
        if "Segmentation" in path.as_posix():
            continue
        seen += 1
        stored = read_rgb(path)
        with Image.open(path) as image:
            by_pillow = np.array(ImageOps.exif_transpose(image).convert("RGB"))
        by_opencv = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
        for pixels in (stored, by_pillow, by_opencv):
            assert pixels.shape[:2] == SIZE
            assert np.abs(pixels[MASK].mean(0) - COLOUR).max() < 25, path.name
        original = read_rgb(tmp_path / path.name)
        assert np.array_equal(stored, original)
    assert seen == 32


@pytest.mark.slow
def test_as_supervision_reads_them(memory: Any, exported: Any, tmp_path: Path) -> None:
    folder = exported(source(memory, tmp_path), "coco", images=True).unpacked()
    found = supervision.DetectionDataset.from_coco(
        str(folder / "images"), str(folder / "annotations/instances_default.json"), force_masks=True
    )
    count = 0
    for _, image, detections in found:
        assert np.abs(image[detections.mask[0]].mean(0)[::-1] - COLOUR).max() < 25
        count += 1
    assert count == 32


@pytest.mark.parametrize("format", FORMATS)
def test_without_images_the_frame_is_said(memory: Any, exported: Any, format: str) -> None:
    report = exported(memory({1: [MASK]}), format).report
    assert "as the files of the images store them" in report["notes"][-1]
