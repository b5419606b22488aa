import math

import numpy as np
import pytest
import torch

from sapnet.proposals.prompter.scene import blank, cell_shares, paste
from sapnet.proposals.prompter.windows import (
    FINE,
    GRID,
    boxes_of,
    bumps,
    inside,
    level_of,
    read_points,
    sample,
    sample_pyramid,
)

ORIGIN = torch.tensor([0])


def ramp(height: int, width: int) -> torch.Tensor:
    """(1, 2, height, width): x and y of each cell's centre."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([x, y])[None]


@pytest.mark.parametrize("stride", [1, 4, 16])
def test_a_sampled_ramp_gives_the_places_of_the_cells(stride: int) -> None:
    box = torch.tensor([[40.0, 24.0, 72.0, 56.0]])
    out = sample(ramp(96 // stride + 8, 160 // stride) * stride, stride, ORIGIN, box, 16)
    x = 40 + (torch.arange(16) + 0.5) * 2
    torch.testing.assert_close(out[0, 0], x.expand(16, 16), rtol=0, atol=1e-3)
    torch.testing.assert_close(out[0, 1], (x - 16)[:, None].expand(16, 16), rtol=0, atol=1e-3)


def test_a_shifted_map_is_read_at_its_true_places() -> None:
    """Cells whose receptive fields lie 1.5 pixels further say what is 1.5 pixels further."""
    level = ramp(40, 40) * 4 + 1.5
    out = sample(level, 4, ORIGIN, torch.tensor([[32.0, 32.0, 96.0, 96.0]]), 8, 1.5)
    x = 32 + (torch.arange(8) + 0.5) * 8
    torch.testing.assert_close(out[0, 0], x.expand(8, 8), rtol=0, atol=1e-3)


def test_levels_by_size_and_clamped() -> None:
    sides = torch.tensor([1.0, 127.0, 128.0, 255.0, 256.0, 511.0, 512.0, 1e5])
    assert level_of(sides, 3).tolist() == [0, 0, 0, 0, 1, 1, 2, 2]


def test_windows_of_many_sizes_are_read_in_their_order() -> None:
    levels = [torch.full((2, 1, 64 >> k, 64 >> k), float(k)) for k in range(3)]
    levels[0][1] = 7.0
    boxes = boxes_of(torch.full((4, 2), 128.0), torch.tensor([512.0, 60.0, 300.0, 60.0]))
    images = torch.tensor([0, 0, 1, 1])
    out = sample_pyramid(levels, images, boxes)
    assert out.shape == (4, 1, GRID, GRID)
    assert out[:, 0, GRID // 2, GRID // 2].tolist() == [2.0, 0.0, 1.0, 7.0]


def test_points_are_averaged_for_their_own_window() -> None:
    level = torch.stack([ramp(64, 64)[0] * 4 + 1.5, torch.zeros(2, 64, 64)])
    places = [torch.tensor([[40.0, 60.0], [60.0, 100.0]]), torch.tensor([[8.0, 8.0]])]
    out = read_points([level], torch.tensor([0, 1]), torch.tensor([64.0, 64.0]), places)
    torch.testing.assert_close(out, torch.tensor([[50.0, 80.0], [0.0, 0.0]]), rtol=0, atol=1e-3)


def test_bumps_against_a_plain_loop() -> None:
    boxes = torch.tensor([[0.0, 0.0, 64.0, 64.0], [10.0, -20.0, 138.0, 108.0]])
    places = [torch.tensor([[10.0, 20.0], [12.0, 50.0]]), torch.zeros(0, 2)]
    out = bumps(boxes, places, GRID, (1.0, 5.0))
    assert not out[1].any()
    for k, radius in enumerate((1.0, 5.0)):
        for row, column in ((10, 5), (0, 0), (25, 6)):
            x, y = (column + 0.5) * 2, (row + 0.5) * 2
            near = min(((x - px) ** 2 + (y - py) ** 2) / 4 for px, py in places[0].tolist())
            assert out[0, k, row, column] == pytest.approx(
                math.exp(-near / 2 / radius**2), abs=1e-5
            )


def test_inside_ends_with_the_image() -> None:
    valid = inside(
        torch.tensor([[-32.0, 0.0, 32.0, 64.0]]), ORIGIN, torch.tensor([[40.0, 16.0]]), 32
    )
    assert valid.sum() == 20 * 8
    assert valid[0, :20, 16:24].all()


def bilinear(values: np.ndarray, y: float, x: float) -> float:
    y, x = min(max(y, 0), FINE - 1), min(max(x, 0), FINE - 1)
    i, j = min(int(y), FINE - 2), min(int(x), FINE - 2)
    top = values[i, j] * (1 - x + j) + values[i, j + 1] * (x - j)
    low = values[i + 1, j] * (1 - x + j) + values[i + 1, j + 1] * (x - j)
    return float(top * (1 - y + i) + low * (y - i))


def pasted(logits: np.ndarray, frame: tuple[float, ...], size: tuple[int, int]) -> np.ndarray:
    out = blank(len(logits), size)
    paste(logits, np.array(frame, np.float32), out)
    return out


@pytest.mark.parametrize(
    "frame", [(5.3, 7.1, 45.3, 47.1), (-30, -12.5, 98, 115.5), (50, 20, 61, 31)]
)
def test_paste_against_a_plain_loop(frame: tuple[float, ...]) -> None:
    rng = np.random.default_rng(3)
    coarse = rng.standard_normal((2, 8, 8)).astype(np.float32)
    logits = np.kron(coarse, np.ones((8, 8), np.float32)) + 0.01
    size = 40, 57
    found = pasted(logits, frame, size)
    assert found.shape == (2, *size)
    side = (frame[2] - frame[0]) / FINE
    wanted = np.zeros_like(found)
    sure = np.ones_like(found)
    for k, row, column in np.ndindex(found.shape):
        x, y = column + 0.5, row + 0.5
        within = (
            math.floor(frame[0]) <= column < frame[2] and math.floor(frame[1]) <= row < frame[3]
        )
        value = bilinear(logits[k], (y - frame[1]) / side - 0.5, (x - frame[0]) / side - 0.5)
        wanted[k, row, column] = within and value > 0
        sure[k, row, column] = abs(value) > 1e-4
    assert (found == wanted)[sure].all()


def test_paste_of_nothing_and_beside_the_image() -> None:
    logits = np.full((1, FINE, FINE), -1.0, np.float32)
    assert not pasted(logits, (0, 0, 9, 9), (5, 7)).any()
    assert not pasted(-logits, (50, 50, 60, 60), (5, 7)).any()
    assert pasted(-logits, (-9, -9, 60, 60), (5, 7)).all()


def test_seen_counts_quarters_of_cells() -> None:
    masks = np.zeros((2, 20, 30), bool)
    masks[0, 4:12, 10:20] = True
    masks[1] = True
    cells = cell_shares(masks, np.array([8, 0, 24, 16], np.float32), 8)
    assert cells.shape == (2, 8, 8)
    assert cells[0].sum() * 4 == 80
    assert cells[1].all()
    beyond = cell_shares(masks, np.array([20, 10, 52, 42], np.float32), 8)
    assert beyond[1].sum() * 16 == 10 * 10
