"""RoIAlign over a pyramid, a bag of rows, against torchvision's level by level: forward, backward,
at and over the border."""

import pytest
import torch
from torchvision.ops import roi_align as reference

from sapnet.labelers.sapnet.roi_align import Pyramid


def boxes(count, seed=0):
    """Boxes of a 96×64 input, in any of two images: many reach over its border."""
    random = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=random) * torch.tensor([110.0, 80.0]) - 10
    side = torch.rand(count, 2, generator=random) ** 2 * 90
    image = torch.randint(2, (count, 1), generator=random).float()
    return torch.cat([image, corner, corner + side], dim=1)


SPECIAL = torch.tensor(
    [
        [0, 0, 0, 96, 64],  # the whole image
        [1, 10, 10, 10, 10],  # nothing
        [1, 3.5, 7.5, 4.5, 8.5],  # a pixel
        [0, -30, -30, -9, -9],  # outside
        [0, 95, 63, 200, 200],  # nearly
        [1, -3, 60, 4, 67],
    ]
)


@pytest.mark.parametrize("sampling", [1, 2])
@pytest.mark.parametrize("strides", [(4,), (16,), (4, 8, 16)])
@pytest.mark.parametrize("rois", [boxes(40), SPECIAL], ids=["many", "special"])
def test_it_gives_what_torchvision_gives(rois, strides, sampling):
    random = torch.Generator().manual_seed(1)
    levels = [
        torch.randn(2, 5, 64 // s, 96 // s, generator=random, dtype=torch.float64).requires_grad_()
        for s in strides
    ]
    rois, which = rois.double(), torch.arange(len(rois)) % len(strides)
    weight = torch.randn(len(rois), 5, 7, 7, generator=random, dtype=torch.float64)
    expected = weight.new_zeros(len(rois), 5, 7, 7)
    for index, (level, stride) in enumerate(zip(levels, strides, strict=True)):
        mine = which == index
        expected[mine] = reference(level, rois[mine], 7, 1 / stride, sampling, aligned=True)
    gradients = torch.autograd.grad((expected * weight).sum(), levels)
    found = Pyramid(levels, strides).roi_align(rois, which, 7, sampling)
    own = torch.autograd.grad((found * weight).sum(), levels)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=1e-9)
    for mine, theirs in zip(own, gradients, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-9)
    assert expected.abs().sum() > 0


def test_no_box_has_a_graph_all_the_same():
    level = torch.randn(2, 3, 4, 4, requires_grad=True)
    none = torch.zeros(0, dtype=torch.int64)
    found = Pyramid([level], (4,)).roi_align(torch.zeros(0, 5), none, 7, 1)
    assert found.shape == (0, 3, 7, 7)
    found.sum().backward()
    assert level.grad is not None
    assert level.grad.abs().sum() == 0


def test_a_level_of_one_pixel_is_the_same_everywhere():
    level, box = torch.tensor([[[[2.0]]]]), torch.tensor([[0, 10.0, 10.0, 50.0, 50.0]])
    found = Pyramid([level], (64,)).roi_align(box, torch.tensor([0]), 7, 1)
    assert torch.equal(found, torch.full((1, 1, 7, 7), 2.0))
