"""The pick and its priors: against sorting, and whatever the order of arrival."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from sapnet.config.schema import MilConfig
from sapnet.data.batch import Batch, ObjectMasks, Selection
from sapnet.data.masks import encode, mask_iou, tight_boxes
from sapnet.data.samples import Sample, make_record
from sapnet.labelers.delivery import overlaps_with_drawn
from sapnet.labelers.sapnet.selection import pick, take, undecided, with_priors, with_vote
from sapnet.types import Bag, ImageInfo, PointAnnotation


def coarse_scores(bags, seed):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(bags.valid.shape, generator=generator) * 3).round() / 3


@pytest.mark.parametrize("seed", range(20))
def test_pick_is_the_head_of_the_ranking(tools, seed):
    bags = tools.make_bags(seed)
    scores = coarse_scores(bags, seed)
    scores[~bags.valid] = 7.0
    for allowed in (bags.valid, bags.allowed(True)):
        expected = [tools.ranking(bags, scores, allowed, n)[0] for n in range(len(bags))]
        assert pick(scores, bags, allowed).tolist() == expected


@pytest.mark.parametrize("seed", range(20))
def test_pick_in_any_order(tools, seed):
    bags = tools.make_bags(seed)
    scores = coarse_scores(bags, seed)
    mixed, order = tools.shuffle(bags, seed)
    again = pick(scores.gather(1, order), mixed, mixed.allowed(True))
    assert take(order, again).tolist() == pick(scores, bags, bags.allowed(True)).tolist()


def test_rounding_noise_is_a_tie(tools):
    """The same features may come out of a batched product with another last bit."""
    bags = tools.make_bags(0, (3,))
    bags.medoid[0] = torch.tensor([0.2, 0.9, 0.5])
    scores = torch.tensor([[0.3 * (1 + 2e-7), 0.3, 0.3 * (1 - 2e-7)]])
    assert pick(scores, bags, bags.valid).tolist() == [1]
    assert pick(torch.tensor([[0.31, 0.3, 0.3]]), bags, bags.valid).tolist() == [0]


def test_pick_of_scores_that_died(tools):
    """All zero: the medoid decides. NaN (found out by the losses): some valid index."""
    bags = tools.make_bags(1, (4,))
    zero = torch.zeros(1, 4)
    assert pick(zero, bags, bags.valid).tolist() == [tools.ranking(bags, zero, bags.valid, 0)[0]]
    assert pick(zero * float("nan"), bags, bags.valid).tolist() == [0]


@pytest.mark.parametrize("seed", range(5))
def test_foreign_proposals_only_where_there_is_no_other(tools, seed):
    bags = tools.make_bags(seed)
    bags.contains_other_point[2] = bags.valid[2]
    allowed = bags.allowed(exclude_foreign=True)
    for n in range(len(bags)):
        clean = [
            bool(v) and not bool(f)
            for v, f in zip(bags.valid[n], bags.contains_other_point[n], strict=True)
        ]
        assert allowed[n].tolist() == (clean if any(clean) else bags.valid[n].tolist())
    assert torch.equal(bags.allowed(exclude_foreign=False), bags.valid)


def test_priors(tools):
    bags = tools.make_bags(6)
    scores = coarse_scores(bags, 6)
    config = MilConfig(
        prior_medoid=2.0,
        prior_confidence=0.5,
        prior_area=0.25,
        prior_contrast=3.0,
        prior_overlap=1.5,
    )
    got = with_priors(scores, bags, config)
    allowed = bags.allowed(True)
    assert bags.contains_other_point.any()
    for n in range(len(bags)):
        inside = [m for m in range(8) if bags.valid[n, m]]
        areas = {m: tools.box_area(bags.boxes[n, m].tolist()) for m in inside}
        priors = {
            m: (
                max(float(bags.medoid[n, m]), 1e-6) ** 2
                * max(float(bags.confidence[n, m]), 1e-6) ** 0.5
                * (areas[m] / max(areas.values())) ** 0.25
                * math.exp(float(bags.contrast[n, m])) ** 3
                * max(float(bags.overlap[n, m]), 1e-3) ** 1.5
            )
            for m in inside
        }
        for m in inside:
            best = max(priors[k] for k in inside if allowed[n, k])
            expected = float(scores[n, m]) * min(priors[m] / best, 1)
            assert float(got[n, m]) == pytest.approx(expected, rel=1e-4)
    assert torch.equal(with_priors(scores, bags, MilConfig()), scores)


def test_high_powers_do_not_end_as_ties(tools):
    """0.1 to the power of 60 is 0 in float32; the best prior of a bag still counts as 1."""
    bags = tools.make_bags(1)
    scores = torch.ones_like(bags.medoid)
    got = with_priors(scores, bags, MilConfig(prior_medoid=60.0)).masked_fill(~bags.valid, 0)
    assert torch.equal(got.max(dim=1).values, torch.ones(len(bags)))


def test_a_teacher_that_says_nothing_changes_nothing(tools):
    bags = tools.make_bags(6)
    silent = replace(
        bags, contrast=torch.zeros_like(bags.contrast), overlap=torch.ones_like(bags.overlap)
    )
    scores = coarse_scores(bags, 6)
    config = MilConfig(prior_contrast=4.0, prior_overlap=4.0)
    assert torch.equal(with_priors(scores, silent, config), scores)
    assert not torch.allclose(with_priors(scores, bags, config), scores)


def test_enriched_bags_are_neutral_where_they_are_new(tools):
    """Scaled boxes (PNPG) have no scores of their own."""
    bags = tools.make_bags(2)
    joined = bags.joined(torch.rand(4, 2, 4), torch.full((4,), 0.5))
    assert torch.equal(joined.contrast[:, :8], bags.contrast)
    assert torch.equal(joined.overlap[:, :8], bags.overlap)
    assert not joined.contrast[:, 8:].any()
    assert (joined.overlap[:, 8:] == 1).all()


def test_undecided_counts_bags_without_a_best(tools):
    bags = tools.make_bags(0, (3, 1, 4, 2))
    scores = torch.tensor([[0.0] * 4, [0.5] * 4, [0.1, 0.1, 0.1, 0.2], [0.3, 0.3, 9.0, 9.0]])
    assert int(undecided(scores, bags.valid)) == 2  # a bag of one is always decided
    assert int(undecided(torch.zeros(0, 1), torch.zeros(0, 1, dtype=torch.bool))) == 0


def test_no_bags(tools):
    none = tools.make_bags(0, ())
    assert pick(none.medoid, none, none.valid).shape == (0,)
    assert with_priors(none.medoid, none, MilConfig(prior_area=1.0)).shape == (0, 1)


def voting(overlaps, exponent=32.0, posterior=((0.5, 0.3, 0.2),), learned=None):
    """The selection of bags of three nested squares, with a vote."""
    squares = np.zeros((3, 12, 12), np.uint8)
    for n, side in enumerate((4, 8, 12)):
        squares[n, :side, :side] = 1
    masks = tuple(encode(square) for square in squares)
    boxes = tight_boxes(masks)
    told = np.float32([0.9, 0.8, 0.7])
    bag = Bag(1, boxes, masks, told, ("a", "b", "c"), mask_iou(masks))
    rows = torch.tensor(posterior)
    before = Selection(rows.argmax(1), rows, torch.full((len(rows),), 0.5), learned)
    drawn = [None if o is None else torch.tensor(o) for o in overlaps]
    return with_vote(before, [bag] * len(rows), drawn, exponent)


def test_a_trained_segmenter_decides():
    got = voting([[0.3, 0.9, 0.6]])
    assert got.index.tolist() == [1]
    assert got.posterior[0, 1] > 0.95
    np.testing.assert_allclose(got.posterior.sum(1), 1, rtol=1e-6)
    assert float(got.expected_iou) > 0.95


def test_one_that_draws_none_of_the_masks_has_no_say():
    got = voting([[0.05, 0.2, 0.1]])
    assert got.index.tolist() == [0]
    np.testing.assert_allclose(got.posterior, [[0.5, 0.3, 0.2]], atol=0.05)


def test_the_vote_against_the_formula():
    power = 8.0 * 0.7**4
    want = np.array([0.5, 0.3, 0.2]) * np.array([0.7, 0.6, 0.5]) ** power
    got = voting([[0.7, 0.6, 0.5]], exponent=8.0)
    np.testing.assert_allclose(got.posterior[0], want / want.sum(), rtol=1e-5)
    best = got.posterior[0] @ torch.tensor([1, 16 / 64, 16 / 144])
    np.testing.assert_allclose(got.expected_iou, [best], rtol=1e-5)


def test_a_vote_does_not_allow_what_was_not():
    got = voting([[0.2, 0.95, 0.3]], posterior=[[0.6, 0.0, 0.4]])
    assert got.index.tolist() in ([0], [2])
    assert got.posterior[0, 1] == 0


def test_objects_without_a_drawing_keep_their_selection():
    rows = [[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]]
    got = voting([None, [0.9, 0.2, 0.2]], posterior=rows)
    assert got.index.tolist() == [0, 0]
    np.testing.assert_allclose(got.posterior[0], rows[0])


def test_learned_scores_count_as_far_as_the_segmenter_draws_the_image():
    learned = torch.tensor([[0.5, 0.1, 0.4], [0.2, 0.2, 0.6]])
    prior = torch.tensor([[0.2, 0.7, 0.1], [0.6, 0.3, 0.1]])
    rows = learned * prior / (learned * prior).sum(1, keepdim=True)
    drawn = [[0.6, 0.5, 0.2], [0.4, 0.1, 0.1]]
    got = voting(drawn, exponent=0.0, posterior=rows.tolist(), learned=learned)
    want = prior * learned ** ((0.6 + 0.4) / 2) ** 4
    np.testing.assert_allclose(got.posterior, want / want.sum(1, keepdim=True), rtol=1e-4)
    blind = voting([None, None], posterior=rows.tolist(), learned=learned)
    np.testing.assert_allclose(blind.posterior, prior / prior.sum(1, keepdim=True), rtol=1e-4)
    assert blind.index.tolist() == [1, 0]


def test_overlaps_are_of_what_is_drawn(tmp_path):
    """Two of three objects are drawn; the input is twice the image and padded."""
    squares = np.zeros((3, 16, 24), np.uint8)
    squares[0, :8, :8] = squares[1, 8:, :8] = squares[2, :8, 8:] = 1
    masks = tuple(encode(square) for square in squares)
    told = np.float32([0.9, 0.8, 0.7])
    bag = Bag(1, tight_boxes(masks), masks, told, ("a", "b", "c"), mask_iou(masks))
    points = [PointAnnotation(n, 1, 1, 4.0, 4.0) for n in range(3)]
    info = ImageInfo(1, "a.png", 24, 16)
    record = make_record(info, tmp_path / "a.png", points, [bag] * 3, {1: 0})
    sample = Sample(record, torch.zeros(3, 32, 48), (2.0, 2.0), flipped=False)
    probs = torch.zeros(3, 16, 16)  # at stride 4 of the padded input, 64 x 64
    probs[0, :4, :4] = 1
    probs[1] = 1
    probs[2, 4:8, :4] = 1
    drawn = ObjectMasks([probs], [torch.tensor([0, 2])])
    batch = Batch([sample], torch.zeros(1, 3, 64, 64))
    first, second, third = overlaps_with_drawn(batch, drawn, stride=4)
    assert second is None
    np.testing.assert_allclose(first, [1, 0, 0], atol=1e-3)
    np.testing.assert_allclose(third, [0, 1, 0], atol=1e-3)
