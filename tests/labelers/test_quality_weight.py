"""Objects count in the segmenter's losses by the quality of their masks, where asked for."""

import numpy as np
import pytest
import torch

from sapnet.config.resolve import resolve_config
from sapnet.data.batch import make_batch
from sapnet.data.masks import encode
from sapnet.data.samples import Sample, make_record
from sapnet.labelers.rules import RuleLabeler
from sapnet.proposals.bags import bag_of
from sapnet.types import CONFIRMED, ImageInfo, PointAnnotation


def square(x, size):
    mask = np.zeros((64, 64), np.uint8)
    mask[8 : 8 + size, x : x + size] = 1
    return encode(mask)


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    """Two objects of two proposals each, and one that its owner confirmed."""
    points = [PointAnnotation(n, 1, 1, 20.0 * n + 5, 12.0) for n in range(3)]
    bags = [
        bag_of(0, [square(0, 12), square(2, 8)], np.array([0.9, 0.5], np.float32), ["a", "b"]),
        bag_of(1, [square(20, 12), square(22, 8)], np.array([0.4, 0.3], np.float32), ["a", "b"]),
        bag_of(2, [square(40, 12)], np.ones(1, np.float32), [CONFIRMED]),
    ]
    record = make_record(ImageInfo(1, "1.png", 64, 64), "1.png", points, bags, {1: 0})
    sample = Sample(record, torch.zeros(3, 64, 64), (1.0, 1.0), False)
    return make_batch([sample], torch.device("cpu"))


@pytest.mark.parametrize(("power", "expected"), [(1.0, [0.9, 0.4, 1]), (2.0, [0.81, 0.16, 1])])
def test_an_object_counts_by_the_quality_of_its_mask(batch, power, expected):
    config = resolve_config("sam-top1", overrides={"mil.quality_weight": power})
    (weights,) = RuleLabeler(config)(batch, [], None).weights
    assert weights.tolist() == pytest.approx(expected)


def test_all_count_alike_by_default(batch):
    assert RuleLabeler(resolve_config("sam-top1"))(batch, [], None).weights is None
