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
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Losses {"mask", "cls"} of a batch (weights in), and of each image what `instance_probs` gives
    (with graph).

    mask: `dice_weight` × the mean dice loss over the positive cells of the batch. cls: the focal
    loss of all cells, over their number + 1. Only positive cells are predicted. Without a positive
    cell, mask is 0 and still has a graph.

    targets: one per image. masks: one per image, (N_i, h, w) at stride 4, bool or float in [0, 1].
    """
    kernels = output.flat_kernels()
    dice, predicted = [], []
    for i, (target, mask) in enumerate(zip(targets, masks, strict=True)):
        probs = _cell_probs(kernels[i], output.mask_features[i], target)
        dice.append(dice_loss(probs, mask.flatten(1), target.instances))
        predicted.append(_mean_per_instance(probs, target, tuple(mask.shape)))
    num_positive = global_sum(sum(len(target) for target in targets))
    terms = torch.cat(dice or [kernels.flatten().float()])  # of no image: nothing, with a graph
    mask_loss = config.dice_weight * terms.sum() / max(num_positive, 1)
    no_class = torch.zeros(0, dtype=torch.int64, device=kernels.device)
    cls_loss = focal_loss(
        output.flat_cls_logits().flatten(0, 1),
        torch.cat([no_class, *(target.classes for target in targets)]),
        config.focal_gamma,
        config.focal_alpha,
    ) / (num_positive + 1)
    return {"mask": mask_loss, "cls": cls_loss}, predicted


def instance_probs(
    output: SoloOutput, index_in_batch: int, targets: SoloTargets, num_instances: int
) -> Tensor:
    """The masks that the cells of `targets` predict for their instances, in one image of a batch.

    The cells are the annotation's own, so no score decides. Returns (N, h, w) float32 in [0, 1] at
    stride 4: the mean of the probabilities (not logits) of the instance's positive cells; zeros
    where it has none (`SoloTargets.answered` are those that have).
    """
    features = output.mask_features[index_in_batch]
    kernels = output.flat_kernels()[index_in_batch]
    probs = _cell_probs(kernels, features, targets)
    return _mean_per_instance(probs, targets, (num_instances, *features.shape[-2:]))


def _cell_probs(kernels: Tensor, features: Tensor, targets: SoloTargets) -> Tensor:
    """kernels (C, E), features (E, h, w) -> (P, h·w) float32, the positive cells' masks."""
    return (kernels[targets.cells] @ features.flatten(1)).float().sigmoid()


def _mean_per_instance(probs: Tensor, targets: SoloTargets, shape: tuple[int, ...]) -> Tensor:
    ones = probs.new_ones(len(probs))
    count = probs.new_zeros(shape[0]).index_add(0, targets.instances, ones)
    total = probs.new_zeros(shape[0], probs.shape[1]).index_add(0, targets.instances, probs)
    mean = total / count.clamp(min=1)[:, None]
    return mean.reshape(shape)
