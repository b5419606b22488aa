"""Coordinates of upright images, brought back to stored pixels: in points, masks and truth."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sapnet.data.annotations.coco import check_against_images, read_points, read_truth
from sapnet.data.annotations.document import PointDocument
from sapnet.data.annotations.frames import in_stored_pixels
from sapnet.data.annotations.ground_truth import as_rle
from sapnet.data.masks import decode, encode
from sapnet.data.orientation import Frame
from sapnet.errors import InvalidDataset
from tests.data.test_orientation import METHODS

STORED = (24, 40)
MASK = np.zeros(STORED, bool)
MASK[4:9, 25:33] = True
ALL = range(1, 9)
TURNED, LEVEL = (5, 6, 7, 8), (2, 3, 4)


def upright(mask: np.ndarray, orientation: int) -> np.ndarray:
    image = Image.fromarray(mask)
    return np.array(image.transpose(METHODS[orientation]) if orientation in METHODS else image)


def document(*orientations: int, frame: Frame, sizes: bool = True, masks: bool = True) -> Any:
    """An image of each orientation, with the object of MASK as it was drawn there."""
    images, annotations = [], []
    for number, orientation in enumerate(orientations):
        mask = upright(MASK, orientation) if frame == "upright" else MASK
        rows, columns = np.nonzero(mask)
        image: dict[str, Any] = {"id": number, "file_name": f"{number}.jpg"}
        if sizes:
            image |= {"height": mask.shape[0], "width": mask.shape[1]}
        images.append(image)
        rle = encode(np.asfortranarray(mask))
        left, top = int(columns.min()), int(rows.min())
        width, height = int(columns.max()) + 1 - left, int(rows.max()) + 1 - top
        corners = [left, top, left + width, top, left + width, top + height, left, top + height]
        point = [left + 1.5, top + 2.5]
        annotations.append(
            {
                "id": number,
                "image_id": number,
                "category_id": 1,
                "point": point,
                "segmentation": [corners] if number % 2 else rle,
                "bbox": [left, top, width, height],
                **({"mask": rle} if masks else {}),
            }
        )
    categories = [{"id": 1, "name": "thing"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def mapped(
    told: dict[str, Any], orientations: tuple[int, ...], assumed: Frame = "stored"
) -> PointDocument:
    read = read_points(json.dumps(told).encode())
    assert read.issues == []
    files = {f"{n}.jpg": (STORED, o) for n, o in enumerate(orientations)}
    found = in_stored_pixels(replace(read, frame=assumed), files)
    sizes = {name: size for name, (size, _) in files.items()}
    assert check_against_images(found, sizes) == []
    return found


def right(found: PointDocument) -> list[bool]:
    """Of each image, whether point, box and mask are those of MASK."""
    good = []
    for annotation in found.annotations():
        on = bool(MASK[int(annotation.y), int(annotation.x)])
        assert annotation.mask is None or list(annotation.mask["size"]) == list(STORED)
        same = annotation.mask is None or np.array_equal(decode(annotation.mask), MASK)
        good.append(on and same and annotation.box == (25, 4, 33, 9))
    return good


@pytest.mark.parametrize("orientation", ALL)
def test_a_tool_that_turns(orientation: int) -> None:
    found = mapped(document(orientation, frame="upright"), (orientation,), "upright")
    assert right(found) == [True]
    assert [bool(w.problem.count("0.jpg")) for w in found.warnings] == [True] * (orientation != 1)


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("frame", ["stored", "upright"])
@pytest.mark.parametrize("assumed", ["stored", "upright"])
def test_sizes_tell(orientation: int, frame: Frame, assumed: Frame) -> None:
    found = mapped(document(orientation, frame=frame), (orientation,), assumed)
    assert right(found) == [True]
    (image,) = found.images
    assert image.size == STORED
    if frame == "upright":
        (warning,) = found.warnings
        assert "were mapped to stored pixels" in warning.problem
        assert f"'0.jpg' (orientation {orientation})" in warning.problem
    else:
        assert found.warnings == []


@pytest.mark.parametrize("orientation", LEVEL)
def test_sizes_do_not_tell(orientation: int) -> None:
    found = mapped(document(orientation, frame="stored"), (orientation,))
    assert right(found) == [True]
    (warning,) = found.warnings
    assert "sizes do not tell" in warning.problem
    assert "taken to be in stored pixels" in warning.problem
    assert "'0.jpg'" in warning.problem


def test_undeclared_sizes_do_not_tell() -> None:
    told = document(6, frame="stored", sizes=False)
    found = mapped(told, (6,))
    assert right(found) == [True]
    assert "sizes do not tell" in found.warnings[0].problem
    by_tool = document(6, frame="upright", sizes=False)
    assert right(mapped(by_tool, (6,), "upright")) == [True]


def test_other_images_of_the_file_tell() -> None:
    orientations = (3, 6, 2, 1, 8, 4)
    found = mapped(document(*orientations, frame="upright"), orientations)
    assert right(found) == [True] * 6
    assert len(found.warnings) == 2
    found = mapped(document(*orientations, frame="stored"), orientations, "upright")
    assert right(found) == [True] * 6
    (warning,) = found.warnings
    assert "stored pixels, and were left" in warning.problem


def test_many_images_are_counted_and_a_few_named() -> None:
    orientations = (3,) * 25
    (warning,) = mapped(document(*orientations, frame="stored"), orientations).warnings
    assert "25 images" in warning.problem
    assert "and 15 more" in warning.problem


def test_sizes_that_are_neither_are_refused() -> None:
    told = document(1, frame="stored", masks=False)
    told["images"][0] |= {"height": 40, "width": 24}
    told["annotations"][0] |= {"point": [3, 3], "bbox": [1, 1, 4, 4]}
    read = read_points(json.dumps(told).encode())
    found = in_stored_pixels(replace(read, frame="upright"), {"0.jpg": (STORED, 1)})
    (issue,) = check_against_images(found, {"0.jpg": STORED})
    assert "declared 24×40" in issue.problem
    assert "EXIF" in issue.hint


@pytest.mark.parametrize("orientation", ALL)
def test_truth_on_the_upright_image(orientation: int) -> None:
    """Two images, so that there is an RLE and a polygon; the second tells of the first."""
    orientations = (orientation, 6)
    text = json.dumps(document(*orientations, frame="upright", masks=False)).encode()
    warnings: list[Any] = []
    sizes = {0: STORED, 1: STORED}
    truth = read_truth(text, sizes, orientations.__getitem__, warnings.append)
    for annotation, image in zip(truth["annotations"], truth["images"], strict=True):
        assert (image["height"], image["width"]) == STORED
        assert np.array_equal(decode(as_rle(annotation["segmentation"], *STORED)), MASK)
        assert annotation["bbox"] == [25, 4, 8, 5]
    assert warnings
    assert "were mapped to stored pixels" in warnings[0].problem
    assert read_truth(text, sizes, orientations.__getitem__) == truth


@pytest.mark.parametrize("orientation", LEVEL)
def test_a_document_that_states_its_frame(orientation: int) -> None:
    """Points and truth of one file are in one frame, whatever sizes leave open."""
    told = document(orientation, frame="upright")
    told["info"] = {"year": 2026, "frame": "upright"}
    found = in_stored_pixels(
        read_points(json.dumps(told).encode()), {"0.jpg": (STORED, orientation)}
    )
    assert all(right(found))
    truth = read_truth(json.dumps(told).encode(), {0: STORED}, lambda id_: orientation)
    (annotation,) = truth["annotations"]
    assert np.array_equal(decode(as_rle(annotation["segmentation"], *STORED)), MASK)


@pytest.mark.parametrize("info", [7, None, [{"frame": "upright"}], {"frame": "askew"}, {}])
def test_an_info_that_states_nothing(info: Any) -> None:
    told = {"info": info, **document(3, frame="stored")}
    read = read_points(json.dumps(told).encode())
    assert (read.issues, read.frame) == ([], "stored")


def test_truth_in_stored_pixels_stays() -> None:
    text = json.dumps(document(8, 3, frame="stored", masks=False)).encode()
    sizes = {0: STORED, 1: STORED}
    warnings: list[Any] = []
    truth = read_truth(text, sizes, (8, 3).__getitem__, warnings.append)
    assert truth == read_truth(text, sizes)
    (warning,) = warnings
    assert "'1.jpg' (orientation 3)" in warning.problem


def test_truth_of_exchanged_sizes_without_a_reason_is_refused() -> None:
    text = json.dumps(document(6, frame="upright", masks=False)).encode()
    for orientations in (None, lambda id_: 1, lambda id_: 3):
        with pytest.raises(InvalidDataset, match="declared 24×40"):
            read_truth(text, {0: STORED}, orientations)
