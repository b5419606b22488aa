"""What is refined: M_srm, with each draft as far as it agrees with it; and what is delivered."""

import numpy as np
import pytest
import torch

from sapnet.config.schema import Config, OutputConfig
from sapnet.data.masks import encode, mask_iou, tight_boxes
from sapnet.labelers.delivery import blended, deliver
from sapnet.types import Bag, PointAnnotation

GRID = (48, 56)


def by_area(mask):
    """(96, 112) to (48, 56): the share of each cell."""
    cells = mask.astype(float).reshape(48, 2, 56, 2)
    return torch.from_numpy(cells.mean(axis=(1, 3))).float()


def soft_iou(a, b):
    shared = float((a * b).sum())
    return shared / (float(a.sum()) + float(b.sum()) - shared)


@pytest.fixture
def world(plant):
    return plant(0, count=3)


def test_sure_and_without_a_prediction_it_is_what_was_selected(world):
    selected = np.array([0, 2, 1])
    got = blended(world.record.bags, selected, np.eye(3)[selected], torch.zeros(0, *GRID), [])
    for n, index in enumerate(selected):
        torch.testing.assert_close(got[n], by_area(world.masks[n][index]))


def test_an_empty_prediction_weighs_nothing(world):
    selected, posterior = np.array([0, 0, 0]), np.full((3, 3), 1 / 3)
    bags = world.record.bags
    got = blended(bags, selected, posterior, torch.zeros(3, *GRID), [0, 1, 2])
    torch.testing.assert_close(got, blended(bags, selected, posterior, torch.zeros(0, *GRID), []))


def test_against_the_formula(world):
    """Object 0 has a prediction; the rows of posterior are padded, as those of a batch are."""
    selected = np.array([0, 1, 2])
    posterior = np.array([[0.5, 0.3, 0.2, 0], [0.1, 0.6, 0.3, 0], [0, 0.5, 0.5, 0]], np.float32)
    predicted = torch.rand(1, *GRID, generator=torch.Generator().manual_seed(0))
    got = blended(world.record.bags, selected, posterior, predicted, [0])
    for n, index in enumerate(selected):
        masks = [by_area(mask) for mask in world.masks[n]]
        drafts = [sum(float(w) * mask for w, mask in zip(posterior[n], masks, strict=False))]
        drafts += [predicted[0]] if n == 0 else []
        weights = [soft_iou(draft, masks[index]) for draft in drafts]
        total = masks[index] + sum(w * d for w, d in zip(weights, drafts, strict=True))
        torch.testing.assert_close(got[n], total / (1 + sum(weights)), atol=1e-5, rtol=0)


def test_no_object():
    none = np.zeros(0, np.int64)
    assert blended([], none, np.zeros((0, 0)), torch.zeros(0, 16, 16), []).shape == (0, 16, 16)


def stripe(*columns):
    mask = np.zeros((4, 20), np.uint8)
    mask[:, slice(*columns)] = 1
    return encode(mask)


def bag_of(*masks):
    confidence = np.full(len(masks), 0.5, np.float32)
    return Bag(1, tight_boxes(masks), masks, confidence, ("",) * len(masks), mask_iou(masks))


@pytest.mark.parametrize(("columns", "source"), [((0, 12), "refined"), ((0, 8), "selected")])
@pytest.mark.parametrize("consent", [True, False])
def test_the_bag_consents(columns, source, consent):
    """M_srm is ten columns wide; the others, wider ones, speak for growing, not for shrinking."""
    masks = (stripe(0, 10), stripe(0, 13), stripe(0, 14))
    bag = bag_of(*masks)
    annotation = PointAnnotation(id=1, image_id=1, category_id=1, x=2.0, y=2.0)
    config = Config(output=OutputConfig(consent=consent))
    row = deliver(annotation, bag, 0, stripe(*columns), config)
    assert row.source == (source if consent else "refined")
    assert row.segmentation == (stripe(*columns) if row.source == "refined" else masks[0])
    assert row.selected == masks[0]
    assert row.refined == stripe(*columns)


@pytest.mark.parametrize(
    ("drawn", "source"), [(None, "selected"), (0.4, "selected"), (0.5, "refined")]
)
def test_the_segmenter_has_to_draw_it(drawn, source):
    bag = bag_of(stripe(0, 10), stripe(0, 13))
    annotation = PointAnnotation(id=1, image_id=1, category_id=1, x=2.0, y=2.0)
    config = Config(output=OutputConfig(drawn_agreement=0.5))
    assert deliver(annotation, bag, 0, stripe(0, 12), config, drawn).source == source
    assert deliver(annotation, bag, 0, stripe(0, 12), Config(), drawn).source == "refined"


def test_a_bag_of_one_need_not_consent():
    bag = bag_of(stripe(0, 10))
    annotation = PointAnnotation(id=1, image_id=1, category_id=1, x=2.0, y=2.0)
    config = Config(output=OutputConfig(consent=True))
    assert deliver(annotation, bag, 0, stripe(0, 9), config).source == "refined"
    assert deliver(annotation, bag, 0, stripe(0, 3), config).source == "selected"
    assert deliver(annotation, bag, 0, None, config).source == "selected"
