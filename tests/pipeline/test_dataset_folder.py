"""Points and images of a folder on the command line: as the service reads them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from sapnet.cli.main import app
from sapnet.data.dataset_folder import DatasetFolder, read_dataset
from sapnet.data.masks import decode, encode
from sapnet.errors import InvalidDataset, ValidationIssue
from tests.data.test_frames import MASK, STORED, document
from tests.data.test_orientation import METHODS
from tests.data.test_partial_input import FORMATS, HEIGHT, WIDTH, thing

pytestmark = pytest.mark.usefixtures("_signals")


def call(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def photo(path: Path, size: tuple[int, int] = STORED, orientation: int = 1) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size[::-1], (90, 90, 90)).save(path, exif=exif)


def written(folder: Path, found: Any) -> Path:
    path = folder / "points.json"
    path.write_text(found if isinstance(found, str) else json.dumps(found))
    return path


class Folder:
    """folder(points): what is read of them and of the images in it, and the warnings."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.warnings: list[ValidationIssue] = []

    def __call__(self, points: Any, **more: Any) -> DatasetFolder:
        return read_dataset(written(self.path, points), self.path, self.warnings.append, **more)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("frame", ["stored", "upright"])
def test_points_of_either_frame(folder: Folder, orientation: int, frame: Any) -> None:
    if frame == "upright" and orientation in (2, 3, 4):
        frame = "stored"  # a size does not tell these apart, and COCO is taken to be in stored
    photo(folder.path / "0.jpg", orientation=orientation)
    found = folder(document(orientation, frame=frame))
    (annotation,) = found.points.annotations
    assert MASK[int(annotation.y), int(annotation.x)]
    assert annotation.mask is not None
    assert np.array_equal(decode(annotation.mask), MASK)
    assert found.points.images[0].size == STORED
    assert found.orientation(0) == orientation
    mapped = frame == "upright" and orientation > 1
    assert bool(folder.warnings) == (mapped or orientation in (2, 3, 4))


@pytest.mark.parametrize("form", FORMATS)
def test_each_format(folder: Folder, form: Any) -> None:
    photo(folder.path / "a.png", (HEIGHT, WIDTH))
    found = folder(
        form([thing([35, 28]), thing(), thing([10, 10], group=1), thing([12, 9], group=1)])
    )
    places = [(round(a.x, 6), round(a.y, 6)) for a in found.points.annotations]
    assert places == [(35, 28), (10, 10)]
    assert found.files == {found.points.images[0].id: folder.path / "a.png"}
    assert len(folder.warnings) == 2
    assert all(warning.pointer for warning in folder.warnings)


def test_a_folder_of_labelme_with_links_and_upper_case(folder: Folder, tmp_path: Path) -> None:
    labelme = FORMATS[-1]
    marks, other = tmp_path / "marks", tmp_path / "other"
    for place in (marks, other):
        place.mkdir()
    (marks / "A.JSON").write_text(json.dumps(labelme([thing([35, 28])])))
    (other / "b.json").write_text(json.dumps(labelme([thing([1, 2])]) | {"imagePath": "b.png"}))
    (marks / "more").symlink_to(other)
    (other / "back").symlink_to(marks)  # a ring
    photo(folder.path / "a.png", (HEIGHT, WIDTH))
    photo(folder.path / "b.png", (HEIGHT, WIDTH))
    found = read_dataset(marks, folder.path, folder.warnings.append)
    assert sorted((a.x, a.y) for a in found.points.annotations) == [(1, 2), (35, 28)]


def test_images_behind_links(folder: Folder, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    photo(folder.path / "0.jpg")
    (images / "sub").symlink_to(tmp_path)
    points = written(tmp_path, document(1, frame="stored"))
    found = read_dataset(points, images, folder.warnings.append)
    assert found.files[0].resolve() == folder.path / "0.jpg"
    (folder.path / "0.jpg").unlink()
    (images / "0.jpg").symlink_to("nowhere.jpg")
    with pytest.raises(InvalidDataset, match=r"'0\.jpg': the file is missing"):
        read_dataset(points, images, folder.warnings.append)


def test_sizes_come_from_the_files(folder: Folder) -> None:
    photo(folder.path / "0.jpg")
    points = document(1, frame="stored", sizes=False, masks=False)
    assert folder(points).points.images[0].size == STORED
    points["annotations"][0] |= {"point": [STORED[1], 1], "bbox": [STORED[1] - 3, 0, 3, 3]}
    with pytest.raises(InvalidDataset, match=r"/annotations/0/point.*outside"):
        folder(points)


def test_everything_that_is_wrong_with_images_is_listed(folder: Folder) -> None:
    for number in range(3):
        photo(folder.path / f"{number}.jpg", (5, 7) if number == 1 else STORED)
    (folder.path / "2.jpg").write_text("no image")
    with pytest.raises(InvalidDataset) as caught:
        folder(document(1, 1, 1, frame="stored"))
    assert [i.pointer for i in caught.value.issues] == ["/images/1", "/images/2/file_name"]


WRONG = {
    "points": lambda f: ("--points", f.path / "none.json"),
    "no JSON": lambda f: ("--points", written(f.path, "{")),
    "images": lambda f: ("--images", f.path / "nowhere"),
    "no truth": lambda f: ("--truth", f.path / "none.json"),
    "truth": lambda f: ("--truth", written(f.path / "sub", {"images": []})),
    "weights": lambda f: ("--weights", f.path / "none.pt"),
    "method": lambda f: ("--method", "sapnet+++"),
    "preset": lambda f: ("--preset", "cpuu"),
    "override": lambda f: ("--set", "train.epoch=3"),
    "proposals": lambda f: ("--proposals", "magic"),
    "given": lambda f: ("--proposals", '{"kind": "given", "document": {"7": 1}}'),
}

CODE = """
import sys
from sapnet.cli.main import main
try:
    main()
except SystemExit as end:
    print("torch" in sys.modules)
    raise
"""


@pytest.mark.slow
@pytest.mark.parametrize("case", WRONG)
def test_bad_files_are_reported_before_torch_is_loaded(folder: Folder, case: str) -> None:
    photo(folder.path / "0.jpg")
    (folder.path / "sub").mkdir()
    points = written(folder.path, document(1, frame="stored"))
    name, value = WRONG[case](folder)
    options = {"--points": points, "--images": folder.path, "--out": folder.path / "out"}
    options |= {name: value}
    arguments = [str(part) for pair in options.items() for part in pair]
    done = subprocess.run(
        [sys.executable, "-c", CODE, "train", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines() == ["False"]
    assert "error:" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder.path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("orientation", [6, 8])
def test_a_training_of_turned_photos(
    tmp_path: Path, weights: Path, tiny: dict[str, Any], orientation: int
) -> None:
    """Points and truth of the upright image: masks lie where the object is stored."""
    mask = np.zeros((48, 64), bool)
    mask[8:24, 36:56] = True
    pixels = np.full((48, 64, 3), 40, np.uint8)
    pixels[mask] = (220, 60, 60)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    upright = np.array(Image.fromarray(mask).transpose(METHODS[orientation]))
    rows, columns = np.nonzero(upright)
    point = [float(columns.mean()) + 0.5, float(rows.mean()) + 0.5]
    image = {"id": 1, "file_name": "a.png", "width": 48, "height": 64}
    found: dict[str, Any] = {
        "images": [image],
        "categories": [{"id": 1, "name": "x"}],
        "annotations": [{"id": 5, "image_id": 1, "category_id": 1, "point": point}],
    }
    points = written(tmp_path, found)
    truth = tmp_path / "truth.json"
    found["annotations"][0]["segmentation"] = encode(upright)
    truth.write_text(json.dumps(found))
    settings = [
        f"{name}={json.dumps(value)}" for name, value in (tiny | {"train.epochs": 1}).items()
    ]
    done = call(
        "train",
        *("--points", points, "--images", tmp_path, "--out", tmp_path / "out"),
        *("--truth", truth, "--weights", weights, "--method", "consensus"),
        *(part for setting in settings for part in ("--set", setting)),
    )
    assert done.exit_code == 0, done.output
    assert "were mapped to stored pixels" in " ".join(done.output.split())
    (line,) = (tmp_path / "out" / "result" / "pseudo_masks.ndjson").read_text().splitlines()
    delivered = decode(json.loads(line)["segmentation"])
    assert (delivered & mask).sum() / (delivered | mask).sum() > 0.7
    metrics = json.loads((tmp_path / "out" / "result" / "metrics.json").read_text())
    assert metrics["pseudo_masks"]["miou_mask"] > 0.7
    for options in ([], ["--images", tmp_path]):
        out = tmp_path / f"export{len(options)}.json"
        masks = tmp_path / "out" / "result" / "pseudo_masks.ndjson"
        out = out if not options else out.with_suffix(".zip")
        exported = call("export", masks, "--points", points, "--out", out, *options)
        if options:
            assert exported.exit_code == 0, exported.output
        else:
            assert exported.exit_code == 1
            assert "with --images" in " ".join(exported.output.split())


def test_an_export_of_points_without_sizes(tmp_path: Path) -> None:
    """Of an image with a mask, that of the mask; of another it is asked for."""
    photo(tmp_path / "0.jpg")
    found = document(1, frame="stored", sizes=False)
    points = written(tmp_path, found)
    mask = np.zeros(STORED, bool)
    mask[2:6, 3:9] = True
    line = {"id": 0, "image_id": 0, "category_id": 1, "segmentation": encode(mask), "quality": 0.9}
    (tmp_path / "masks.ndjson").write_text(json.dumps(line) + "\n")
    arguments = ["export", tmp_path / "masks.ndjson", "--points", points]
    done = call(*arguments, "--out", tmp_path / "OUT.JSON")
    assert done.exit_code == 0, done.output
    (image,) = json.loads((tmp_path / "OUT.JSON").read_text())["images"]
    assert (image["height"], image["width"]) == STORED
    (tmp_path / "masks.ndjson").write_text("")
    done = call(*arguments, "--out", tmp_path / "other.json")
    assert done.exit_code == 1
    assert "width and height of '0.jpg' are missing" in " ".join(done.output.split())
    done = call(*arguments, "--out", tmp_path / "all.zip", "--images", tmp_path)
    assert done.exit_code == 0, done.output
