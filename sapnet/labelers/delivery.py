"""Delivered masks: refinement of a selected proposal, and the choice between the two."""

from collections.abc import Sequence

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torch.nn import functional as F

from sapnet.config.schema import Config
from sapnet.data.batch import Batch, ObjectMasks, Selection
from sapnet.data.box_masks import cut_to, ellipse_mask
from sapnet.data.masks import area, decode_all, encode, tight_box
from sapnet.labelers.affinity.refine import affinity_guides, refine_repeatedly
from sapnet.labelers.sapnet.teacher import overlap_of
from sapnet.types import CONFIRMED, Alternative, Bag, PointAnnotation, PseudoMask, Rle

MOST_ALTERNATIVES, ALIKE = 6, 0.9


def refined_masks(
    batch: Batch,
    features: list[Tensor],
    selection: Selection,
    rows: list[int],
    probs: Tensor,
    config: Config,
) -> list[Rle | None]:
    """The segmenter's masks of each annotation of an image, refined by MLAR (Eqs 14-25).

    With `output.blend`, what is refined is the mean of it, M_srm and the mask that the bag expects.

    Args:
        batch: of one image.
        features: its pyramid.
        selection: over the bags of the image.
        rows: the annotations that there is a mask of.
        probs: (N, h, w) in [0, 1] at stride 4 of the padded input, what the segmenter draws.
        config: of the run.

    Returns:
        N RLEs at image size; None where there is nothing to refine, where the result is empty, or
        where MLAR is off.
    """
    (sample,) = batch.samples
    selected = selection.index.tolist()
    refined: list[Rle | None] = [None] * len(selected)
    if not config.refine.enabled or not len(selected):
        return refined
    h, w = sample.size
    grid = (-(-h // config.output.stride), -(-w // config.output.stride))
    guide = F.interpolate(sample.image[None].to(probs.device), size=grid, mode="area")[0]
    levels = [content(level[0], batch, grid) for level in features]
    start = content(probs[rows], batch, grid)
    if config.output.blend:
        posterior = selection.posterior.cpu().numpy()
        start = blended(sample.record.bags, selected, posterior, start, rows)
        rows = list(range(len(selected)))
    guides = affinity_guides(guide, levels, grid, config.refine)
    fine = refine_repeatedly(start, guides, config=config.refine)
    for row, mask in zip(rows, fine, strict=True):
        refined[row] = at_image_size(mask, sample.record.info.size, config.output.mask_threshold)
    return refined


def overlaps_with_drawn(batch: Batch, objects: ObjectMasks, stride: int) -> list[Tensor | None]:
    """Soft IoU of each mask of each bag with what the segmenter draws of the object.

    Args:
        batch: of one image.
        objects: of the segmenter.
        stride: pixels of the input a cell of the grid on which they are compared.

    Returns:
        N of (M,), on the CPU; None where the segmenter draws nothing.
    """
    (sample,) = batch.samples
    height, width = sample.size
    grid = (-(-height // stride), -(-width // stride))
    rows = objects.drawn[0].tolist()
    out: list[Tensor | None] = [None] * len(sample.record.bags)
    drawn = content(objects.probs[0][rows], batch, grid).cpu()
    for row, probs in zip(rows, drawn, strict=True):
        masks = decode_all(sample.record.bags[row].masks).transpose(2, 0, 1).astype(np.float32)
        shares = F.interpolate(torch.from_numpy(masks)[None], size=grid, mode="area")[0]
        out[row] = overlap_of(probs, shares)
    return out


def at_image_size(mask: Tensor, size: tuple[int, int], threshold: float) -> Rle | None:
    """A soft mask (h, w) in [0, 1], resized to the image and thresholded; None where empty."""
    full = F.interpolate(mask[None, None], size=size, mode="bilinear")[0, 0]
    binary = (full >= threshold).cpu().numpy().astype(np.uint8)
    return encode(binary) if binary.any() else None


def blended(
    bags: Sequence[Bag],
    selected: Sequence[int],
    posterior: np.ndarray,
    predicted: Tensor,
    rows: list[int],
) -> Tensor:
    """The weighted mean of M_srm, the mask that its bag expects and what the segmenter draws.

    The latter two each weigh as much as they agree with M_srm (soft IoU), M_srm itself weighs 1.

    Args:
        bags: of the N annotations of one image.
        selected: index into each bag, of M_srm.
        posterior: (N, M), probabilities of the bags' masks; their mean under it is what the bag
            expects.
        predicted: (R, h, w) in [0, 1], of the annotations `rows`.
        rows: the annotations that the segmenter draws.

    Returns:
        (N, h, w) in [0, 1].
    """
    grid = predicted.shape[1:]
    prediction = dict(zip(rows, predicted, strict=True))
    out = predicted.new_zeros(len(bags), *grid)
    for n, (bag, index) in enumerate(zip(bags, selected, strict=True)):
        masks = decode_all(bag.masks)
        pair = np.stack([masks[..., index], masks @ posterior[n, : len(bag)]]).astype(np.float32)
        full = torch.from_numpy(pair).to(predicted)
        chosen, expected = F.interpolate(full[None], size=grid, mode="area")[0]
        drafts = [expected, *([prediction[n]] if n in prediction else [])]
        weights = [overlap_of(draft, chosen[None])[0] for draft in drafts]
        total = chosen + sum(w * d for w, d in zip(weights, drafts, strict=True))
        out[n] = total / (1 + sum(weights))
    return out


def content(maps: Tensor, batch: Batch, grid: tuple[int, int]) -> Tensor:
    """Maps (N, h, w) of one image's padded input, resampled to `grid` over its own part of it."""
    if len(maps) == 0:
        return maps.new_zeros(0, *grid)
    (sample,) = batch.samples
    height, width = batch.images.shape[-2:]
    padded = (round(grid[0] * height / sample.size[0]), round(grid[1] * width / sample.size[1]))
    resized = F.interpolate(maps[None], size=padded, mode="bilinear")[0]
    return resized[:, : grid[0], : grid[1]].contiguous()


def deliver(
    annotation: PointAnnotation,
    bag: Bag,
    index: int,
    refined: Rle | None,
    config: Config,
    drawn: float | None = None,
) -> PseudoMask:
    """Choose between M_srm, the bag's mask `index`, and its refinement, cut to the object's box.

    Refined is delivered where it agrees with M_srm (IoU at least `output.agreement`) and, with
    `output.consent`, or a box, where the rest of the bag agrees with it as much as with M_srm, and
    where what the segmenter draws agrees with M_srm (`output.drawn_agreement`). The one mask
    feature is the agreement of both masks, None without a refinement.

    Args:
        annotation: whose mask it is.
        bag: its proposals.
        index: of M_srm.
        refined: its refinement.
        config: of the run.
        drawn: soft IoU of M_srm and what the segmenter draws; None where it draws nothing.
    """
    chosen, box = bag.masks[index], annotation.guide
    if box is not None:
        height, width = chosen["size"]
        chosen = cut_to(chosen, box) or ellipse_mask(box, (height, width))
        refined = cut_to(refined, box) if refined is not None else None
    agreement = None
    use_refined = False
    if refined is not None:
        ious = coco_mask.iou([refined, chosen], list(bag.masks), [0] * len(bag))
        agreement = float(ious[0, index])
        support = np.delete(ious, index, axis=1).sum(axis=1)
        use_refined = agreement >= config.output.agreement
        use_refined = use_refined and (drawn or 0.0) >= config.output.drawn_agreement
        if config.output.consent or box is not None:
            use_refined = use_refined and bool(support[0] >= support[1])
    mask = refined if use_refined and refined is not None else chosen
    return PseudoMask(
        id=annotation.id,
        image_id=annotation.image_id,
        category_id=annotation.category_id,
        segmentation=mask,
        bbox=tight_box(mask),
        area=area(mask),
        source="refined" if use_refined else "selected",
        selected=chosen,
        refined=refined,
        mask_features={"agreement": agreement},
        proposal_source=bag.sources[index],
    )


def confirmed(annotation: PointAnnotation, mask: Rle) -> PseudoMask:
    """The pseudo-mask of an annotation whose mask its owner has given: that mask, as it is."""
    return PseudoMask(
        id=annotation.id,
        image_id=annotation.image_id,
        category_id=annotation.category_id,
        segmentation=mask,
        bbox=tight_box(mask),
        area=area(mask),
        source=CONFIRMED,
        selected=mask,
        proposal_source=CONFIRMED,
    )


def alternatives(bag: Bag, index: int, posterior: np.ndarray) -> list[Alternative]:
    """The masks of a bag that might be the object if the mask `index` is not.

    At most `MOST_ALTERNATIVES`, the likeliest first, none like another or like that one (IoU above
    `ALIKE`). The `index` of an alternative counts those that are listed.

    Args:
        bag: the proposals of one annotation.
        index: of the selected mask in the bag.
        posterior: (M,) probabilities, M at least the bag's length.
    """
    kept = [index]
    for m in np.argsort(-posterior[: len(bag)], kind="stable").tolist():
        if len(kept) <= MOST_ALTERNATIVES and bag.overlaps[m, kept].max() <= ALIKE:
            kept.append(m)
    return [
        Alternative(place, bag.masks[m], round(float(posterior[m]), 6))
        for place, m in enumerate(kept[1:])
    ]
