"""20 masks through the global affinity of an image of 200×304, ours and higra's."""

import time
from functools import partial
from typing import Any

import higra
import numpy as np
import torch
from comparison import Row, compare, threads
from torch.nn import functional

from sapnet.labelers.affinity.global_filter import propagate
from sapnet.labelers.affinity.tree import build_tree

FloatArray = np.ndarray[Any, np.dtype[np.float32]]


def with_higra(image: FloatArray, masks: FloatArray) -> FloatArray:
    """The same by a binary partition tree, sums from the leaves up and from the root down."""
    graph = higra.get_4_adjacency_graph(image.shape[1:])
    pixels = np.ascontiguousarray(np.moveaxis(image, 0, 2))
    edges = higra.weight_graph(graph, pixels, higra.WeightFunction.L2_squared)
    tree, altitudes = higra.bpt_canonical(graph, edges)
    merged = altitudes[tree.num_leaves() :]
    affinity = np.exp(-altitudes / np.median(merged))
    steps = affinity - affinity[tree.parents()]
    steps[-1] = affinity[-1]  # the root, its own parent
    leaves = np.concatenate([masks, np.ones_like(masks[:1])]).reshape(len(masks) + 1, -1)
    values = np.ascontiguousarray(leaves.T, np.float64)
    sums = higra.accumulate_sequential(tree, values, higra.Accumulators.sum)
    weighted = higra.propagate_sequential_and_accumulate(
        tree, sums * steps[:, None], higra.Accumulators.sum
    )[: tree.num_leaves()]
    return (weighted[:, :-1] / weighted[:, -1:]).T.reshape(masks.shape)


def measure(small: bool) -> list[Row]:
    count, size = (2, (24, 32)) if small else (20, (200, 304))
    draw = torch.Generator().manual_seed(0)
    rough = torch.randn(1, 3, 13, 19, generator=draw)
    guide = functional.interpolate(rough, size, mode="bicubic")[0]
    guide += 0.05 * torch.randn(3, *size, generator=draw)
    masks = torch.rand(count, *size, generator=draw).numpy()
    image = guide.numpy()

    def ours() -> FloatArray:
        return propagate(build_tree(guide), masks)

    difference = np.abs(ours() - with_higra(image, masks)).max()
    assert difference < 1e-5, difference

    with threads(1):
        return [
            compare(
                f"affinity tree and {count} masks, {size[0]}×{size[1]}",
                ours,
                partial(with_higra, image, masks),
                against="higra",
                goal=5,
                clock=time.process_time,
                rounds=3 if small else 15,
            )
        ]
