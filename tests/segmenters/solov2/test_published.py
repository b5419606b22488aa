"""Targets and decoding against mmdetection's documented behaviour, in plain loops.

Where ours departs from it on purpose, the departure is a test too: centres are those of pixels
(there, of their corners), and a cell has one instance (there, all that claim it).
"""

import math
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask

from sapnet.config.schema import SoloConfig
from sapnet.segmenters.solov2 import SoloOutput, assign, decode, matrix_nms


def published_claims(masks, config, *, first=0.5):
    """{(level, row, column): claiming instances} from full-size masks (N, H, W) and their boxes.

    The centre of mass is the mean of pixel coordinates, the top left one at `first` (0 there).
    """
    height, width = masks.shape[1:]
    claims = defaultdict(list)
    for n, mask in enumerate(masks):
        ys, xs = (axis.double() for axis in mask.nonzero(as_tuple=True))
        if len(ys) == 0:
            continue
        w, h = float(xs.max() - xs.min()) + 1, float(ys.max() - ys.min()) + 1
        cx, cy = float(xs.mean()) + first, float(ys.mean()) + first
        for level, grid in enumerate(config.num_grids):
            low, high = config.scale_ranges[level]
            if not low <= math.sqrt(w * h) <= high:
                continue

            def cells(center, extent, side, grid=grid):
                reach = 0.5 * config.center_region * extent
                middle = int(center / side * grid)
                start = max(int(max((center - reach) / side * grid, 0)), middle - 1)
                end = min(grid - 1, int((center + reach) / side * grid), middle + 1)
                return range(start, end + 1)

            for row in cells(cy, h, height):
                for column in cells(cx, w, width):
                    claims[level, row, column].append(n)
    return claims


def our_claims(masks, config):
    targets = assign(masks, torch.arange(len(masks)), config, len(masks))
    first = np.cumsum([0, *(s * s for s in config.num_grids)])
    found = {}
    for cell, level, n in zip(targets.cells, targets.levels, targets.instances, strict=True):
        row, column = divmod(int(cell - first[level]), config.num_grids[level])
        found[int(level), row, column] = int(n)
    return found


def ellipses(n, height, width, generator):
    def draw(low, high):
        return torch.rand(n, 1, 1, generator=generator) * (high - low) + low

    y, x = torch.arange(height)[:, None] + 0.5, torch.arange(width) + 0.5
    dy, dx = (y - draw(0, height)) / draw(3, 60), (x - draw(0, width)) / draw(3, 60)
    return dy.square() + dx.square() <= 1


@pytest.mark.parametrize("n", [0, 1, 6, 60])
def test_quarter_size_masks_claim_the_published_cells(make_masks, n):
    """Full-size masks made of 4×4 blocks: shrinking loses nothing, so every cell must agree."""
    config = SoloConfig(scale_ranges=((1, 24), (16, 48), (32, 96), (64, 128), (96, 2048)))
    quarter = make_masks(n, 59, 83)  # of sides that put no region's edge on a cell's border
    full = quarter.repeat_interleave(4, 1).repeat_interleave(4, 2)
    theirs, ours = published_claims(full, config), our_claims(quarter, config)
    assert set(ours) == set(theirs)
    assert all(ours[cell] in claiming for cell, claiming in theirs.items())
    alone = [cell for cell, claiming in theirs.items() if len(claiming) == 1]
    assert len(alone) >= min(n, 30)


@pytest.mark.slow
def test_centres_voted_at_quarter_size_are_those_of_the_full_masks(generator):
    """Of smooth masks of any size, 94 % of the cells are the same; no centre moves by two cells."""
    config = SoloConfig()
    full = ellipses(200, 256, 384, generator)
    votes = F.avg_pool2d(full.float()[None], 4)[0]
    quarter = votes >= votes.flatten(1).amax(1).clamp(max=0.5)[:, None, None]
    shared = total = 0
    for mask, small in zip(full, quarter, strict=True):
        theirs, ours = (
            set(published_claims(mask[None], config)),
            set(our_claims(small[None], config)),
        )
        shared, total = shared + len(theirs & ours), total + len(theirs | ours)
        for level, row, column in ours:
            assert any(
                abs(row - i) <= 1 and abs(column - j) <= 1
                for other, i, j in theirs
                if other == level
            ) or level not in {other for other, _, _ in theirs}
    assert shared >= 0.92 * total


@pytest.mark.slow
def test_the_published_centre_lies_half_a_pixel_to_the_top_left(generator):
    """Ours is the same for a mirrored image; the difference is seen in few cells."""
    config = SoloConfig()
    masks = ellipses(100, 256, 384, generator)
    corner, middle = (published_claims(masks, config, first=f) for f in (0.0, 0.5))
    shared = len(set(corner) & set(middle)) / len(set(corner) | set(middle))
    assert 0.9 < shared < 1


def plain_iou(one, two):
    return int((one & two).sum()) / int((one | two).sum())


def published_nms(found, sigma):
    """found: [score, label, mask] by falling score. Each score decays by the published formula."""
    worst, decayed = [], []
    for j, (score, label, mask) in enumerate(found):
        ious = [plain_iou(mask, above) if label == other else 0.0 for _, other, above in found[:j]]
        decay = [
            math.exp(-sigma * iou**2) / math.exp(-sigma * worst[i] ** 2)
            for i, iou in enumerate(ious)
        ]
        decayed.append(score * min([1.0, *decay]))
        worst.append(max(ious, default=0.0))
    return decayed


def published_decode(output, config, strides=(8, 8, 16, 32, 32)):
    """[(score, label, mask at the input's size)] of the first image, which has no padding."""
    features = output.mask_features[0]
    found = []
    for logits, kernels, stride in zip(output.cls_logits, output.kernels, strides, strict=True):
        probs = logits[0].sigmoid()
        classes, rows, columns = probs.shape
        for label in range(classes):
            for i in range(rows):
                for j in range(columns):
                    score = probs[label, i, j]
                    neighbours = probs[label, max(i - 1, 0) : i + 1, max(j - 1, 0) : j + 1]
                    if score <= config.score_threshold or score < neighbours.max():
                        continue
                    soft = torch.einsum("e,ehw->hw", kernels[0, :, i, j], features).sigmoid()
                    mask = soft > config.mask_threshold
                    if mask.sum() > stride:
                        score = float(score * soft[mask].mean())
                        found.append((score, label, mask, soft))
    found = sorted(found, key=lambda item: -item[0])[: config.nms_pre]
    decayed = published_nms([item[:3] for item in found], config.nms_sigma)
    kept = [
        (score, label, F.interpolate(soft[None, None], scale_factor=4, mode="bilinear")[0, 0])
        for score, (_, label, _, soft) in zip(decayed, found, strict=True)
        if score >= config.keep_threshold
    ]
    kept = sorted(kept, key=lambda item: -item[0])[: config.max_instances]
    return [(score, label, soft > config.mask_threshold) for score, label, soft in kept]


@pytest.mark.slow
@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("limits", [{}, {"max_instances": 4}, {"keep_threshold": 0.3}])
def test_decoding_gives_the_published_instances(make_output, small, classes, limits):
    config = replace(small, **limits)
    output = make_output(1, classes)
    with torch.no_grad():
        theirs = published_decode(output, config)
    (ours,) = decode(output, [(64, 64)], [(64, 64)], config)
    assert len(theirs) > 3
    assert ours.scores.tolist() == pytest.approx([score for score, _, _ in theirs], rel=1e-4)
    assert ours.labels.tolist() == [label for _, label, _ in theirs]
    for rle, (_, _, mask) in zip(ours.masks, theirs, strict=True):
        different = (coco_mask.decode(rle).astype(bool) != mask.numpy()).sum()
        assert different <= 1  # a pixel at the threshold itself may fall either way


def test_nothing_above_the_score_threshold_is_nothing(make_output, small):
    output = make_output(1, 2)
    output = SoloOutput([c - 9 for c in output.cls_logits], output.kernels, output.mask_features)
    assert published_decode(output, small) == []
    assert len(decode(output, [(64, 64)], [(64, 64)], small)[0]) == 0


def test_matrix_nms_worked_out_by_hand():
    """Of four masks on ten pixels, d has a class of its own. b decays by a; c by b, but given back
    what a took from b, or by a, whichever takes more."""
    masks = torch.zeros(4, 1, 10, dtype=torch.bool)
    a, b, c, d = masks
    a[0, :4], b[0, 1:5], c[0, 3:7], d[0, :4] = True, True, True, True
    labels, scores = torch.tensor([0, 0, 0, 1]), torch.tensor([0.9, 0.8, 0.7, 0.6])
    ab, bc, ac = 3 / 5, 2 / 6, 1 / 7  # their IoUs
    gaussian = [0.9, 0.8 * math.exp(-2 * ab**2)]
    gaussian += [0.7 * min(math.exp(-2 * (bc**2 - ab**2)), math.exp(-2 * ac**2)), 0.6]
    linear = [0.9, 0.8 * (1 - ab), 0.7 * min((1 - bc) / (1 - ab), 1 - ac), 0.6]
    assert matrix_nms(masks, labels, scores).tolist() == pytest.approx(gaussian)
    assert matrix_nms(masks, labels, scores, kernel="linear").tolist() == pytest.approx(linear)
