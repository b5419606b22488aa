"""SOLOv2's two losses, and the masks that an instance's own cells predict."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sapnet.config.schema import SoloConfig
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
        dice.append(term if weights is None else term * weights[i][target.instances])
        predicted.append(_mean_per_instance(probs, target, tuple(mask.shape)))
    terms = torch.cat(dice or [kernels.flatten().float()])  # of no image: nothing, with a graph
    no_class = torch.zeros(0, dtype=torch.int64, device=kernels.device)
    classes = torch.cat([no_class, *(target.classes for target in targets)])
    cells = None if weights is None else _cell_weights(targets, weights)
    cls_sum = focal_loss(
        output.flat_cls_logits().flatten(0, 1),
        classes,
        config.focal_gamma,
        config.focal_alpha,
        weights=cells,
    )
    if weights is None:
        num_positive = global_sum(sum(len(target) for target in targets))
        mask_loss = config.dice_weight * terms.sum() / max(num_positive, 1)
        return {"mask": mask_loss, "cls": cls_sum / (num_positive + 1)}, predicted
    counted = [w[target.instances].sum() for target, w in zip(targets, weights, strict=True)]
    total = global_sum(torch.stack([terms.new_zeros(()), *counted]).sum())
    mask_loss = config.dice_weight * terms.sum() / total.clamp(min=1)
    return {"mask": mask_loss, "cls": cls_sum / (total + 1)}, predicted


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
    return (kernels[targets.cells] @ features.flatten(1)).float().sigmoid()


def _mean_per_instance(probs: Tensor, targets: SoloTargets, shape: tuple[int, ...]) -> Tensor:
    ones = probs.new_ones(len(probs))
    count = probs.new_zeros(shape[0]).index_add(0, targets.instances, ones)
    total = probs.new_zeros(shape[0], probs.shape[1]).index_add(0, targets.instances, probs)
    mean = total / count.clamp(min=1)[:, None]
    return mean.reshape(shape)
