"""Areas, sums and overlaps of many masks, as bits and as floats, against plain sums."""

import math

import pytest
import torch

from sapnet.segmenters.solov2.mask_stats import _weigh_bits, _weigh_floats, weigh


@pytest.mark.parametrize("threshold", [0.2, 0.5])
@pytest.mark.parametrize(
    ("n", "size", "width"), [(0, (3, 5), 5), (1, (1, 1), 1), (7, (9, 70), 66), (30, (20, 128), 128)]
)
def test_same_as_plain_sums(generator, n, size, width, threshold):
    logits = torch.randn(n, *size, generator=generator)
    logits[::3] -= 9  # masks of nothing, and rows of nothing
    logits[1::3, : size[0] // 2] -= 9
    labels = torch.arange(n) % 2
    area, inside, overlap = weigh(logits, labels, width, threshold)
    probs = logits[..., :width].sigmoid()
    masks = probs > threshold
    assert torch.equal(area, masks.sum((1, 2)))
    torch.testing.assert_close(inside, torch.where(masks, probs, 0).sum((1, 2)))
    for i in range(n):
        for j in range(n):
            if labels[i] == labels[j]:
                assert overlap[i, j] == (masks[i] & masks[j]).sum()


def test_a_gpu_would_say_the_same(generator):
    logits = torch.randn(12, 10, 40, generator=generator)
    limit = math.log(0.3 / 0.7)
    labels = torch.zeros(12, dtype=torch.int64)
    for bits, floats in zip(
        _weigh_bits(logits, labels, 37, limit), _weigh_floats(logits, 37, limit), strict=True
    ):
        torch.testing.assert_close(bits, floats)
