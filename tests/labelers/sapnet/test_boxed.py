"""Objects with a box: what is known of them stands in for what is estimated of the others."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sapnet.config.methods import METHODS
from sapnet.config.schema import Config, MilConfig
from sapnet.data.masks import decode, encode, mask_iou, tight_boxes
from sapnet.data.samples import Sample, make_record
from sapnet.labelers.delivery import deliver
from sapnet.labelers.rules import RuleLabeler
from sapnet.labelers.sapnet.bag_features import BagCollator, box_fit
from sapnet.labelers.sapnet.positive_negative_sampling import draw_negatives
from sapnet.labelers.sapnet.self_distillation import target
from sapnet.types import Bag, ImageInfo, PointAnnotation

from .test_selector import OF_METHOD, generators, make_branch, make_levels, sizes_of

SIZE = HEIGHT, WIDTH = 24, 40
BOX = (10.0, 6.0, 26.0, 18.0)


def rectangle(left, top, right, bottom):
    mask = np.zeros(SIZE, bool)
    mask[top:bottom, left:right] = True
    return encode(mask)


def bag_of(*masks):
    confidence = np.linspace(0.9, 0.5, len(masks)).astype(np.float32)
    return Bag(1, tight_boxes(masks), masks, confidence, ("",) * len(masks), mask_iou(masks))


BAG = bag_of(
    rectangle(11, 7, 18, 12),
    rectangle(9, 5, 27, 19),
    rectangle(10, 6, 26, 17),
    rectangle(8, 4, 10, 6),
)


def thing(box=BOX, mask=None, id_=1):
    return PointAnnotation(id_, 1, 1, 18.0, 12.0, mask, box, pointed=False)


def boxed(bags, *rows):
    """The bags with a box in some rows, which no proposal has."""
    box, has = bags.box.clone(), bags.boxed.clone()
    for row in rows:
        box[row], has[row] = torch.tensor([7.0, 9, 61, 70]), True
    return replace(bags, box=box, boxed=has)


def test_priors_of_a_box_pixel_by_pixel():
    got = box_fit(BAG, BOX, MilConfig(prior_tight=3.0, prior_inside=0.5))
    for m, rle in enumerate(BAG.masks):
        mask, inside = decode(rle), np.zeros(SIZE, bool)
        inside[6:18, 10:26] = True
        share = max((mask & inside).sum() / mask.sum(), 1e-3)
        rows, columns = np.nonzero(mask & inside)
        tight = 1e-3
        if len(rows):
            tight = np.ptp(rows + 0.0) + 1
            tight = tight * (np.ptp(columns + 0.0) + 1) / (16 * 12)
        assert got[m] == pytest.approx(3 * np.log(tight) + 0.5 * np.log(share), rel=1e-5)
    assert not box_fit(BAG, None, MilConfig()).any()


@pytest.mark.parametrize("flipped", [False, True])
def test_boxes_in_pixels_of_the_input(flipped):
    info = ImageInfo(1, "a.png", WIDTH, HEIGHT)
    known = (thing(), thing(None, id_=2), thing(mask=rectangle(3, 3, 9, 9), id_=3))
    record = make_record(info, Path("a.png"), known, (BAG,) * 3, {1: 0})
    sample = Sample(record, torch.zeros(3, 48, 80), (2.0, 2.0), flipped)
    bags = BagCollator(MilConfig())([sample])
    assert bags.boxed.tolist() == [True, False, False]  # a mask tells more than its box
    left, right = (80 - 52, 80 - 20) if flipped else (20, 52)
    assert bags.box.tolist() == [[left, 12, right, 36], [0] * 4, [0] * 4]
    assert bags.box_fit[0].any()
    assert not bags.box_fit[1:].any()


@pytest.mark.parametrize("method", OF_METHOD)
def test_the_box_is_b_srm_and_others_are_not_touched(tools, method):
    bags, levels = tools.make_bags(3), make_levels(seed=3)
    branch = make_branch(OF_METHOD[method], seed=3)
    plain, got = branch(levels, bags, sizes_of()), branch(levels, boxed(bags, 0, 2), sizes_of())
    assert got.boxes[0].tolist() == got.boxes[2].tolist() == [7, 9, 61, 70]
    for row in (1, 3):
        assert got.selected[row] == plain.selected[row]
        torch.testing.assert_close(got.boxes[row], plain.boxes[row])
        torch.testing.assert_close(got.posterior[row], plain.posterior[row])
    fitting = replace(boxed(bags, 0), box_fit=torch.where(bags.valid, -9.0, 0.0))
    fitting.box_fit[0, 2] = 0
    allowed = replace(fitting, contains_other_point=torch.zeros_like(bags.valid))
    assert branch(levels, allowed, sizes_of()).selected[0] == 2


def test_completeness_is_learned_against_the_box(tools):
    bags, picked = tools.make_bags(4), torch.tensor([2, 0, 7, 1])
    got, plain = target(boxed(bags, 1), picked), target(bags, picked)
    assert torch.equal(got[[0, 2, 3]], plain[[0, 2, 3]])
    expected = 2 * tools.box_iou(bags.boxes[1, 0].tolist(), [7, 9, 61, 70]) - 1
    assert float(got[1, 0]) == pytest.approx(expected, abs=1e-6)


def test_background_is_not_in_the_box(tools):
    config = MilConfig(background_negatives=200, background_iou=0.1, part_negatives=2)
    bags = tools.make_bags(5)
    got = draw_negatives(boxed(bags, 0), torch.full((2, 2), 96), generators(1), config).background
    plain = draw_negatives(bags, torch.full((2, 2), 96), generators(1), config).background
    assert all(tools.box_iou(b, [7, 9, 61, 70]) < 0.1 for i, *b in got.tolist() if i == 0)
    assert 0 < len(got) < len(plain)


@pytest.mark.parametrize("refined", [None, rectangle(5, 5, 24, 17), rectangle(0, 0, 3, 3)])
def test_delivered_masks_are_in_their_box(refined):
    plain = deliver(thing(None), BAG, 1, refined, Config())
    got = deliver(thing(), BAG, 1, refined, Config())
    inside = np.zeros(SIZE, bool)
    inside[6:18, 10:26] = True
    for mask in filter(None, (got.segmentation, got.selected, got.refined)):
        assert not (decode(mask) & ~inside).any()
        assert decode(mask).any()
    assert got.selected == encode(decode(plain.selected) & inside)
    assert (got.refined is None) is (refined is None or not (decode(refined) & inside).any())
    elsewhere = bag_of(rectangle(0, 0, 9, 5))
    assert decode(deliver(thing(), elsewhere, 0, None, Config()).segmentation)[12, 18]
    x, y, w, h = got.bbox
    assert (x >= 10, y >= 6, x + w <= 26, y + h <= 18) == (True,) * 4
    own = thing(mask=rectangle(3, 3, 9, 9))
    assert deliver(own, BAG, 1, None, Config()).segmentation == BAG.masks[1]  # no box counts there


def test_box_rule_by_the_box_and_by_the_bag():
    config = METHODS["box-rule"](Config())
    labeler = RuleLabeler(config)
    info = ImageInfo(1, "a.png", WIDTH, HEIGHT)
    record = make_record(info, Path("a.png"), (thing(), thing(None, id_=2)), (BAG,) * 2, {1: 0})
    sample = Sample(record, torch.zeros(3, HEIGHT, WIDTH), (1.0, 1.0), False)
    bags = labeler.collate([sample])
    batch = type("Batch", (), {"samples": [sample], "images": torch.zeros(1, 3, 64, 64)})()
    got = labeler.select(batch, bags, [], None)
    fit, medoid = box_fit(BAG, BOX, config.mil), bags.medoid[0].numpy()
    assert got.selected[0] == (np.exp(fit) * medoid**2).argmax()
    consensus = RuleLabeler(METHODS["consensus"](Config())).select(batch, bags, [], None)
    assert got.selected[1] == consensus.selected[1]
    assert got.boxes[0].tolist() == list(BOX)
    assert {f.name for f in fields(bags)} >= {"box", "boxed", "box_fit"}
