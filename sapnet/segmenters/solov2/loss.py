"""SOLOv2's two losses, and the masks that an instance's own cells predict."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sapnet.config.schema import SoloConfig
from sapnet.data.batch import Candidates
from sapnet.segmenters.solov2.dice import dice_loss
from sapnet.segmenters.solov2.head import SoloOutput
from sapnet.segmenters.solov2.targets import SoloTargets
from sapnet.utils.distributed import global_sum
from sapnet.utils.losses import focal_loss


def solo_loss(
    output: SoloOutput,
    targets: Sequence[SoloTargets],
    masks: Sequence[Tensor],
    config: SoloConfig,
    *,
    pixel_weights: Sequence[Tensor] | None = None,
    weights: Sequence[Tensor] | None = None,
    further: Sequence[Tensor] | None = None,
    further_weight: float = 0.0,
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Losses of a batch (SOLOv2, Eqs 1-3), and the masks that they were computed from.

    mask: `dice_weight` × the mean dice loss over the positive cells of the batch. cls: the focal
    loss of all cells, over their number + 1. Only positive cells are predicted. Without a positive
    cell, mask is 0 and still has a graph.

    Args:
        output: of the network.
        targets: one per image.
        masks: one per image, (N_i, h, w) at stride 4, bool or float in [0, 1].
        config: of the losses.
        pixel_weights: (N_i, h, w) in [0, 1], see `dice_loss`.
        weights: (N_i,) in [0, 1]: a positive cell counts as much as its instance, in both losses
            and in the number of positive cells, so that one of weight 0 is as if it were not there,
            and its cells are no background either.
        further: (N_i, J, h, w) bool, further masks of each instance; an empty one is left out.
        further_weight: of the mean dice loss against these, beside that against `masks`.

    Returns:
        {"mask", "cls"} with their weights in; and of each image what `instance_probs` gives, with
        graph.
    """
    kernels = output.flat_kernels()
    dice, predicted = [], []
    for i, (target, mask) in enumerate(zip(targets, masks, strict=True)):
        probs = _cell_probs(kernels[i], output.mask_features[i], target)
        weight = None if pixel_weights is None else pixel_weights[i].flatten(1)
        term = dice_loss(probs, mask.flatten(1), target.instances, weights=weight)
        if further is not None:
            term = term + further_weight * _further_dice(probs, further[i], target)
        dice.append(term if weights is None else term * weights[i][target.instances])
        predicted.append(_mean_per_instance(probs, target, tuple(mask.shape)))
    terms = torch.cat(dice or [kernels.flatten().float()])  # of no image: nothing, with a graph
    cls_loss, total = class_loss(output, targets, config, weights)
    least = max(total, 1) if isinstance(total, int) else total.clamp(min=1)
    mask_loss = config.dice_weight * terms.sum() / least
    return {"mask": mask_loss, "cls": cls_loss}, predicted


def class_loss(
    output: SoloOutput,
    targets: Sequence[SoloTargets],
    config: SoloConfig,
    weights: Sequence[Tensor] | None = None,
) -> tuple[Tensor, int | Tensor]:
    """The focal loss of all cells of a batch over the number of positive ones + 1, and that number.

    The arguments are those of `solo_loss`.
    """
    logits = output.flat_cls_logits()
    no_class = torch.zeros(0, dtype=torch.int64, device=logits.device)
    classes = torch.cat([no_class, *(target.classes for target in targets)])
    cells = None if weights is None else _cell_weights(targets, weights)
    cls_sum = focal_loss(
        logits.flatten(0, 1), classes, config.focal_gamma, config.focal_alpha, weights=cells
    )
    if weights is None:
        num_positive = global_sum(sum(len(target) for target in targets))
        return cls_sum / (num_positive + 1), num_positive
    counted = [w[target.instances].sum() for target, w in zip(targets, weights, strict=True)]
    total = global_sum(torch.stack([logits.new_zeros(()).float(), *counted]).sum())
    return cls_sum / (total + 1), total


def cell_candidates(output: SoloOutput, index_in_batch: int, targets: SoloTargets) -> Candidates:
    """What each positive cell of one image of a batch draws."""
    features = output.mask_features[index_in_batch]
    logits = _cell_logits(output.flat_kernels()[index_in_batch], features, targets)
    return Candidates(logits.unflatten(1, features.shape[-2:]), targets.instances)


def candidate_means(candidates: Candidates, num_instances: int, targets: SoloTargets) -> Tensor:
    """What `instance_probs` gives, of candidates that are there already."""
    probs = candidates.logits.sigmoid()
    return _mean_per_instance(probs.flatten(1), targets, (num_instances, *probs.shape[1:]))


def _further_dice(probs: Tensor, masks: Tensor, targets: SoloTargets) -> Tensor:
    """Each cell's mean dice loss against its instance's further masks, (P,); 0 without any."""
    total, count = probs.new_zeros(len(probs)), probs.new_zeros(len(probs))
    for mask in masks.flatten(2).unbind(1):
        there = mask.any(1)[targets.instances]
        total = total + dice_loss(probs, mask, targets.instances) * there
        count = count + there
    return total / count.clamp(min=1)


def instance_probs(
    output: SoloOutput, index_in_batch: int, targets: SoloTargets, num_instances: int
) -> Tensor:
    """The masks that the cells of `targets` predict for their instances, in one image of a batch.

    The cells are the annotation's own, so no score decides.

    Returns:
        (N, h, w) float32 in [0, 1] at stride 4: the mean of the probabilities (not logits) of the
        instance's positive cells; zeros where it has none (`SoloTargets.answered` are those that
        have).
    """
    features = output.mask_features[index_in_batch]
    kernels = output.flat_kernels()[index_in_batch]
    probs = _cell_probs(kernels, features, targets)
    return _mean_per_instance(probs, targets, (num_instances, *features.shape[-2:]))


def _cell_weights(targets: Sequence[SoloTargets], weights: Sequence[Tensor]) -> Tensor:
    """Weights of all cells of all images in order: 1 for background, else the instance's."""
    rows = []
    for target, weight in zip(targets, weights, strict=True):
        cells = weight.new_ones(len(target.classes))
        rows.append(cells.index_copy(0, target.cells, weight[target.instances]))
    return torch.cat(rows) if rows else torch.zeros(0)


def _cell_probs(kernels: Tensor, features: Tensor, targets: SoloTargets) -> Tensor:
    """Masks (P, h·w) float32 of the positive cells, of kernels (C, E) and features (E, h, w)."""
    return _cell_logits(kernels, features, targets).sigmoid()


def _cell_logits(kernels: Tensor, features: Tensor, targets: SoloTargets) -> Tensor:
    return (kernels[targets.cells] @ features.flatten(1)).float()


def _mean_per_instance(probs: Tensor, targets: SoloTargets, shape: tuple[int, ...]) -> Tensor:
    ones = probs.new_ones(len(probs))
    count = probs.new_zeros(shape[0]).index_add(0, targets.instances, ones)
    total = probs.new_zeros(shape[0], probs.shape[1]).index_add(0, targets.instances, probs)
    mean = total / count.clamp(min=1)[:, None]
    return mean.reshape(shape)
