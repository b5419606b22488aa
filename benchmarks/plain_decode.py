"""SOLOv2's post-processing in the order in which papers and common code document it.

The peer in `make bench`, and the oracle of the tests: whole masks at every step, as plain torch.
"""

import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask
from torch import Tensor

from sapnet.config.schema import SoloConfig
from sapnet.segmenters.solov2 import SoloOutput
from sapnet.types import Rle

STRIDES = (8, 8, 16, 32, 32)


@torch.no_grad()
def plain_decode(
    output: SoloOutput, content: tuple[int, int], original: tuple[int, int], config: SoloConfig
) -> tuple[list[int], list[float], list[Rle]]:
    """Labels, scores, and masks at the original size of the first image, by falling score.

    Points NMS, threshold, dynamic convolution, masks, those too small for their level removed,
    scores times the mean probability inside, the best `nms_pre`, Matrix NMS, the best
    `max_instances`; these doubled twice to the input's size, cut to the content, resized to the
    original, thresholded, encoded. content, original: (h, w).
    """
    scores, kernels, strides = _candidates(output)
    keep = scores > config.score_threshold
    cells, labels = keep.nonzero(as_tuple=True)
    if not len(cells):
        return [], [], []
    scores, kernels, strides = scores[keep], kernels[cells], strides[cells]
    height, width = (-(-side // 4) for side in content)
    features = output.mask_features[:1, :, :height, :width].contiguous()
    probs = F.conv2d(features, kernels[:, :, None, None])[0].sigmoid()
    masks = probs > config.mask_threshold
    areas = masks.sum((1, 2)).float()

    keep = areas > strides
    masks, probs, areas = masks[keep], probs[keep], areas[keep]
    scores, labels = scores[keep], labels[keep]
    scores = scores * (probs * masks.float()).sum((1, 2)) / areas

    best = scores.argsort(descending=True, stable=True)[: config.nms_pre]
    masks, probs, areas = masks[best], probs[best], areas[best]
    scores, labels = scores[best], labels[best]
    if not len(best):
        return [], [], []
    scores = _matrix_nms(masks, areas, labels, scores, config.nms_sigma)

    keep = scores >= config.keep_threshold
    probs, scores, labels = probs[keep], scores[keep], labels[keep]
    best = scores.argsort(descending=True, stable=True)[: config.max_instances]
    probs, scores, labels = probs[best], scores[best], labels[best]
    if not len(scores):
        return [], [], []
    whole = F.interpolate(probs[None], scale_factor=4, mode="bilinear")
    whole = whole[..., : content[0], : content[1]]
    whole = F.interpolate(whole, size=original, mode="bilinear")[0]
    found = (whole > config.mask_threshold).numpy().astype("uint8")
    rles = [coco_mask.encode(mask.copy(order="F")) for mask in found]
    rles = [{"size": list(original), "counts": rle["counts"].decode("ascii")} for rle in rles]
    return labels.tolist(), scores.tolist(), rles


def _candidates(output: SoloOutput) -> tuple[Tensor, Tensor, Tensor]:
    """Of all cells: scores (C, K) after points NMS, kernels (C, E), strides (C,)."""
    scores, kernels, strides = [], [], []
    for logits, kernel, stride in zip(output.cls_logits, output.kernels, STRIDES, strict=True):
        probs = logits[:1].sigmoid()
        peak = F.max_pool2d(probs, 2, stride=1, padding=1)[..., :-1, :-1] == probs
        scores.append((probs * peak)[0].flatten(1).T)
        kernels.append(kernel[0].flatten(1).T)
        strides += [stride] * kernels[-1].shape[0]
    return torch.cat(scores), torch.cat(kernels), torch.tensor(strides, dtype=torch.float32)


def _matrix_nms(
    masks: Tensor, areas: Tensor, labels: Tensor, scores: Tensor, sigma: float
) -> Tensor:
    """SOLOv2, section 3.4, the Gaussian kernel; masks by falling score."""
    flat = masks.flatten(1).float()
    shared = flat @ flat.T
    total = areas[:, None] + areas
    same = labels[:, None] == labels
    iou = (shared / (total - shared)).triu(1) * same
    worst = iou.amax(0)
    decay = torch.exp(-sigma * iou**2) / torch.exp(-sigma * worst**2)[:, None]
    return scores * decay.amin(0)
