"""Matrix NMS against the published formula in plain loops."""

import math

import pytest
import torch

from sapnet.segmenters.solov2 import matrix_nms


def loops(masks, labels, scores, kernel, sigma):
    n = len(scores)
    order = sorted(range(n), key=lambda i: (-float(scores[i]), i))
    place = {i: at for at, i in enumerate(order)}

    def iou(i, j):
        return float((masks[i] & masks[j]).sum()) / max(float((masks[i] | masks[j]).sum()), 1)

    def above(i):
        return [k for k in range(n) if place[k] < place[i] and labels[k] == labels[i]]

    def f(x):
        return math.exp(-sigma * x * x) if kernel == "gaussian" else 1 - x

    out = []
    for j in range(n):
        decay = 1.0
        for i in above(j):
            worst = max((iou(k, i) for k in above(i)), default=0.0)
            decay = min(decay, f(iou(i, j)) / max(f(worst), 1e-6))
        out.append(float(scores[j]) * decay)
    return torch.tensor(out)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["gaussian", "linear"])
@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("n", [1, 2, 40])
def test_same_as_loops(make_masks, generator, kernel, classes, n):
    masks = make_masks(n)
    labels = torch.randint(0, classes, (n,), generator=generator)
    scores = torch.rand(n, generator=generator).mul(10).round() / 10  # with ties
    got = matrix_nms(masks, labels, scores, kernel=kernel, sigma=2.0)
    torch.testing.assert_close(got, loops(masks, labels, scores, kernel, 2.0))


def test_nothing_in_nothing_out():
    none = torch.zeros(0)
    assert len(matrix_nms(torch.zeros(0, 4, 4, dtype=torch.bool), none.long(), none)) == 0


def test_a_copy_decays_and_another_class_does_not():
    masks = torch.zeros(3, 4, 4, dtype=torch.bool)
    masks[:, 1:3, 1:3] = True
    got = matrix_nms(masks, torch.tensor([0, 0, 1]), torch.tensor([0.9, 0.8, 0.7]))
    torch.testing.assert_close(got, torch.tensor([0.9, 0.8 * math.exp(-2), 0.7]))


def test_empty_masks_do_no_harm():
    masks = torch.zeros(2, 4, 4, dtype=torch.bool)
    got = matrix_nms(masks, torch.tensor([0, 0]), torch.tensor([0.5, 0.9]))
    assert got.tolist() == pytest.approx([0.5, 0.9])
