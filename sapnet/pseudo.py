"""Pseudo-masks from the final weights: M_srm, its refinement, the one delivered and its quality."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torch.nn import functional as F

from sapnet.affinity.refine import polished
from sapnet.config import Config
from sapnet.data.loader import ImageRecord, Sample, load_sample
from sapnet.model import MASK_STRIDE, Pass, SapNet, mask_grid, quarter_size
from sapnet.solo import Instances, assign, decode, instance_probs
from sapnet.teacher import overlap_of
from sapnet.types import Bag, PointAnnotation, Rle


@dataclass(frozen=True)
class ImageResult:
    """pseudo_masks: a record an annotation. detections: the segmenter's own, as COCO results
    without category ids ("label" instead)."""

    pseudo_masks: list[dict[str, Any]]
    detections: list[dict[str, Any]]


@torch.no_grad()
def label_image(model: SapNet, record: ImageRecord, detect_too: bool = True) -> ImageResult:
    """Everything the trained model says of one of its own images; its own detections only where
    they are wanted."""
    sample = load_sample(record, model.config.data)
    result = model([sample])
    selected = result.mil.selected.cpu().numpy()
    belief = result.mil.belief.cpu().numpy()
    refined = refined_masks(model, sample, result, selected, belief)
    certainty = result.mil.certainty.tolist()
    rows = []
    for n, annotation in enumerate(record.annotations):
        index = int(selected[n])
        bag = record.bags[n]
        row = deliver(annotation, bag, index, refined[n], certainty[n], model.config)
        row["proposal_source"] = bag.sources[index]
        rows.append(row)
    return ImageResult(rows, detect(model, sample, result) if detect_too else [])


def refined_masks(
    model: SapNet, sample: Sample, result: Pass, selected: np.ndarray, belief: np.ndarray
) -> list[Rle | None]:
    """The mask that each annotation's own cells predict, through MLAR, at image size (Eqs 14-25);
    with `output.blend`, the mean of it, M_srm and what the bag expects.

    None where there is nothing to refine, where the result is empty, or where MLAR is off.
    """
    config = model.config
    refined: list[Rle | None] = [None] * len(selected)
    if not config.refine.enabled or not len(selected):
        return refined
    shape = quarter_size(result.images)
    masks = mask_grid(sample, selected, shape, MASK_STRIDE).to(result.images.device)
    targets = assign(masks, result.bags.labels, config.solo, model.solo.head.num_classes)
    probs, valid = instance_probs(result.output, 0, targets, len(selected))
    rows = valid.nonzero().squeeze(1).tolist()
    h, w = sample.size
    grid = (-(-h // config.output.stride), -(-w // config.output.stride))
    guide = F.interpolate(sample.image[None].to(probs.device), size=grid, mode="area")[0]
    levels = [content(level[0], sample, result, grid) for level in result.features]
    start = content(probs[rows], sample, result, grid)
    if config.output.blend:
        start = blended(sample.record.bags, selected, belief, start, rows)
        rows = list(range(len(selected)))
    fine = polished(start, guide, levels, config=config.refine)
    for row, mask in zip(rows, fine, strict=True):
        refined[row] = at_image_size(mask, sample.record.info.size, config.output.mask_threshold)
    return refined


def at_image_size(mask: Tensor, size: tuple[int, int], threshold: float) -> Rle | None:
    """A soft mask (h, w) in [0, 1], resized to the image and thresholded; None where empty."""
    full = F.interpolate(mask[None, None], size=size, mode="bilinear")[0, 0]
    binary = (full >= threshold).cpu().numpy().astype(np.uint8)
    return encode(binary) if binary.any() else None


def blended(
    bags: Sequence[Bag],
    selected: np.ndarray,
    belief: np.ndarray,
    predicted: Tensor,
    rows: list[int],
) -> Tensor:
    """The mean of M_srm, the mask that its bag expects and what SOLOv2 predicts, (N, h, w): the
    latter two each weigh as much as they agree with M_srm (soft IoU), M_srm itself weighs 1.

    belief: (N, M), probabilities of the bag's masks; their mean under it is what the bag expects.
    predicted: (R, h, w) in [0, 1], of the annotations `rows`.
    """
    grid = predicted.shape[1:]
    prediction = dict(zip(rows, predicted, strict=True))
    out = predicted.new_zeros(len(bags), *grid)
    for n, (bag, index) in enumerate(zip(bags, selected.tolist(), strict=True)):
        masks = coco_mask.decode(list(bag.masks))
        pair = np.stack([masks[..., index], masks @ belief[n, : len(bag)]]).astype(np.float32)
        full = torch.from_numpy(pair).to(predicted)
        chosen, expected = F.interpolate(full[None], size=grid, mode="area")[0]
        drafts = [expected, *([prediction[n]] if n in prediction else [])]
        weights = [overlap_of(draft, chosen[None])[0] for draft in drafts]
        total = chosen + sum(w * d for w, d in zip(weights, drafts, strict=True))
        out[n] = total / (1 + sum(weights))
    return out


def content(maps: Tensor, sample: Sample, result: Pass, grid: tuple[int, int]) -> Tensor:
    """Maps (N, h, w) of the padded input, resampled to `grid` over the image's own part of it."""
    if len(maps) == 0:
        return maps.new_zeros(0, *grid)
    height, width = result.images.shape[-2:]
    padded = (round(grid[0] * height / sample.size[0]), round(grid[1] * width / sample.size[1]))
    resized = F.interpolate(maps[None], size=padded, mode="bilinear")[0]
    return resized[:, : grid[0], : grid[1]].contiguous()


def deliver(
    annotation: PointAnnotation,
    bag: Bag,
    index: int,
    refined: Rle | None,
    certainty: float,
    config: Config,
) -> dict[str, Any]:
    """Choose between M_srm, the bag's mask `index`, and its refinement; a record as in
    `pseudo_masks.ndjson`.

    Refined is delivered where it agrees with M_srm (IoU at least `output.agreement`) and, with
    `output.consent`, where the rest of the bag agrees with it as much as with M_srm. quality, in
    [0, 1]: the mean of that agreement and of the pick's certainty; the certainty alone where
    there is no refinement.
    """
    chosen = bag.masks[index]
    agreement = None
    use_refined = False
    if refined is not None:
        ious = coco_mask.iou([refined, chosen], list(bag.masks), [0] * len(bag))
        agreement = float(ious[0, index])
        support = np.delete(ious, index, axis=1).sum(axis=1)
        use_refined = agreement >= config.output.agreement
        if config.output.consent:
            use_refined = use_refined and bool(support[0] >= support[1])
    mask = refined if use_refined and refined is not None else chosen
    quality = certainty if agreement is None else (certainty + agreement) / 2
    return {
        "id": annotation.id,
        "image_id": annotation.image_id,
        "category_id": annotation.category_id,
        "segmentation": mask,
        "bbox": coco_mask.toBbox(mask).tolist(),
        "area": int(coco_mask.area(mask)),
        "quality": round(min(max(quality, 0.0), 1.0), 6),
        "source": "refined" if use_refined else "selected",
        "selected": chosen,
        "refined": refined,
    }


def detect(model: SapNet, sample: Sample, result: Pass) -> list[dict[str, Any]]:
    """The segmenter's own detections of the image, as COCO results with "label" for the class."""
    sizes = [sample.size], [sample.record.info.size]
    (found,) = decode(result.output, *sizes, model.config.solo)
    return as_results(found)


def as_results(found: Instances) -> list[dict[str, Any]]:
    """`Instances` as COCO results; "label" is 0..K-1."""
    boxes = np.concatenate([found.boxes[:, :2], found.boxes[:, 2:] - found.boxes[:, :2]], axis=1)
    columns = found.labels.tolist(), found.scores.tolist(), found.masks, boxes.tolist()
    return [
        {"label": label, "segmentation": mask, "bbox": box, "score": score}
        for label, score, mask, box in zip(*columns, strict=True)
    ]


def encode(mask: np.ndarray) -> Rle:
    """(H, W) uint8 to compressed RLE with an ASCII string."""
    rle = coco_mask.encode(np.asfortranarray(mask))
    return {"size": [int(v) for v in rle["size"]], "counts": rle["counts"].decode("ascii")}
