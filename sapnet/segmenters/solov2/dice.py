"""Dice loss with squared terms (Milletari et al. 2016, as SOLOv2 uses it)."""

from torch import Tensor


def dice_loss(
    probs: Tensor,
    targets: Tensor,
    target_of: Tensor,
    eps: float = 1e-3,
    *,
    weights: Tensor | None = None,
) -> Tensor:
    """1 - 2 Σpt / (Σp² + Σt²) of each prediction against the target it belongs to.

    Several predictions may share a target. It is not copied for each: all products are one matrix
    product, N / E times the cost of the one that made the predictions from kernels of size E.

    Args:
        probs: (P, L) in [0, 1].
        targets: (N, L) bool, or float in [0, 1].
        target_of: (P,) int64, a row of `targets` for each prediction.
        eps: added to each of the two squared sums.
        weights: (N, L) in [0, 1], multiply p and t before all three sums; 0 where the target is not
            known.

    Returns:
        (P,) float32 in [0, 1].
    """
    probs, targets = probs.float(), targets.float()  # sums of 1e5 terms
    if weights is not None:
        squared = weights.float().square()
        overlap = (probs @ (squared * targets).T).gather(1, target_of[:, None]).squeeze(1)
        predicted = (probs.square() @ squared.T).gather(1, target_of[:, None]).squeeze(1)
        sizes = predicted + eps + ((squared * targets.square()).sum(1) + eps)[target_of]
        return 1 - 2 * overlap / sizes
    overlap = (probs @ targets.T).gather(1, target_of[:, None]).squeeze(1)
    sizes = probs.square().sum(1) + eps + (targets.square().sum(1) + eps)[target_of]
    return 1 - 2 * overlap / sizes
