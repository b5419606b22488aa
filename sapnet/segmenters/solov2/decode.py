"""Decoding of the head's output to instances at the size of the original image."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sapnet.config.schema import SoloConfig
from sapnet.data.resize import MASK_STRIDE
from sapnet.segmenters.base import Instances
from sapnet.segmenters.solov2.head import SoloOutput
from sapnet.segmenters.solov2.mask_stats import weigh
from sapnet.segmenters.solov2.matrix_nms import decay
from sapnet.segmenters.solov2.resize_to_rle import resize_to_rle
from sapnet.utils.threads import pool

# a mask must cover more pixels at stride 4 than its level's stride after the head's resampling
_LEAST_AREA = (8, 8, 16, 32, 32)


@torch.no_grad()
def decode(
    output: SoloOutput,
    content_sizes: Sequence[tuple[int, int]],
    original_sizes: Sequence[tuple[int, int]],
    config: SoloConfig,
) -> list[Instances]:
    """Instances of each image of a batch.

    Per image: class scores above `score_threshold` that are the greatest of their neighbourhood,
    the best `nms_pre` of them; their masks; scores times the mean probability inside the mask;
    Matrix NMS; at most `max_instances` of score `keep_threshold` or more. Only these are enlarged.
    As published but for two things: the `nms_pre` best are taken before there are masks, not after,
    which bounds the memory; and what lies in the padding is no part of a mask.

    Args:
        content_sizes: (h, w) of each image in the network's input, without the padding, in pixels.
        original_sizes: (h, w) of the images as they were before resizing.
    """
    scores = torch.cat([peaks(level).flatten(2) for level in output.cls_logits], 2)
    least = least_areas(output)
    kernels = output.flat_kernels()
    sizes = zip(content_sizes, original_sizes, strict=True)
    return [
        _decode_image(scores[i].T, kernels[i], output.mask_features[i], least, *pair, config)
        for i, pair in enumerate(sizes)
    ]


def least_areas(output: SoloOutput) -> Tensor:
    """Cells at stride 4 that a mask must have more of, by the grid cell it comes from, (C,)."""
    return torch.cat(
        [
            level.new_full((level.shape[2] * level.shape[3],), area)
            for level, area in zip(output.cls_logits, _LEAST_AREA, strict=True)
        ]
    )


def peaks(cls_logits: Tensor) -> Tensor:
    """Probabilities (B, K, S, S); 0 where the cell above, left or above left has a greater one."""
    probs = cls_logits.float().sigmoid()
    greatest = F.max_pool2d(probs, 2, stride=1, padding=1)[..., :-1, :-1]
    return probs * (greatest == probs)


def _decode_image(
    scores: Tensor,
    kernels: Tensor,
    features: Tensor,
    least_area: Tensor,
    content: tuple[int, int],
    original: tuple[int, int],
    config: SoloConfig,
) -> Instances:
    """Instances of one image.

    Args:
        scores: (C, K) in [0, 1], of all cells.
        kernels: (C, E).
        features: (E, H, W).
        least_area: (C,) of a mask, in cells of the features.
        content: (h, w) of the image in the network's input.
        original: (h, w) of the image.
        config: thresholds and the decay.
    """
    cells, labels = (scores > config.score_threshold).nonzero(as_tuple=True)
    scores = scores[cells, labels]
    best = scores.argsort(descending=True, stable=True)[: config.nms_pre]
    cells, labels, scores = cells[best], labels[best], scores[best]

    height, width = (-(-side // MASK_STRIDE) for side in content)
    features = features[:, :height]  # a view, and flat, however its channels lie in memory
    logits = (kernels[cells] @ features.flatten(1)).float().unflatten(1, features.shape[1:])
    area, inside, overlap = weigh(logits, labels, width, config.mask_threshold)
    scores = scores * inside / area.clamp(min=1)
    big = (area > least_area[cells]).nonzero().squeeze(1)

    decayed = decay(
        overlap[big][:, big],
        labels[big],
        scores[big],
        kernel=config.nms_kernel,
        sigma=config.nms_sigma,
    )
    order = decayed.argsort(descending=True, stable=True)[: config.max_instances]
    order = order[decayed[order] >= config.keep_threshold]
    kept = big[order]
    probs = logits[kept][..., :width].sigmoid().cpu().numpy()
    to_rle = partial(
        resize_to_rle, content=content, original=original, threshold=config.mask_threshold
    )
    drawn = list(pool().map(to_rle, probs))
    rest = [i for i, one in enumerate(drawn) if one is not None]
    rles, boxes = zip(*(one for one in drawn if one is not None), strict=True) if rest else ([], [])
    return Instances(
        labels[kept].cpu().numpy()[rest],
        decayed[order].cpu().numpy()[rest],
        list(rles),
        np.array(boxes, dtype=np.float32).reshape(-1, 4),
    )
