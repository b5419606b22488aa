"""A right document to spoil, and the real data where it is at hand."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sapnet.data.annotations.coco import PointDocument, read_points


def right_document() -> dict[str, Any]:
    return {
        "images": [
            {"id": 0, "file_name": "a.png", "width": 64, "height": 48},
            {"id": 7, "file_name": "sub/b.png"},
        ],
        "categories": [{"id": 0, "name": "cell"}, {"id": 90, "name": "dust"}],
        "annotations": [
            {"id": 0, "image_id": 0, "category_id": 90, "point": [63.5, 0]},
            {"id": 5, "image_id": 7, "category_id": 0, "keypoints": [0, 0, 0, 4, 5.5, 2]},
            {"id": 9, "image_id": 0, "category_id": 0, "bbox": [3, 4, 0, 0]},
            {"id": 12, "image_id": 0, "category_id": 0, "iscrowd": 1, "bbox": [1, 1, 9, 9]},
        ],
    }


@pytest.fixture
def document() -> dict[str, Any]:
    return right_document()


@pytest.fixture
def read() -> Callable[[Any], PointDocument]:
    """Read a Python value as if it had been posted (NaN and all)."""
    return lambda value: read_points(json.dumps(value).encode())


@pytest.fixture(params=["coco96", "nuclei48"])
def real_data(request: pytest.FixtureRequest) -> Path:
    root = os.environ.get("SAPNET_TEST_DATA")
    default = Path(__file__).parents[2].parent / "shared" / "data"
    folder = (Path(root) if root else default) / request.param
    if not folder.is_dir():
        pytest.skip(f"real data {request.param} is not here; SAPNET_TEST_DATA names its folder")
    return folder
