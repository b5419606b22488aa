"""The part of the image around a box in which a mask is refined and its affinity loss counted."""

import torch
from torch import Tensor

MARGIN = 2.0  # pixels: what a small box grows by at least


def box_windows(boxes: Tensor, size: tuple[int, int], dilation: float) -> Tensor:
    """Which pixels have their centre in each dilated box: (N, H, W) bool.

    Args:
        boxes: (N, 4) xyxy in mask pixels.
        size: (H, W).
        dilation: each side moves out by this share of the box's extent (>= 0), and by 2 pixels at
            least.
    """
    height, width = size
    left, top, right, bottom = boxes.detach().float().unbind(-1)
    grow_x = ((right - left) * dilation).clamp_min(MARGIN)
    grow_y = ((bottom - top) * dilation).clamp_min(MARGIN)
    x = torch.arange(width, device=boxes.device) + 0.5
    y = torch.arange(height, device=boxes.device) + 0.5
    columns = (x >= (left - grow_x)[:, None]) & (x <= (right + grow_x)[:, None])
    rows = (y >= (top - grow_y)[:, None]) & (y <= (bottom + grow_y)[:, None])
    return rows[:, :, None] & columns[:, None, :]


def mask_boxes(probs: Tensor) -> Tensor:
    """Tight boxes (N, 4) xyxy of the pixels at 0.5 and above; of the highest ones where none is.

    Args:
        probs: (N, H, W) in [0, 1], H, W >= 1.
    """
    if not len(probs):
        return probs.new_zeros(0, 4)
    inside = probs >= probs.amax((1, 2), keepdim=True).clamp_max(0.5)
    columns, rows = inside.any(1), inside.any(2)

    def ends(line: Tensor) -> tuple[Tensor, Tensor]:
        hits = line.to(torch.uint8)
        return hits.argmax(1), line.shape[1] - hits.flip(1).argmax(1)

    (left, right), (top, bottom) = ends(columns), ends(rows)
    return torch.stack([left, top, right, bottom], 1).to(probs.dtype)
