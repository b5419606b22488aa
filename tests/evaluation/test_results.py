"""`sapnet evaluate` with a file of results: whatever form it has, and whatever does not fit."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from sapnet.cli.main import app
from sapnet.data.masks import encode
from tests.data.test_orientation import METHODS
from tests.mutations import damaged, written

HEIGHT, WIDTH = 64, 96
SQUARE = [10, 10, 30, 10, 30, 30, 10, 30]
MASK = np.zeros((HEIGHT, WIDTH), bool)
MASK[10:30, 10:30] = True
RLE = encode(MASK)


def plain(mask: np.ndarray) -> list[int]:
    """Run lengths of a mask, background first, down the columns."""
    flat = np.asfortranarray(mask).ravel(order="F").astype(int)
    breaks = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff([0, *breaks, flat.size]).tolist()
    return [0, *lengths] if flat[0] else lengths


def result(**changes: Any) -> dict[str, Any]:
    found = {"image_id": 0, "category_id": 0, "score": 0.9, "segmentation": RLE, **changes}
    return {name: value for name, value in found.items() if value is not ...}


class Evaluate:
    """evaluate(results): the truth is a square in an image of 96 by 64 pixels."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.truth, self.results = folder, folder / "truth.json", folder / "r.json"
        document = {
            "images": [{"id": 0, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}],
            "categories": [{"id": 0, "name": "red"}, {"id": 4, "name": "blue"}],
            "annotations": [
                {"id": 0, "image_id": 0, "category_id": 0, "segmentation": [SQUARE], "area": 400}
            ],
        }
        self.truth.write_text(json.dumps(document))

    def __call__(self, results: Any, *more: object) -> Any:
        raw = results if isinstance(results, bytes) else json.dumps(results).encode()
        self.results.write_bytes(raw)
        arguments = ["evaluate", self.results, "--truth", self.truth, *more]
        return CliRunner().invoke(app, [str(a) for a in arguments])

    def refuses(self, results: Any, *words: str) -> None:
        said = self(results)
        one_line = " ".join(said.output.split())
        assert said.exit_code == 1, one_line
        assert isinstance(said.exception, SystemExit), repr(said.exception)
        assert said.stdout == ""
        for word in words:
            assert word in one_line, f"{word!r} is not in {one_line!r}"


@pytest.fixture
def evaluate(tmp_path: Path) -> Evaluate:
    return Evaluate(tmp_path)


@pytest.mark.parametrize(
    "segmentation",
    [RLE, [SQUARE], {"size": [HEIGHT, WIDTH], "counts": plain(MASK)}],
    ids=["compressed", "polygon", "plain"],
)
@pytest.mark.parametrize("box", [..., [10, 10, 20, 20], None])
def test_forms_of_a_result(evaluate: Evaluate, segmentation: Any, box: Any) -> None:
    said = evaluate([result(segmentation=segmentation, bbox=box)])
    assert said.exit_code == 0, said.output
    figures = json.loads(said.stdout)
    assert figures["segm"]["AP"] == figures["bbox"]["AP"] == pytest.approx(1)


@pytest.mark.parametrize("name", ["a.png", "photos\\a.png", "A.PNG", "s3://bucket/x/a.png"])
def test_by_file_name(evaluate: Evaluate, name: str) -> None:
    said = evaluate([result(image_id=..., file_name=name)])
    assert json.loads(said.stdout)["segm"]["AP"] == pytest.approx(1)


def test_a_file_name_that_fits_two_images(evaluate: Evaluate) -> None:
    truth = json.loads(evaluate.truth.read_text())
    size = {"width": WIDTH, "height": HEIGHT}
    truth["images"] = [{"id": n, "file_name": f"{n}/a.png", **size} for n in range(2)]
    evaluate.truth.write_text(json.dumps(truth))
    evaluate.refuses([result(image_id=..., file_name="a.png")], "'0/a.png', '1/a.png'")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_id": 77}, ["lacks: 77"]),
        ({"image_id": ..., "file_name": "b.png"}, ["lacks: 'b.png'"]),
        ({"category_id": 9}, ["classes that it lacks: 9", "0 (red), 4 (blue)"]),
    ],
)
def test_what_the_truth_lacks(evaluate: Evaluate, change: Any, words: list[str]) -> None:
    """Among others it is left out and counted; alone it is no result to be measured."""
    alone, among = [result(**change)], [result(), result(**change), result(**change)]
    evaluate.refuses(alone, "no result fits the ground truth", "1 of 1", *words)
    said = evaluate(among)
    assert said.exit_code == 0, said.output
    assert json.loads(said.stdout)["segm"]["AP"] == pytest.approx(1)
    warning = " ".join(said.stderr.split())
    for word in ("warning", "2 of 3 results", *words):
        assert word in warning


SWAPPED = {"size": [WIDTH, HEIGHT], "counts": encode(MASK.T)["counts"]}
WRONG: list[tuple[Any, list[str]]] = [
    ([result(segmentation=SWAPPED)], ["size [96, 64], the image has [64, 96]", "give --images"]),
    ([result(segmentation={"size": [1, 1], "counts": "1"})], ["size [1, 1]"]),
    ([result(segmentation={"size": [HEIGHT, WIDTH], "counts": "~~"})], ["result 0/segmentation"]),
    ([result(segmentation={"size": [HEIGHT, WIDTH], "counts": [0, 10, 1]})], ["6144 pixels"]),
    ([result(segmentation={"counts": [1]})], ["result 0/segmentation"]),
    ([result(segmentation=None)], ["neither polygons nor an RLE"]),
    ([result(segmentation=[])], ["there is no polygon"]),
    ([result(segmentation=[[1, 2, 3, 4]])], ["at least three points"]),
    ([result(segmentation=[[1, 2, 3, 4, 5, 1e12]])], ["far outside"]),
    ([result(bbox=[1, 2, 3])], ["the box is not four numbers"]),
    ([result(image_id="0")], ["result 0/image_id", "'0' is no whole number"]),
    ([result(image_id="a.png")], ['a name belongs into "file_name"']),
    ([result(image_id=..., file_name=4)], ["result 0/file_name: 4 is no text"]),
    ([result(image_id=0.0)], ["no whole number"]),
    ([result(image_id=[0])], ["no whole number"]),
    ([result(image_id=True)], ["no whole number"]),
    ([result(image_id=None)], ["no whole number"]),
    ([result(category_id="blue")], ["give the id of the class as a whole number: 4"]),
    ([result(category_id="green")], ["the ground truth has 0 (red), 4 (blue)"]),
    ([result(category_id=None)], ["result 0/category_id"]),
    ([result(score="high")], ["result 0/score: 'high' is no score"]),
    ([result(score=None)], ["result 0/score"]),
    ([result(score=True)], ["result 0/score"]),
    ([result(score=1e300)], ["result 0/score"]),
    ([result(), result(score=...)], ["1 of 2 results", "result 1: it lacks score"]),
    ([result(), 3, None, "x", [], {}], ["5 of 6 results", "result 1: a result is an object"]),
    (b'[{"image_id": 0, "category_id": 0, "segmentation": [], "score": NaN}]', ["NaN"]),
    (b"", ["r.json is no JSON"]),
    (b"\xff\xfe", ["r.json is no JSON"]),
    (b"[" * 100_000, ["r.json is no JSON"]),
    (b"[1" + b"0" * 5000 + b"]", ["r.json is no JSON"]),
    ([], ["holds no results"]),
    ({}, ["no list of COCO results"]),
    ("x", ["no list of COCO results"]),
    ({"annotations": [result()]}, ['give its "annotations" alone']),
]


@pytest.mark.parametrize(("results", "words"), WRONG)
def test_refused_in_words(evaluate: Evaluate, results: Any, words: list[str]) -> None:
    evaluate.refuses(results, "r.json", *words)


def test_many_faults_are_counted(evaluate: Evaluate) -> None:
    evaluate.refuses([result(score=None)] * 500, "500 of 500 results", "and 497 more")


def test_files_that_are_not_there(evaluate: Evaluate, tmp_path: Path) -> None:
    for arguments in (
        [tmp_path / "none.json", "--truth", evaluate.truth],
        [tmp_path, "--truth", evaluate.truth],
        [evaluate.truth, "--truth", tmp_path / "none.json"],
        [evaluate.truth, "--truth", tmp_path],
    ):
        said = CliRunner().invoke(app, ["evaluate", *map(str, arguments)])
        assert said.exit_code == 1
        assert isinstance(said.exception, SystemExit)
        assert str(tmp_path) in said.output.replace("\n", "")


def test_an_empty_mask_is_a_result(evaluate: Evaluate) -> None:
    """One that is no object: it counts as wrong, beside the right one."""
    nothing = encode(np.zeros((HEIGHT, WIDTH), bool))
    said = evaluate([result(score=0.5), result(segmentation=nothing)])
    assert said.exit_code == 0, said.output
    assert json.loads(said.stdout)["segm"]["AP"] == pytest.approx(0.5)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("polygon", [False, True])
def test_masks_of_the_upright_image_are_mapped(
    evaluate: Evaluate, tmp_path: Path, orientation: int, polygon: bool
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "a.png", exif=exif)
    upright = np.array(Image.fromarray(MASK).transpose(METHODS[orientation]))
    rows, columns = np.nonzero(upright)
    left, top = int(columns[0]), int(rows[0])
    corners = [left, top, left + 20, top, left + 20, top + 20, left, top + 20]
    box = [left, top, 20, 20]
    found = [result(segmentation=encode(upright), bbox=box)]
    if polygon:  # it states no size: that of the image's other results counts
        found = [result(segmentation=[corners], bbox=box), {**found[0], "score": 0.1}]
    said = evaluate(found, "--images", tmp_path)
    assert said.exit_code == 0, said.output
    figures = json.loads(said.stdout)
    assert figures["segm"]["AP"] == figures["bbox"]["AP"] == pytest.approx(1)
    assert "were mapped to stored pixels" in " ".join(said.stderr.split())


def test_an_orientation_that_sizes_do_not_tell(evaluate: Evaluate, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "a.png", exif=exif)
    said = evaluate([result()], "--images", tmp_path)
    assert json.loads(said.stdout)["segm"]["AP"] == pytest.approx(1)
    assert "sizes do not tell" in " ".join(said.stderr.split())


@pytest.mark.slow
def test_no_damage_is_too_much(evaluate: Evaluate) -> None:
    """Results or truth with seeded damage: figures, or one line that says why there are none."""
    good = [result(), result(segmentation=[SQUARE], bbox=[10, 10, 20, 20], score=0.5)]
    truth = json.loads(evaluate.truth.read_text())
    ends = Counter[int]()
    for seed in range(300):
        r = random.Random(seed)
        raw = json.dumps(good).encode()
        if seed % 3:
            raw = written(damaged(good, r), r)
        else:
            evaluate.truth.write_bytes(written(damaged(truth, r), r))
        done = evaluate(raw)
        assert done.exception is None or isinstance(done.exception, SystemExit), (seed, done)
        assert done.exit_code in (0, 1), (seed, done.output)
        assert (done.stdout == "") == (done.exit_code == 1), (seed, done.output)
        ends[done.exit_code] += 1
        evaluate.truth.write_text(json.dumps(truth))
    assert ends[1] > 100
    assert ends[0] > 20
