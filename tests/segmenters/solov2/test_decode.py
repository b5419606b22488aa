"""Decoding: hand-made kernels give known masks, and each step against its plain form."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask

from sapnet.config.schema import SoloConfig
from sapnet.data.resize import resize_mask
from sapnet.segmenters.solov2 import SoloOutput, assign, decode
from sapnet.segmenters.solov2.decode import peaks
from sapnet.segmenters.solov2.resize_to_rle import resize_to_rle


def scene(config, masks, labels, num_classes, strength=20.0):
    """An output that says exactly `masks` (N, h, w): feature n is mask n, kernel n picks it."""
    n = len(masks)
    targets = assign(masks, labels, config, num_classes)
    count = len(targets.classes)
    logits, kernels = torch.full((count, num_classes), -9.0), torch.zeros(count, n)
    logits[targets.cells, labels[targets.instances]] = 9.0
    kernels[targets.cells, targets.instances] = strength
    features = (masks.float() - 0.5)[None]
    splits = [s * s for s in config.num_grids]

    def levels(flat):
        pairs = zip(flat.split(splits), config.num_grids, strict=True)
        return [part.T.reshape(1, -1, s, s) for part, s in pairs]

    return SoloOutput(levels(logits), levels(kernels), features)


def blocks(height, width, *spans):
    masks = torch.zeros(len(spans), height, width, dtype=torch.bool)
    for mask, (top, bottom, left, right) in zip(masks, spans, strict=True):
        mask[top:bottom, left:right] = True
    return masks


def decoded(instances):
    return [m.astype(bool) for m in coco_mask.decode(instances.masks).transpose(2, 0, 1)]


def test_hand_made_kernels_give_their_masks(small):
    masks = blocks(16, 16, (1, 6, 1, 6), (8, 13, 8, 14), (0, 4, 11, 16))
    labels = torch.tensor([0, 1, 1])
    output = scene(small, masks, labels, 2)
    (got,) = decode(output, [(64, 64)], [(64, 64)], replace(small, keep_threshold=0.5))
    assert sorted(got.labels.tolist()) == [0, 1, 1]
    full = masks.repeat_interleave(4, 1).repeat_interleave(4, 2).numpy()
    for label, mask, box in zip(got.labels, decoded(got), got.boxes, strict=True):
        overlap = [(mask & m).sum() / (mask | m).sum() for m in full]
        best = int(np.argmax(overlap))
        assert overlap[best] > 0.98
        assert labels[best] == label
        ys, xs = mask.nonzero()
        assert box.tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
    assert (np.diff(got.scores) <= 0).all()
    assert got.scores.dtype == np.float32
    assert got.scores.max() <= 1


def test_one_class_one_object_cut_by_the_border(small):
    masks = blocks(16, 16, (10, 16, 12, 16))
    output = scene(small, masks, torch.tensor([0]), 1)
    (got,) = decode(output, [(64, 64)], [(64, 64)], replace(small, keep_threshold=0.5))
    assert got.labels.tolist() == [0]
    assert got.boxes[0].tolist() == [48, 40, 64, 64]


def test_nothing_found(small, make_output):
    output = make_output(2, 3)
    output.cls_logits = [level - 99 for level in output.cls_logits]
    for got in decode(output, [(64, 64)] * 2, [(30, 40)] * 2, small):
        assert len(got) == 0
        assert got.masks == []
        assert got.boxes.shape == (0, 4)


@pytest.mark.slow
def test_three_hundred_objects_keep_the_best_hundred():
    config = SoloConfig(
        num_grids=(60, 36, 24, 16, 12), scale_ranges=((1, 96), *[(3000, 4000)] * 4), nms_pre=500
    )
    spans = [(8 * i + 2, 8 * i + 7, 8 * j + 2, 8 * j + 7) for i in range(15) for j in range(20)]
    masks = blocks(15 * 8, 20 * 8, *spans)
    output = scene(config, masks, torch.zeros(300, dtype=torch.int64), 1)
    size = (15 * 32, 20 * 32)
    (got,) = decode(output, [size], [size], config)
    assert len(got) == 100
    (everything,) = decode(
        output, [size], [size], replace(config, max_instances=400, keep_threshold=0.5)
    )
    assert len(everything) == 300
    assert len({tuple(box) for box in everything.boxes.tolist()}) == 300


def test_a_mask_smaller_than_its_level_allows_is_dropped(small):
    for area, expected in ((8, 0), (9, 1)):
        masks = blocks(16, 16, (4, 5, 3, 3 + area))
        output = scene(small, masks, torch.tensor([0]), 1)
        (got,) = decode(output, [(64, 64)], [(64, 64)], replace(small, keep_threshold=0.5))
        finest = assign(masks, torch.tensor([0]), small, 1).levels.min()
        assert finest == 0
        assert len(got) == expected


def test_padding_is_no_part_of_a_mask(small):
    masks = blocks(16, 16, (2, 12, 2, 16))
    output = scene(small, masks, torch.tensor([0]), 1)
    (got,) = decode(output, [(40, 48)], [(40, 48)], small)
    assert got.boxes[0].tolist() == [8, 8, 48, 40]
    assert got.masks[0]["size"] == [40, 48]


def test_the_score_is_class_times_mask_certainty(small):
    masks = blocks(16, 16, (4, 8, 4, 8))
    output = scene(small, masks, torch.tensor([0]), 1, strength=2.0)
    (got,) = decode(output, [(64, 64)], [(64, 64)], small)
    expected = torch.tensor(9.0).sigmoid() * torch.tensor(1.0).sigmoid()
    assert got.scores[0] == pytest.approx(float(expected), rel=1e-5)


def test_only_the_peak_of_a_neighbourhood_speaks(generator):
    logits = torch.randn(2, 3, 6, 6, generator=generator).mul(2).round() / 2  # with ties
    got = peaks(logits)
    probs = logits.sigmoid()
    for b, k, i, j in itertools.product(range(2), range(3), range(6), range(6)):
        neighbours = probs[b, k, max(i - 1, 0) : i + 1, max(j - 1, 0) : j + 1]
        expected = probs[b, k, i, j] if probs[b, k, i, j] == neighbours.max() else 0
        assert got[b, k, i, j] == expected


def test_two_cells_that_say_the_same_leave_one_sure_instance(small):
    masks = blocks(16, 16, (4, 8, 2, 14))
    output = scene(small, masks, torch.tensor([0]), 1)
    assert sum((level == 9).sum() for level in output.cls_logits) > 1
    (got,) = decode(output, [(64, 64)], [(64, 64)], small)
    assert (got.scores > 0.5).sum() == 1
    # a copy decays to exp(-2), as published, and no further
    assert got.scores[1:] == pytest.approx(np.exp(-2) * got.scores[0], rel=1e-3)


@pytest.mark.parametrize("threshold", [0.3, 0.5])
@pytest.mark.parametrize(
    ("content", "original"),
    [((64, 48), (64, 48)), ((61, 47), (123, 90)), ((64, 48), (17, 200)), ((30, 62), (31, 61))],
)
def test_enlarging_a_part_is_enlarging_the_whole(generator, content, original, threshold):
    shape = tuple(-(-side // 4) for side in content)
    for top, left in ((0, 0), (3, 5), (shape[0] - 3, shape[1] - 4)):
        probs = torch.zeros(shape)
        probs[top : top + 3, left : left + 4] = torch.rand(3, 4, generator=generator)
        scales = [o / c * 4 for o, c in zip(original, content, strict=True)]
        whole = torch.ops.aten.upsample_bilinear2d(
            probs[None, None], list(original), False, *scales
        )[0, 0]
        found = resize_to_rle(probs.numpy(), content, original, threshold)
        got = np.zeros(original, dtype=bool)
        if found is not None:  # a coarser original may have no pixel there
            rle, box = found
            got = coco_mask.decode(rle).astype(bool)
            assert rle == encoded(got)
            assert list(box) == tight(got)
        part, y, x = resize_mask(probs.numpy(), content, original, threshold)
        drawn = np.zeros(original, dtype=bool)
        drawn[y : y + part.shape[0], x : x + part.shape[1]] = part
        sure = (whole - threshold).abs().numpy() > 1e-5
        assert ((whole > threshold).numpy() == got)[sure].all()
        assert ((whole > threshold).numpy() == drawn)[sure].all()


@pytest.mark.parametrize("fill", ["noise", "all", "left", "top", "bottom right"])
def test_enlarging_at_the_same_scale_is_interpolate(generator, fill):
    probs = torch.rand(9, 7, generator=generator)
    if fill != "noise":
        part = {"all": (0, 9, 0, 7), "left": (0, 9, 0, 3), "top": (0, 4, 0, 7)}
        top, bottom, left, right = part.get(fill, (5, 9, 4, 7))
        probs = torch.zeros(9, 7)
        probs[top:bottom, left:right] = 0.9
    rle, box = resize_to_rle(probs.numpy(), (36, 28), (36, 28), 0.5)
    whole = F.interpolate(probs[None, None], size=(36, 28), mode="bilinear")[0, 0] > 0.5
    assert rle == encoded(whole.numpy())
    assert list(box) == tight(whole.numpy())


def test_nothing_above_the_threshold_enlarges_to_nothing():
    assert resize_to_rle(np.zeros((4, 4), dtype=np.float32), (16, 16), (50, 50), 0.5) is None


def encoded(mask):
    """COCO's own RLE, to the letter."""
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": rle["counts"].decode("ascii")}


def tight(mask):
    ys, xs = mask.nonzero()
    return [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def test_an_image_decodes_alone_as_in_a_batch(small, make_output):
    output = make_output(2, 3)
    both = decode(output, [(64, 64), (50, 60)], [(80, 80), (31, 77)], small)
    for i, (content, original) in enumerate([((64, 64), (80, 80)), ((50, 60), (31, 77))]):
        one = SoloOutput(
            [c[i : i + 1] for c in output.cls_logits],
            [k[i : i + 1] for k in output.kernels],
            output.mask_features[i : i + 1],
        )
        (alone,) = decode(one, [content], [original], small)
        assert len(alone) > 0
        assert alone.labels.tolist() == both[i].labels.tolist()
        assert alone.masks == both[i].masks
