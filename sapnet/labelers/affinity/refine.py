"""Multi-level affinity refinement (SAPNet++, section 3.3.2): soft masks in, better ones out.

Two terms: pixel (the image) and semantic (the FPN levels, averaged). In each, global affinity over
a spanning tree, then a cascade of local affinity. No gradient flows through any of it.

Two things are added to the paper's equations, because without them refinement made masks worse on
photographs (figures in docs/log.md); `window=None, balance=0` gives the paper's form.

Window: only pixels near the object's box are averaged (the region tau of Eq. 14). Over the whole
image, the background outvotes every object that one weak edge joins to it.
Balance: an average is biased to the larger class. With pi the mask's mean in its window, the odds
of Y are divided by those of pi to the power `balance`: 0 keeps the average, 1 gives both classes
equal say, whatever their areas.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from sapnet.config.schema import RefineConfig
from sapnet.labelers.affinity.crop import box_windows, mask_boxes
from sapnet.labelers.affinity.global_filter import propagate, propagate_torch
from sapnet.labelers.affinity.local_filter import local_affinity
from sapnet.labelers.affinity.tree import AffinityTree, tree_beside


@dataclass(frozen=True, slots=True)
class RefinedMasks:
    """Refined soft masks, each (N, H, W) in [0, 1] without graph; None for a term not asked for."""

    pixel: Tensor | None
    semantic: Tensor | None

    @property
    def terms(self) -> list[Tensor]:
        """The terms that were asked for."""
        return [term for term in (self.pixel, self.semantic) if term is not None]


@dataclass(frozen=True)
class Guide:
    """A map that masks are refined along.

    Attributes:
        values: (C, H, W) float32 without graph.
        tree: gives their tree, which is built on a thread meanwhile; None where there is no global
            step.
    """

    values: Tensor
    tree: Callable[[], AffinityTree] | None


@dataclass(frozen=True)
class Guides:
    """The guides of one image.

    Attributes:
        pixel: of the image itself; None for a term not asked for.
        semantic: of FPN levels, with the level of each.
    """

    pixel: Guide | None
    semantic: list[tuple[int, Guide]]


def affinity_guides(
    image: Tensor, features: Sequence[Tensor], size: tuple[int, int], config: RefineConfig
) -> Guides:
    """The guides of one image at the size of its masks (Eqs 15, 16).

    Args:
        image: (3, h, w) float of any size, normalised by ImageNet's mean and deviation.
        features: (C, h, w) FPN levels of the same view, finest first.
        size: (H, W) of the masks.
        config: which terms, from which levels.

    Raises:
        ValueError: a wanted term has nothing to be made from.
    """
    levels = [i for i in config.feature_levels if i < len(features)]
    if config.levels != "pixel" and not levels:
        raise ValueError(f"levels={config.levels!r} needs features, got {len(features)} levels")

    def guide(values: Tensor) -> Guide:
        return Guide(values, tree_beside(values) if config.use_global else None)

    return Guides(
        None if config.levels == "semantic" else guide(pixel_guide(image, size)),
        []
        if config.levels == "pixel"
        else [(level, guide(semantic_guide(features[level], size))) for level in levels],
    )


def refine(
    probs: Tensor,
    guides: Guides,
    *,
    boxes: Tensor | None = None,
    config: RefineConfig | None = None,
) -> RefinedMasks:
    """Refine the masks of one image along its guides.

    Args:
        probs: (N, H, W) float in [0, 1], of the guides' size.
        boxes: (N, 4) xyxy in mask pixels, the windows before dilation; None takes each mask's own.

    Returns:
        The terms of `config.levels`, zero outside of the windows.
    """
    config = config or RefineConfig()
    masks = probs.detach().float()
    windows = None
    if config.window is not None:
        boxes = mask_boxes(masks) if boxes is None else boxes
        size = (int(probs.shape[1]), int(probs.shape[2]))
        windows = box_windows(boxes, size, config.window).float()

    def along(guide: Guide, zeta_scale: float, kernel: int, zeta_local: float) -> Tensor:
        return _one_guide(masks, windows, guide, zeta_scale, kernel, zeta_local, config)

    pixel = semantic = None
    if guides.pixel is not None:
        pixel = along(guides.pixel, config.zeta_scale, 5, config.zeta_local).to(probs.dtype)
    if guides.semantic:
        terms = [
            along(guide, config.zeta_scale_semantic, 5 if level < 2 else 3, config.zeta_semantic)
            for level, guide in guides.semantic
        ]
        semantic = (sum(terms, torch.zeros_like(masks)) / len(terms)).to(probs.dtype)
    return RefinedMasks(pixel, semantic)


def finalize(refined: RefinedMasks) -> Tensor:
    """The soft pseudo-masks: the mean of the terms, (N, H, W). Threshold at 0.5 for masks."""
    return torch.stack(refined.terms).mean(0)


def refine_repeatedly(
    probs: Tensor, guides: Guides, *, config: RefineConfig | None = None
) -> Tensor:
    """The soft pseudo-masks of one image, (N, H, W): refined, and refined again by the image.

    Arguments as in `refine`; each round's windows lie around the masks that it is given. Without a
    pixel term (levels "semantic") there is no second round.
    """
    config = config or RefineConfig()
    masks = finalize(refine(probs, guides, config=config))
    for _ in range(config.polish if guides.pixel else 0):
        masks = finalize(refine(masks, replace(guides, semantic=[]), config=config))
    return masks


def pixel_guide(image: Tensor, size: tuple[int, int]) -> Tensor:
    """The image at mask size (Eq. 15), antialiased: (3, H, W) float32, no graph."""
    image = image.detach().float()
    if image.shape[1:] == size:
        return image
    return functional.interpolate(image[None], size, mode="bilinear", antialias=True)[0]


def semantic_guide(feature: Tensor, size: tuple[int, int]) -> Tensor:
    """A feature level at mask size (Eq. 16), of unit length at each pixel: (C, H, W) float32."""
    feature = feature.detach().float()
    if feature.shape[1:] != size:
        feature = functional.interpolate(feature[None], size, mode="bilinear")[0]
    return feature / feature.norm(dim=0).clamp_min(1e-6)


def _one_guide(
    masks: Tensor,
    windows: Tensor | None,
    guide: Guide,
    zeta_scale: float,
    kernel: int,
    zeta_local: float,
    config: RefineConfig,
) -> Tensor:
    """Global, balance, local: one tree and one kernel for every mask."""
    if not len(masks):
        return torch.zeros_like(masks)
    out = masks if windows is None else masks * windows
    if guide.tree is not None:
        tree = guide.tree()
        out = _global(out, windows, tree, _bandwidth(tree, zeta_scale, config))
    out = _balanced(out, _prior(masks, windows), config.balance)
    if config.use_local:
        out = local_affinity(
            guide.values,
            out,
            kernel=kernel,
            zeta=zeta_local,
            iterations=config.iterations,
            blocks=config.blocks,
            mix=config.mix,
        )
    return out if windows is None else out * windows


def _bandwidth(tree: AffinityTree, scale: float, config: RefineConfig) -> float:
    """zeta^2 of a tree."""
    return scale * tree.median_edge if config.zeta_global == "auto" else config.zeta_global**2


def _global(masks: Tensor, windows: Tensor | None, tree: AffinityTree, zeta2: float) -> Tensor:
    """Eqs 19, 20 over the window: a ratio of two propagations, in which the norms cancel."""
    if windows is None:
        return _propagate(tree, masks, zeta2)
    above, below = _propagate(tree, torch.cat([masks, windows]), zeta2).split(len(masks))
    # Inside of a window `below` is above 0, the pixel itself counts; outside the mask is 0.
    return (above / below.clamp_min(torch.finfo(below.dtype).tiny)).clamp(0, 1) * windows


def _propagate(tree: AffinityTree, masks: Tensor, zeta2: float) -> Tensor:
    if masks.device.type == "cpu":
        return torch.from_numpy(propagate(tree, masks.numpy(), zeta2))
    return propagate_torch(tree, masks, zeta2)


def _prior(masks: Tensor, windows: Tensor | None) -> Tensor:
    """pi: each mask's mean in its window, (N, 1, 1)."""
    weights = torch.ones_like(masks) if windows is None else windows
    mean = (masks * weights).sum((1, 2)) / weights.sum((1, 2)).clamp_min(1.0)
    return mean[:, None, None].clamp(1e-4, 1 - 1e-4)


def _balanced(masks: Tensor, prior: Tensor, balance: float) -> Tensor:
    """Odds divided by the prior's odds ** balance; 0 and 1 stay where they are."""
    odds = ((1 - prior) / prior) ** balance
    return masks * odds / (masks * odds + 1 - masks)
