"""Drawings: what is painted where."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from sapnet.data.drawing import PALETTE, colour, dots, outline, overlay, paint
from sapnet.evaluation.report.gallery import HEIGHT, draw_gallery, to_height
from sapnet.types import Category


def encode(mask):
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode()}


def block(size, top, left, bottom, right):
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    return mask


def test_outline_against_a_loop():
    mask = np.random.default_rng(0).random((9, 12)) < 0.7
    got = outline(mask)
    for y in range(9):
        for x in range(12):
            near = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
            inner = all(0 <= v < 9 and 0 <= u < 12 and mask[v, u] for v, u in near)
            assert got[y, x] == (mask[y, x] and not inner)


def test_paint_touches_the_mask_alone():
    image = np.full((20, 30, 3), 100, np.uint8)
    mask = block((20, 30), 5, 5, 15, 25)
    out = paint(image, [(encode(mask), (200, 0, 50))])
    assert (image == 100).all()
    assert (out[~mask] == 100).all()
    assert (out[outline(mask)] == (200, 0, 50)).all()
    assert out[10, 15].tolist() == [145, 55, 77]  # 0.55 of the ground, 0.45 of the colour
    assert (paint(image, []) == image).all()


def test_dots_at_the_border_and_on_one_pixel():
    image = np.zeros((20, 30, 3), np.uint8)
    out = dots(image, [(0.5, 0.5), (29.5, 19.5)])
    assert out[0, 0].tolist() == [255] * 3
    assert out[19, 29].tolist() == [255] * 3
    assert not out[10, 15].any()
    assert dots(image[:1, :1], [(0.5, 0.5)]).shape == (1, 1, 3)


def test_overlay():
    image = np.full((60, 90, 3), 120, np.uint8)
    mask = block((60, 90), 30, 10, 55, 80)
    result = {
        "category_id": 4,
        "score": 0.5,
        "segmentation": encode(mask),
        "bbox": [10, 30, 70, 25],
    }
    out = overlay(image, [result, {**result, "category_id": 99}], [Category(4, "cell")])
    assert out.shape == image.shape
    assert out.dtype == np.uint8
    assert (out[31:54, 12:78] != 120).any()
    assert (overlay(image, [], []) == image).all()
    tiny = {**result, "segmentation": encode(np.ones((1, 1))), "bbox": [0, 0, 1, 1]}
    assert overlay(image[:1, :1], [tiny], []).shape == (1, 1, 3)


def test_colours_come_round():
    assert colour(0) == colour(len(PALETTE)) == PALETTE[0]


def test_panels_are_of_one_height():
    for size in [(10, 20), (400, 100), (1, 1), (1, 500), (500, 1)]:
        panel = to_height(np.zeros((*size, 3), np.uint8))
        assert panel.shape[0] == HEIGHT
        assert 1 <= panel.shape[1] <= 2 * HEIGHT


def test_a_gallery_of_nothing(tmp_path):
    draw_gallery(tmp_path / "gallery.png", [], [], [])
    assert Image.open(tmp_path / "gallery.png").height > HEIGHT


@pytest.mark.slow
def test_the_runs_gallery_has_a_row_an_image(finished):
    folder = finished.spec.workdir / "result"
    image = Image.open(folder / "gallery.png")
    assert image.height > 4 * HEIGHT
    assert len(json.loads((folder / "report.json").read_text())["seconds"]) == 5
