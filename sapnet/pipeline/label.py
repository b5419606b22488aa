"""Pseudo-masks from the final weights: M_srm, its refinement, the one delivered and its quality."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torch.nn import functional as F

from sapnet.config.schema import Config
from sapnet.data.masks import decode_all, encode
from sapnet.data.samples import ImageRecord, Sample, load_sample
from sapnet.labelers.affinity.refine import guides_of, polished
from sapnet.labelers.quality import doubts_of
from sapnet.labelers.sapnet.teacher import overlap_of
from sapnet.segmenters.solov2 import Instances, assign, decode, instance_probs
from sapnet.training.model import MASK_STRIDE, Pass, SapNet, mask_grid, quarter_size
from sapnet.types import CONFIRMED, Bag, PointAnnotation, Rle

MOST_ALTERNATIVES, ALIKE = 6, 0.9


@dataclass(frozen=True)
class ImageResult:
    """pseudo_masks: a record an annotation. detections: the segmenter's own, as COCO results
    without category ids ("label" instead)."""

    pseudo_masks: list[dict[str, Any]]
    detections: list[dict[str, Any]]


@dataclass(frozen=True)
class OwnMasks:
    """What SOLOv2 says at each annotation's own cells, of N annotations.

    rows: the R that have cells. probs: (R, h, w) in [0, 1] at stride 4 of the padded input.
    agreement: soft IoU of each with M_srm; seen: its score for the annotation's class, in [0, 1].
    Both are None for those without a cell.
    """

    rows: list[int]
    probs: Tensor
    agreement: list[float | None]
    seen: list[float | None]


@torch.no_grad()
def label_image(model: SapNet, record: ImageRecord, detect_too: bool = True) -> ImageResult:
    """Everything the trained model says of one of its own images; its own detections only where
    they are wanted."""
    sample = load_sample(record, model.config.data)
    result = model([sample])
    selected = result.mil.selected.cpu().numpy()
    belief = result.mil.belief.cpu().numpy()
    own = own_masks(model, sample, result, selected)
    refined = refined_masks(model, sample, result, selected, belief, own)
    certainty = result.mil.certainty.tolist()
    rows = []
    for n, annotation in enumerate(record.annotations):
        index = int(selected[n])
        bag = record.bags[n]
        if annotation.mask is not None:
            rows.append(confirmed(annotation, annotation.mask))
            continue
        row = deliver(annotation, bag, index, refined[n], model.config)
        row["proposal_source"] = bag.sources[index]
        judgement = record.judgements[n] if record.judgements else None
        row["doubts"] |= {
            "certainty": certainty[n],
            "predicted": own.agreement[n],
            "seen": own.seen[n],
            **doubts_of(
                row["segmentation"],
                annotation,
                record.annotations,
                bag,
                index,
                belief[n],
                judgement,
            ),
        }
        row["candidates"] = alternatives(bag, index, belief[n])
        rows.append(row)
    return ImageResult(rows, detect(model, sample, result) if detect_too else [])


def own_masks(model: SapNet, sample: Sample, result: Pass, selected: np.ndarray) -> OwnMasks:
    """The masks and scores that the cells of each annotation's M_srm predict."""
    masks = mask_grid(sample, selected, quarter_size(result.images), MASK_STRIDE)
    targets = assign(masks, result.bags.labels, model.config.solo, model.solo.head.num_classes)
    rows = targets.answered.tolist()
    device = result.images.device
    masks, targets = masks.to(device), targets.to(device)
    probs = instance_probs(result.output, 0, targets, len(selected))
    labels = targets.classes[targets.cells]
    scores = result.output.flat_cls_logits()[0][targets.cells, labels].float()
    best = scores.new_zeros(len(selected))
    best = best.scatter_reduce(0, targets.instances, scores.sigmoid(), "amax")
    agreement: list[float | None] = [None] * len(selected)
    seen: list[float | None] = [None] * len(selected)
    for n in rows:
        agreement[n] = float(overlap_of(probs[n], masks[n][None].to(probs))[0])
        seen[n] = float(best[n])
    return OwnMasks(rows, probs[rows], agreement, seen)


def refined_masks(
    model: SapNet,
    sample: Sample,
    result: Pass,
    selected: np.ndarray,
    belief: np.ndarray,
    own: OwnMasks,
) -> list[Rle | None]:
    """The mask that each annotation's own cells predict, through MLAR, at image size (Eqs 14-25);
    with `output.blend`, the mean of it, M_srm and what the bag expects.

    None where there is nothing to refine, where the result is empty, or where MLAR is off.
    """
    config = model.config
    refined: list[Rle | None] = [None] * len(selected)
    if not config.refine.enabled or not len(selected):
        return refined
    rows = own.rows
    h, w = sample.size
    grid = (-(-h // config.output.stride), -(-w // config.output.stride))
    guide = F.interpolate(sample.image[None].to(own.probs.device), size=grid, mode="area")[0]
    levels = [content(level[0], sample, result, grid) for level in result.features]
    start = content(own.probs, sample, result, grid)
    if config.output.blend:
        start = blended(sample.record.bags, selected, belief, start, rows)
        rows = list(range(len(selected)))
    guides = guides_of(guide, levels, grid, config.refine)
    fine = polished(start, guides, config=config.refine)
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
        masks = decode_all(bag.masks)
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
    config: Config,
) -> dict[str, Any]:
    """Choose between M_srm, the bag's mask `index`, and its refinement; a record as in
    `pseudo_masks.ndjson`.

    Refined is delivered where it agrees with M_srm (IoU at least `output.agreement`) and, with
    `output.consent`, where the rest of the bag agrees with it as much as with M_srm. "doubts" has
    that agreement, None without a refinement; `sapnet.labelers.quality` has the rest, and the
    quality.
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
    return {
        "id": annotation.id,
        "image_id": annotation.image_id,
        "category_id": annotation.category_id,
        "segmentation": mask,
        "bbox": coco_mask.toBbox(mask).tolist(),
        "area": int(coco_mask.area(mask)),
        "source": "refined" if use_refined else "selected",
        "selected": chosen,
        "refined": refined,
        "doubts": {"agreement": agreement},
    }


def confirmed(annotation: PointAnnotation, mask: Rle) -> dict[str, Any]:
    """The record of an annotation whose mask its owner has given: that mask, as it is."""
    return {
        "id": annotation.id,
        "image_id": annotation.image_id,
        "category_id": annotation.category_id,
        "segmentation": mask,
        "bbox": coco_mask.toBbox(mask).tolist(),
        "area": int(coco_mask.area(mask)),
        "quality": 1.0,
        "source": CONFIRMED,
        "selected": mask,
        "refined": None,
        "proposal_source": CONFIRMED,
        "candidates": [],
        "doubts": {},
    }


def alternatives(bag: Bag, index: int, belief: np.ndarray) -> list[dict[str, Any]]:
    """The masks of a bag that might be the object if `index` is not: at most `MOST_ALTERNATIVES`,
    the likeliest first, none like another or like that one (IoU above `ALIKE`).

    belief: (M,) probabilities, M at least the bag's length. "index" counts those that are listed.
    """
    kept = [index]
    for m in np.argsort(-belief[: len(bag)], kind="stable").tolist():
        if len(kept) <= MOST_ALTERNATIVES and bag.overlaps[m, kept].max() <= ALIKE:
            kept.append(m)
    return [
        {"index": place, "segmentation": bag.masks[m], "probability": round(float(belief[m]), 6)}
        for place, m in enumerate(kept[1:])
    ]


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
