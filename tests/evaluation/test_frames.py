"""Truth that was drawn on upright images, held against what a model finds in stored pixels."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sapnet.data.annotations.ground_truth import as_rle
from sapnet.data.masks import decode
from sapnet.errors import InvalidDataset
from sapnet.evaluation.detections import read_truth_of


def write(folder: Path, orientation: int, width: int, height: int) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (40, 24)).save(folder / "a.jpg", exif=exif)
    document = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": width, "height": height}],
        "categories": [{"id": 1, "name": "x"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[2, 3, 6, 3, 6, 9, 2, 9]]}
        ],
    }
    path = folder / "instances.json"
    path.write_text(json.dumps(document))
    return path


def test_truth_is_brought_to_stored_pixels(tmp_path: Path) -> None:
    told: list[Any] = []
    truth, _ = read_truth_of(write(tmp_path, 6, 24, 40), tmp_path, told.append)
    (image,), (annotation,) = truth["images"], truth["annotations"]
    assert (image["width"], image["height"]) == (40, 24)
    mask = decode(as_rle(annotation["segmentation"], 24, 40))
    expected = np.zeros((24, 40), bool)
    expected[18:22, 3:9] = True  # upright (x, y) is stored (y, 24 - x)
    assert np.array_equal(mask, expected)
    assert "were mapped" in told[0].problem


def test_truth_of_another_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset, match="declared 24×40"):
        read_truth_of(write(tmp_path, 1, 24, 40), tmp_path, lambda issue: None)
