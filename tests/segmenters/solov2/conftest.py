"""Small scenes and outputs shared by the SOLOv2 tests."""

import pytest
import torch

from sapnet.config.schema import SoloConfig
from sapnet.segmenters.solov2 import SoloOutput


@pytest.fixture(autouse=True, scope="package")
def _one_thread():
    """Tests run beside each other: threads of their own would only make them wait."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def small() -> SoloConfig:
    """Grids of 8 to 2 cells and scale ranges for an input of 64 pixels."""
    return SoloConfig(
        num_grids=(8, 6, 4, 3, 2),
        scale_ranges=((1, 16), (8, 24), (16, 32), (24, 48), (40, 2048)),
        channels=32,
        stacked_convs=1,
        mask_channels=16,
        mask_feature_channels=16,
    )


@pytest.fixture
def make_output(small, generator):
    """make_output(B, K, h, w): random logits, kernels and features that take gradients."""

    def make(batch: int, classes: int, height: int = 16, width: int = 16) -> SoloOutput:
        def draw(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator).requires_grad_()

        return SoloOutput(
            [draw(batch, classes, s, s) for s in small.num_grids],
            [draw(batch, 4, s, s) for s in small.num_grids],
            draw(batch, 4, height, width),
        )

    return make


@pytest.fixture
def make_masks(generator):
    """make_masks(n, h, w): random filled ellipses, some cut by the border, as (n, h, w) bool."""

    def make(n: int, height: int = 16, width: int = 16) -> torch.Tensor:
        def draw(low: float, high: float) -> torch.Tensor:
            return torch.rand(n, 1, 1, generator=generator) * (high - low) + low

        y = torch.arange(height)[:, None] + 0.5
        x = torch.arange(width) + 0.5
        dy, dx = (y - draw(0, height)) / draw(0.7, 5), (x - draw(0, width)) / draw(0.7, 5)
        return dy.square() + dx.square() <= 1

    return make
