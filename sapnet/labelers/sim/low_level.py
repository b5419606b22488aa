"""What a box and the image's own colours say of a mask (BoxInst, Tian et al. 2021)."""

import numpy as np
import torch
import torch.nn.functional as F
from skimage.color import rgb2lab
from torch import Tensor

from sapnet.data.resize import MASK_STRIDE
from sapnet.data.samples import IMAGE_MEAN, IMAGE_STD

EPS = 1e-6


def projection_loss(probs: Tensor, boxes: Tensor) -> Tensor:
    """L_proj of each mask, (N,): D(max_x m, max_x b) + D(max_y m, max_y b).

    Args:
        probs: (N, h, w) in [0, 1], m.
        boxes: (N, h, w) bool, the filled box b.
    """
    filled = boxes.float()
    rows = _dice(probs.amax(2), filled.amax(2))
    columns = _dice(probs.amax(1), filled.amax(1))
    return rows + columns


def _dice(a: Tensor, b: Tensor, eps: float = 1e-3) -> Tensor:
    """1 - 2 Σab / (Σa² + Σb²) of rows (N, L), (N,)."""
    return 1 - 2 * (a * b).sum(1) / (a.square().sum(1) + b.square().sum(1) + 2 * eps)


def color_edges(image: Tensor, size: tuple[int, int], dilation: int, least: float) -> Tensor:
    """Which neighbours of each cell look alike, (4, h, w) bool.

    The neighbours are those to the right, below, below right and below left, `dilation` cells
    away; two cells look alike where exp(−‖Lab_i − Lab_j‖ / 2) is at least `least`.

    Args:
        image: (3, H, W) ImageNet-normalised, padded; on any device.
        size: (H, W) of the image itself, without padding.
        dilation: in cells at stride 4.
        least: in (0, 1].
    """
    h, w = (-(-side // MASK_STRIDE) for side in size)
    small = F.interpolate(image[None, :, : size[0], : size[1]].cpu(), size=(h, w), mode="area")[0]
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGE_MEAN, IMAGE_STD))
    rgb = (small * std + mean).clamp(0, 1).permute(1, 2, 0).numpy()
    lab = torch.from_numpy(np.ascontiguousarray(rgb2lab(rgb), dtype=np.float32)).permute(2, 0, 1)
    grid = image.shape[1] // MASK_STRIDE, image.shape[2] // MASK_STRIDE
    frame = torch.full((3, *grid), float("inf"))
    frame[:, :h, :w] = lab
    apart = torch.stack([(frame - other).norm(dim=0) for other in shifts(frame, dilation)])
    return (-apart / 2).exp().nan_to_num(0.0) >= least


def shifts(maps: Tensor, dilation: int, fill: float = float("inf")) -> Tensor:
    """Maps (..., h, w) as each of the four neighbours of `color_edges` has them, (4, ..., h, w).

    What lies beyond the border is `fill`.
    """
    d = dilation
    h, w = maps.shape[-2:]
    wide = F.pad(maps, (d, d, 0, d), value=fill)
    starts = ((0, 2 * d), (d, d), (d, 2 * d), (d, 0))
    return torch.stack([wide[..., y : y + h, x : x + w] for y, x in starts])


def pairwise_loss(probs: Tensor, boxes: Tensor, edges: Tensor, dilation: int) -> Tensor:
    """L_pair of each mask, (N,): −log(m_i m_j + (1 − m_i)(1 − m_j)), mean over its edges.

    Its edges are those between cells that look alike of which one at least lies in its box; of no
    edge it is 0.

    Args:
        probs: (N, h, w) in [0, 1], m.
        boxes: (N, h, w) bool, the filled box.
        edges: (4, h, w) bool, see `color_edges`.
        dilation: of these.
    """
    other, beside = shifts(probs, dilation, 0.0), shifts(boxes.float(), dilation, 0.0) > 0
    same = probs * other + (1 - probs) * (1 - other)
    counted = (boxes | beside) & edges[:, None]
    terms = -same.clamp(min=EPS).log() * counted
    return terms.sum((0, 2, 3)) / counted.sum((0, 2, 3)).clamp(min=1)
