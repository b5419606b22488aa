"""Prediction by tiles: an object is found once, whole, wherever tiles cut it."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sapnet.data.masks import decode, encode, moved, tight_box
from sapnet.data.tiles import (
    TrainedSizes,
    parse_tiles,
    predict_large,
    predict_tiled,
    tiles_of,
)
from sapnet.errors import InvalidConfig

Truth = Sequence[tuple[int, np.ndarray]]
Predict = Callable[[np.ndarray], list[dict[str, Any]]]


def painted(size: tuple[int, int], objects: Truth) -> np.ndarray:
    """An image in which each pixel says which object it is of (from 1)."""
    image = np.zeros((*size, 3), np.uint8)
    for number, (_, mask) in enumerate(objects, 1):
        image[mask] = number
    return image


def ideal(objects: Truth, score: float = 0.9) -> Predict:
    """A segmenter that finds whatever it is shown of an object."""

    def predict(tile: np.ndarray) -> list[dict[str, Any]]:
        assert tile.flags.c_contiguous
        shown = [n for n in np.unique(tile[..., 0]) if n]
        masks = [tile[..., 0] == n for n in shown]
        return [
            {
                "category_id": objects[n - 1][0],
                "segmentation": (rle := encode(mask)),
                "bbox": tight_box(rle),
                "score": score * float(mask.sum()) / float(objects[n - 1][1].sum()),
            }
            for n, mask in zip(shown, masks, strict=True)
        ]

    return predict


def box_mask(size: tuple[int, int], x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[y1:y2, x1:x2] = True
    return mask


def check(results: Sequence[dict[str, Any]], objects: Truth) -> None:
    assert len(results) == len(objects)
    assert [r["score"] for r in results] == sorted((r["score"] for r in results), reverse=True)
    left = [(category, mask) for category, mask in objects]
    for result in results:
        found = decode(result["segmentation"])
        place_of = next(i for i, (_, mask) in enumerate(left) if (mask == found).all())
        category, mask = left.pop(place_of)
        assert result["category_id"] == category
        assert result["bbox"] == tight_box(encode(mask))


SIZE = (150, 210)


@pytest.mark.parametrize("tile", [(60, 80), (150, 70), (64, 64), (200, 300)])
def test_each_object_once_and_whole(tile: tuple[int, int]) -> None:
    """Within one tile, on borders and corners of several, larger than what two tiles share, larger
    than a tile, at the image's border, and of different classes beside each other.
    """
    objects = [
        (1, box_mask(SIZE, 4, 5, 20, 22)),
        (1, box_mask(SIZE, 55, 40, 75, 66)),
        (2, box_mask(SIZE, 76, 40, 90, 66)),
        (1, box_mask(SIZE, 100, 2, 108, 148)),
        (1, box_mask(SIZE, 112, 70, 208, 78)),
        (2, box_mask(SIZE, 190, 120, 210, 150)),
        (1, box_mask(SIZE, 30, 80, 70, 130)),
    ]
    check(predict_tiled(painted(SIZE, objects), ideal(objects), tile), objects)


@given(data=st.data())
def test_wherever_objects_lie(data: st.DataObject) -> None:
    objects: list[tuple[int, np.ndarray]] = []
    taken = np.zeros(SIZE, bool)
    for _ in range(data.draw(st.integers(1, 5))):
        x, y = data.draw(st.integers(0, SIZE[1] - 9)), data.draw(st.integers(0, SIZE[0] - 9))
        w, h = data.draw(st.integers(8, 90)), data.draw(st.integers(8, 90))
        mask = box_mask(SIZE, x, y, min(x + w, SIZE[1]), min(y + h, SIZE[0]))
        if not (taken & mask).any():
            taken |= mask
            objects.append((data.draw(st.sampled_from([3, 8])), mask))
    check(predict_tiled(painted(SIZE, objects), ideal(objects), (64, 64)), objects)


def test_what_a_tile_cuts_and_another_denies_is_left_out() -> None:
    """A part at a tile's border, which the next tile shows well within, and finds nothing."""
    size, calls = (64, 112), iter(range(9))

    def predict(tile: np.ndarray) -> list[dict[str, Any]]:
        rle = encode(box_mask((64, 64), 50, 20, 64, 40))
        seen = {"category_id": 1, "segmentation": rle, "bbox": tight_box(rle), "score": 0.5}
        return [seen] if next(calls) == 0 else []

    assert [box[0] for box in tiles_of(size, (64, 64))] == [0, 48]
    assert predict_tiled(np.zeros((*size, 3), np.uint8), predict, (64, 64)) == []


def test_no_image_is_too_small_and_nothing_may_be_found() -> None:
    assert predict_tiled(np.zeros((1, 1, 3), np.uint8), lambda tile: [], (64, 64)) == []


@given(side=st.integers(1, 400), tile=st.integers(1, 120))
def test_tiles_cover_the_image_and_share_a_quarter(side: int, tile: int) -> None:
    spans = [(y1, y2) for _, y1, _, y2 in tiles_of((side, 1), (tile, 1))]
    assert spans[0][0] == 0
    assert spans[-1][1] == side
    assert all(y2 - y1 == min(side, tile) for y1, y2 in spans)
    for (_, end), (start, _) in itertools.pairwise(spans):
        assert end - start >= min(tile // 4, tile - 1) - 1


@given(data=st.data())
def test_a_mask_of_a_part_of_an_image(data: st.DataObject) -> None:
    h, w = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    bits = data.draw(st.lists(st.booleans(), min_size=h * w, max_size=h * w))
    part = np.array(bits).reshape(h, w)
    top, left = data.draw(st.integers(0, 3)), data.draw(st.integers(0, 3))
    size = top + h + data.draw(st.integers(0, 3)), left + w + data.draw(st.integers(0, 3))
    whole = np.zeros(size, bool)
    whole[top : top + h, left : left + w] = part
    assert moved(encode(part), top, left, size) == encode(whole)


def test_which_images_are_cut() -> None:
    sizes = TrainedSizes.of([(100, 120), (80, 200), (90, 110)])
    assert TrainedSizes.from_meta({"image_sizes": sizes.to_meta()}) == sizes
    assert sizes.tile_for((400, 400)) is None
    assert sizes.tile_for((401, 20)) == (90, 120)
    assert (sizes.tiles_for((400, 400)), sizes.tiles_for((20, 401))) == (1, 5)
    image, meta = np.zeros((30, 410, 3), np.uint8), {"image_sizes": sizes.to_meta()}
    widths: list[int] = []

    def predict(tile: np.ndarray) -> list[dict[str, Any]]:
        widths.append(tile.shape[1])
        return []

    for tiles, of in (("auto", meta), ("auto", {}), ("off", meta), (205, {})):
        widths.append(0)
        predict_large(image, predict, tiles, of)  # type: ignore[arg-type]
    assert widths == [0, *[120] * 5, 0, 410, 0, 410, 0, 205, 205, 205]


@pytest.mark.parametrize(
    "sizes",
    [None, 3, {}, {"median": [1], "longest": 9}, {"median": [9, 9], "longest": 3},
     {"median": [0, 9], "longest": 9}, {"median": ["a", 9], "longest": 9}],
)  # fmt: skip
def test_descriptions_without_sizes(sizes: Any) -> None:
    assert TrainedSizes.from_meta({"image_sizes": sizes}) is None


@pytest.mark.parametrize("text", ["", "on", "63", "-64", "6.4e3", "٦٤٠"])
def test_what_is_no_choice_of_tiles(text: str) -> None:
    with pytest.raises(InvalidConfig, match="auto, off"):
        parse_tiles(text)
    assert (parse_tiles("off"), parse_tiles("512")) == ("off", 512)
