"""Proposals without any weights: the regions that hold a point, at increasing scales."""

import hashlib
import json
from collections.abc import Iterator, Sequence

import numpy as np
from scipy.ndimage import gaussian_filter
from skimage.color import rgb2lab

from sapnet.proposals import regions
from sapnet.proposals.bags import point_pixel
from sapnet.types import ByteArray, ImageInfo, PointAnnotation, RawProposals

_CRITERIA = ((0.5, 1.0), (0.25, 3.0))  # (power of the size, weight of the border) of each tree


class HierarchyGenerator:
    """Masks of the regions of region-merging trees; a region holds one annotated point at first."""

    name = "hierarchy"

    def __init__(self, *, scale: float = 30.0, min_size: int = 20) -> None:
        self.scale = float(scale)
        self.min_size = int(min_size)

    def fingerprint(self) -> str:
        settings = json.dumps([self.name, 1, self.scale, self.min_size])
        return hashlib.sha256(settings.encode()).hexdigest()

    def propose(
        self, image: ByteArray, info: ImageInfo, annotations: Sequence[PointAnnotation]
    ) -> Iterator[RawProposals]:
        """The chain of regions that hold each point, from every tree."""
        if not annotations:
            return
        height, width = info.size
        lab = gaussian_filter(rgb2lab(image).astype(np.float32), (0.8, 0.8, 0))
        first, second, weight = regions.grid_edges(lab)
        order = np.argsort(weight, kind="stable").astype(np.int32)
        flat, count = regions.superpixels(
            first, second, weight, order, height * width, self.scale, self.min_size
        )
        labels = flat.reshape(height, width)
        size, colour, length, strength = regions._statistics(
            flat, count, lab.reshape(-1, 3), first, second, weight
        )
        seeds = [labels[point_pixel(a.x, a.y, info.size)] for a in annotations]
        owner = np.full(count, -1, np.int32)
        for index, seed in enumerate(seeds):
            owner[seed] = index if owner[seed] == -1 else -2
        trees = [
            regions.merge_tree(
                size.copy(),
                colour.copy(),
                length.copy(),
                strength.copy(),
                owner.copy(),
                power,
                edge,
            )
            for power, edge in _CRITERIA
        ]
        for seed in seeds:
            masks: list[np.ndarray] = []
            confidence: list[float] = []
            for parent, cost in trees:
                for members, trust in _chain(int(seed), parent, cost, count):
                    masks.append(members[labels])
                    confidence.append(trust)
            yield RawProposals(
                np.stack(masks), np.array(confidence, np.float32), (self.name,) * len(masks)
            )


def _chain(
    seed: int, parent: np.ndarray, cost: np.ndarray, count: int
) -> Iterator[tuple[np.ndarray, float]]:
    """(members (count,) bool, stability) of the regions above a superpixel, small to large."""
    nodes = [seed]
    while parent[nodes[-1]] >= 0:
        nodes.append(int(parent[nodes[-1]]))
    levels = np.maximum.accumulate(np.minimum(cost[nodes], 1e4))
    children: dict[int, list[int]] = {}
    for child, above in enumerate(parent):
        children.setdefault(int(above), []).append(child)
    gains = np.diff(np.append(levels, levels[-1])) / (1.0 + np.append(levels[1:], levels[-1]))
    keep = set(np.argsort(-gains, kind="stable")[:10].tolist())
    for place, node in enumerate(nodes):
        if place not in keep:
            continue
        members = np.zeros(count, bool)
        stack = [node]
        while stack:
            top = stack.pop()
            if top < count:
                members[top] = True
            else:
                stack.extend(children[top])
        yield members, float(np.clip(gains[place], 0, 1))
