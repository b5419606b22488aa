import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from sapnet.errors import InvalidConfig, InvalidDataset
from sapnet.proposals import build_generator
from sapnet.proposals.bags import make_bags
from sapnet.proposals.given import GivenGenerator
from sapnet.types import Category, ImageInfo, PointSet

from .conftest import disc, points

SIZE = (20, 30)
IMAGE = np.zeros((*SIZE, 3), np.uint8)
INFO = ImageInfo(1, "a.png", 30, 20)
AT = points((10.5, 10.5), (22.5, 8.5))
SET = PointSet((INFO,), tuple(AT), (Category(1, "thing"),))
MASK = disc(SIZE, 10.5, 10.5, 6)
ENCODED = coco_mask.encode(np.asfortranarray(MASK, dtype=np.uint8))
COMPRESSED = {"size": list(SIZE), "counts": ENCODED["counts"].decode()}
SQUARE = [[8.0, 8.0, 14.0, 8.0, 14.0, 13.0, 8.0, 13.0]]


def uncompressed(mask: np.ndarray) -> dict[str, Any]:
    flat = mask.ravel(order="F").astype(np.int8)
    changes = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def test_the_three_forms_of_a_mask_and_both_of_the_document(tmp_path: Path) -> None:
    as_dict = {
        "100": [
            {"segmentation": COMPRESSED, "score": 0.9},
            {"segmentation": uncompressed(disc(SIZE, 10.5, 10.5, 3)), "score": 0.8},
            {"segmentation": SQUARE},
        ]
    }
    as_list = [{"annotation_id": 100, **entry} for entry in as_dict["100"]]
    path = tmp_path / "given.json"
    path.write_text(json.dumps(as_list))
    for document in (as_dict, as_list, path, str(path)):
        generator = GivenGenerator(document, SET)
        first, second = generator.propose(IMAGE, INFO, AT)
        assert first.sources == ("given",) * 3
        np.testing.assert_allclose(first.confidence, [0.9, 0.8, 0.5])
        assert (first.masks[0] == MASK).all()
        assert (first.masks[1] == disc(SIZE, 10.5, 10.5, 3)).all()
        square = np.zeros(SIZE, bool)
        square[8:13, 8:14] = True
        assert (first.masks[2] == square).all()
        assert second.masks.shape == (0, *SIZE)
        bags = make_bags(generator, IMAGE, INFO, AT)
        assert [bag.sources[0] for bag in bags] == ["given", "disc"]


def test_the_fingerprint_follows_the_content() -> None:
    def of(score: float) -> str:
        return GivenGenerator({"100": [{"segmentation": SQUARE, "score": score}]}).fingerprint()

    assert of(0.5) == of(0.5)
    assert of(0.5) != of(0.6)


def test_every_error_is_listed_with_its_place() -> None:
    bad: dict[str, Any] = {
        "100": [
            {"segmentation": SQUARE, "score": 1.5},
            {"segmentation": [[1, 2, 3, 4]]},
            {"segmentation": [[1, 2, 3, float("nan"), 5, 6]]},
            {"segmentation": [[1, 2, 1e12, 4, 5, 6]]},
            {"segmentation": {"size": [30, 20], "counts": COMPRESSED["counts"]}},
            {"segmentation": {"size": list(SIZE), "counts": COMPRESSED["counts"][:-1]}},
            {"segmentation": {"size": list(SIZE), "counts": [5, 5]}},
            {"segmentation": {"size": list(SIZE), "counts": "~~~"}},
            {"segmentation": []},
            {},
            7,
        ],
        "999": [{"segmentation": SQUARE}],
        "x/y": [{"segmentation": SQUARE}],
        "101": 3,
    }
    with pytest.raises(InvalidDataset) as caught:
        GivenGenerator(bad, SET)
    places = [issue.pointer for issue in caught.value.issues]
    expected = ["/100/0/score", *[f"/100/{i}/segmentation" for i in range(1, 10)], "/100/10"]
    assert places == [*expected, "/999/0", "/x~1y/0", "/101"]
    assert all(issue.problem and issue.hint for issue in caught.value.issues)


@pytest.mark.parametrize("content", [b"", b"{", b"3", b"\xff", b"[" * 10_000])
def test_a_broken_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "given.json"
    path.write_bytes(content)
    with pytest.raises(InvalidDataset):
        GivenGenerator(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset, match="is not there"):
        GivenGenerator(tmp_path / "no.json")


def test_a_mask_of_another_size_is_found_at_the_image_at_last() -> None:
    segmentation = {"size": [5, 5], "counts": [0, 25]}
    generator = GivenGenerator({"100": [{"segmentation": segmentation}]})
    with pytest.raises(
        InvalidDataset, match=r"for size \[5, 5\], the image has \[20, 30\] \(image 1\)"
    ):
        list(generator.propose(IMAGE, INFO, AT))


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({}, "None"),
        ({"kind": "magic"}, "magic"),
        ({"kind": "hierarchy", "depth": 3}, "depth"),
        ({"kind": "hierarchy", "max_side": 2}, "max_side"),
        ({"kind": "hierarchy", "most": 0}, "most"),
        ({"kind": "hierarchy", "most": "9"}, "most"),
        ({"kind": "hierarchy+prompter", "most": 0}, "most"),
        ({"kind": "sam", "model_type": "vit_x"}, "vit_x"),
        ({"kind": "given"}, "document"),
    ],
)
def test_settings_that_do_not_fit_are_named(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(InvalidConfig, match=word):
        build_generator(settings, SET)


def test_kinds_are_built() -> None:
    assert build_generator({"kind": "hierarchy", "max_side": 320}).name == "hierarchy"
    assert build_generator({"kind": "given", "document": {}}, SET).name == "given"
