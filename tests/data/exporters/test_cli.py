"""`sapnet export`: a run's masks, from its folder to a file of another tool."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco
from pycocotools.coco import COCO
from typer.testing import CliRunner

from sapnet.cli.main import app

MASKS = {5: (1, 0.9), 6: (2, 0.2), 7: (1, 0.6)}  # id -> image, quality


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with points, images and masks, the masks in no order of their images."""
    points = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 9, "height": 8} for i in (2, 1)],
        "annotations": [
            {"id": id_, "image_id": image, "category_id": 3, "point": [1.5, 2.5]}
            for id_, (image, _) in MASKS.items()
        ],
        "categories": [{"id": 3, "name": "cell"}],
    }
    (tmp_path / "points.json").write_text(json.dumps(points))
    mask = coco.encode(np.asfortranarray(np.eye(8, 9, dtype=np.uint8)))
    segmentation = {"size": [8, 9], "counts": mask["counts"].decode()}
    lines = [
        {"id": id_, "image_id": image, "category_id": 3, "quality": quality}
        | {"segmentation": segmentation}
        for id_, (image, quality) in MASKS.items()
    ]
    text = "\n".join(map(json.dumps, lines)) + "\n"
    (tmp_path / "masks.ndjson").write_text(text)
    Image.new("RGB", (9, 8)).save(tmp_path / "1.png")
    return tmp_path


def call(folder: Path, out: str, *more: str) -> Any:
    named = ["--points", str(folder / "points.json"), "--out", str(folder / out)]
    return CliRunner().invoke(app, ["export", str(folder / "masks.ndjson"), *named, *more])


def test_to_coco(run: Path) -> None:
    done = call(run, "new/out.json", "--min-quality", "0.5")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["masks"] == 2
    found = COCO(run / "new/out.json")
    assert sorted(found.anns) == [5, 7]
    assert (found.annToMask(found.anns[5]) == np.eye(8, 9)).all()


def test_with_the_images(run: Path) -> None:
    done = call(run, "out.zip", "--format", "yolo-seg", "--images", str(run))
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert [m["image_id"] for m in report["left_out"]] == [2]  # its image is not there
    with zipfile.ZipFile(run / "out.zip") as archive:
        assert archive.read("images/train/1.png") == (run / "1.png").read_bytes()
        assert len(archive.read("labels/train/1.txt").splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("out.json", "--format", "tiff"), "no format 'tiff'"),
        (("out.json", "--format", "voc"), "makes a .zip"),
        (("nowhere.json", "--points", "nowhere"), "nowhere"),
    ],
)
def test_what_is_refused(run: Path, arguments: tuple[str, ...], words: str) -> None:
    done = call(run, *arguments)
    assert done.exit_code == 1
    assert words in done.output
    assert not (run / arguments[0]).exists()


GOOD = {"id": 9, "image_id": 1, "category_id": 3, "quality": 0.5, "segmentation": {}}
WRONG = [
    {"image_id": [1]},
    {"id": "9"},
    {"category_id": None},
    {"quality": "high"},
    {"quality": None},
    {"segmentation": [[1, 1, 2, 2, 3, 3]]},
    {"segmentation": None},
]


@pytest.mark.parametrize(
    "line",
    [
        *("{", "7", '{"id": 1, "image_id": 1}', "[" * 100_000, '["id"]', '"id"', "\xff"),
        *(json.dumps(GOOD | wrong) for wrong in WRONG),
    ],
)
def test_a_line_that_is_no_mask(run: Path, line: str) -> None:
    with (run / "masks.ndjson").open("a") as file:
        file.write(line)
    done = call(run, "out.json")
    assert done.exit_code == 1
    assert "line 4 is no mask" in done.output
