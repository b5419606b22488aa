"""Painting, parts, nearest points, votes and affinities against loops."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sapnet.config.labeler_schema import P2SegConfig
from sapnet.config.schema import Config
from sapnet.data.masks import decode, encode, mask_iou, tight_boxes
from sapnet.data.sampler import Step
from sapnet.data.samples import Sample, make_record
from sapnet.labelers.p2seg.affinity import affinity, affinity_loss, spread
from sapnet.labelers.p2seg.labeler import P2SegLabeler, hardest
from sapnet.labelers.p2seg.parts import grid_centers, offset_targets, vote
from sapnet.labelers.p2seg.semantic import (
    UNKNOWN,
    cells_of,
    expected_mask,
    expected_masks,
    paint,
    points_on_input,
)
from sapnet.types import Bag, ImageInfo, PointAnnotation

GROUND = 3


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def bag_of(masks):
    rles = tuple(encode(mask) for mask in masks)
    confidence = np.linspace(0.9, 0.5, len(rles)).astype(np.float32)
    return Bag(1, tight_boxes(rles), rles, confidence, ("",) * len(rles), mask_iou(rles))


def random_masks(rng, count, size=(24, 32)):
    masks = np.zeros((count, *size), bool)
    for mask in masks:
        y, x = rng.integers(0, size[0] - 6), rng.integers(0, size[1] - 6)
        mask[y : y + rng.integers(2, 12), x : x + rng.integers(2, 12)] = True
        mask[rng.integers(size[0]), rng.integers(size[1])] ^= True
    masks[0, -1, -1] = masks[-1, 0, 0] = True  # runs that begin and end with the image
    return masks


def test_expected_mask_pixel_by_pixel(rng):
    masks = random_masks(rng, 5)
    shares = rng.dirichlet(np.ones(5)).astype(np.float32)
    got = expected_mask(bag_of(masks), np.append(shares, 0.0))
    np.testing.assert_allclose(got, np.tensordot(shares, masks, 1), atol=1e-6)


@pytest.mark.parametrize("used", [[1], [1, 3], [], [0, 2]])
def test_expected_mask_of_some_of_the_masks(rng, used):
    """Those without a share may lie anywhere, and cost nothing."""
    masks = np.zeros((4, 300, 400), bool)
    masks[0] = True
    masks[1, 40:55, 390:] = masks[2, 299:, :3] = masks[3, 50:90, 200:210] = True
    shares = np.zeros(6, np.float32)
    shares[used] = rng.dirichlet(np.ones(len(used))) if used else 0
    got = expected_mask(bag_of(masks), shares)
    np.testing.assert_allclose(got, np.tensordot(shares[:4], masks, 1), atol=1e-6)


@pytest.mark.parametrize("fraction", [0.1, 0.9])
def test_a_process_without_images(fraction):
    """Of several that share a batch of fewer images."""
    config = Config(p2seg=P2SegConfig(channels=8))
    labeler = P2SegLabeler(config, num_classes=2, in_channels=8, strides=(4, 8, 16, 32, 64))
    maps = labeler.heads(torch.zeros(0, 8, 32, 48))
    classes = labeler.classes(maps, Step(int(100 * fraction), 100, 5))
    assert classes.shape == (0, 3, 32, 48)
    losses = labeler.distillation(maps, [])
    sum(losses.values()).backward()
    assert all(float(loss.detach()) == 0 for loss in losses.values())


def scene(rng, flipped=False, box=None):
    info = ImageInfo(1, "a.png", 32, 24)
    points = [(5.0, 7.0), (30.9, 2.0)]
    known = tuple(PointAnnotation(n, 1, 1, *xy, None, box) for n, xy in enumerate(points))
    bags = tuple(bag_of(random_masks(rng, 3)) for _ in known)
    record = make_record(info, Path("a.png"), known, bags, {1: 0})
    return Sample(record, torch.zeros(3, 48, 64), (2.0, 2.0), flipped)


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("box", [None, (3.0, 4.0, 19.0, 22.0)])
def test_expected_masks_on_the_grid(rng, flipped, box):
    sample = scene(rng, flipped, box)
    posterior = rng.dirichlet(np.ones(3), 2).astype(np.float32)
    got = expected_masks(sample, posterior, (16, 16))
    for n, bag in enumerate(sample.record.bags):
        masks = np.stack([decode(mask) for mask in bag.masks])
        full = np.tensordot(posterior[n], masks, 1)
        if box is not None:
            inside = np.zeros_like(full)
            inside[4:22, 3:19] = full[4:22, 3:19]
            full = inside
        small = full.reshape(12, 2, 16, 2).mean((1, 3))
        small = small[:, ::-1] if flipped else small
        np.testing.assert_allclose(got[n, :12], small, atol=1e-6)
        assert not got[n, 12:].any()
    x, y = points_on_input(sample)[1].tolist()
    assert y == 4.0
    assert x == pytest.approx(64 - 61.8 if flipped else 61.8, rel=1e-5)
    rows, columns = cells_of(points_on_input(sample), sample.size)
    assert (int(rows[1]), int(columns[1])) == (1, 0 if flipped else 15)


@pytest.mark.parametrize("seed", range(4))
def test_paint_pixel_by_pixel(seed):
    generator = torch.Generator().manual_seed(seed)
    expected = torch.rand(4, 6, 7, generator=generator) ** 4
    labels = torch.tensor([2, 0, 1, 0])
    got = paint(expected, labels, (5, 6), GROUND, 0.5, 0.1)
    for y in range(6):
        for x in range(7):
            held = [n for n in range(4) if expected[n, y, x] >= 0.5]
            if held:
                smallest = min(held, key=lambda n: float(expected[n].sum()))
                wanted = int(labels[smallest])
            elif y < 5 and x < 6 and all(expected[n, y, x] <= 0.1 for n in range(4)):
                wanted = GROUND
            else:
                wanted = UNKNOWN
            assert got[y, x] == wanted


def flood(mask, start):
    """The 8-connected part of a cell."""
    part, edge = {start}, [start]
    while edge:
        y, x = edge.pop()
        for cell in [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]:
            inside = 0 <= cell[0] < mask.shape[0] and 0 <= cell[1] < mask.shape[1]
            if inside and mask[cell] and cell not in part:
                part.add(cell)
                edge.append(cell)
    return part


@pytest.mark.parametrize("seed", range(6))
def test_offsets_against_a_flood(seed):
    rng = np.random.default_rng(seed)
    semantic = torch.from_numpy(
        rng.choice([0, 1, GROUND, UNKNOWN], (9, 11), p=[0.4, 0.3, 0.2, 0.1])
    )
    points = torch.from_numpy(rng.uniform(0, (44, 36), (6, 2)).astype(np.float32))
    labels = torch.from_numpy(rng.integers(0, 3, 6))  # of class 2 there is no pixel
    got = offset_targets(semantic, points, labels, least=4)
    for y in range(9):
        for x in range(11):
            label = int(semantic[y, x])
            part = flood((semantic == label).numpy(), (y, x))
            cells = [(int(e[1] // 4), int(e[0] // 4)) for e in points]
            inside = [n for n in range(6) if labels[n] == label and cells[n] in part]
            if label not in (0, 1) or not inside or len(part) < 4:
                assert not got.labeled[y, x]
                assert not got.offset[:, y, x].any()
                continue
            here = np.array([4 * x + 2, 4 * y + 2.0])
            if len(inside) == 1:
                target = np.mean([(4 * c + 2, 4 * r + 2) for r, c in part], axis=0)
            else:
                target = min(points[inside].numpy(), key=lambda e: float(np.hypot(*(e - here))))
            assert got.labeled[y, x]
            np.testing.assert_allclose(got.offset[:, y, x], target - here, atol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_votes_pixel_by_pixel(seed):
    generator = torch.Generator().manual_seed(seed)
    semantic = torch.randint(-1, 4, (6, 8), generator=generator)
    semantic[semantic == GROUND] = UNKNOWN
    offset = torch.randn(2, 6, 8, generator=generator) * 10
    points, labels = torch.rand(5, 2, generator=generator) * 24, torch.tensor([0, 1, 0, 1, 0])
    got = vote(semantic, offset, points, labels)  # of class 2 there is no point
    for y in range(6):
        for x in range(8):
            own = [n for n in range(5) if labels[n] == semantic[y, x]]
            end = torch.tensor([4 * x + 2.0, 4 * y + 2.0]) + offset[:, y, x]
            wanted = min(own, key=lambda n: float((end - points[n]).norm())) if own else -1
            assert got[y, x] == wanted


def test_two_touching_discs_come_apart():
    x, y = grid_centers((20, 30))
    centers = torch.tensor([[40.0, 40.0], [76.0, 40.0]])
    discs = [(x - cx) ** 2 + (y - cy) ** 2 <= 18**2 for cx, cy in centers.tolist()]
    semantic = torch.where(discs[0] | discs[1], 0, UNKNOWN)
    labels = torch.zeros(2, dtype=torch.int64)
    targets = offset_targets(semantic, centers, labels, 3)
    assert torch.equal(targets.labeled, semantic == 0)
    owner = vote(semantic, targets.offset, centers, labels)
    for n, disc in enumerate(discs):
        own = disc & ~discs[1 - n]
        assert (owner[own] == n).all()


@pytest.mark.parametrize("reach", [1, 2, 9])
def test_affinity_loss_and_spread_pair_by_pair(reach):
    generator = torch.Generator().manual_seed(1)
    embedding = torch.randn(3, 4, 5, generator=generator, dtype=torch.float64).float()
    groups = torch.randint(-1, 3, (4, 5), generator=generator)
    cells = [(y, x) for y in range(4) for x in range(5)]
    together, apart = [], []
    weights = np.zeros((20, 20))
    for i, (ya, xa) in enumerate(cells):
        for j, (yb, xb) in enumerate(cells):
            dot = float(embedding[:, ya, xa] @ embedding[:, yb, xb]) / 3**0.5
            value = 1 / (1 + np.exp(-dot))
            assert affinity(embedding)[i, j] == pytest.approx(value, rel=1e-4)
            if max(abs(ya - yb), abs(xa - xb)) > reach:
                continue
            weights[i, j] = value**2
            if i != j and min(groups[ya, xa], groups[yb, xb]) >= 0:
                same = groups[ya, xa] == groups[yb, xb]
                (together if same else apart).append(1 - value if same else value)
    wanted = (np.mean(together) if together else 0) + (np.mean(apart) if apart else 0)
    assert float(affinity_loss(embedding, groups, reach)) == pytest.approx(wanted, rel=1e-4)
    classes = torch.rand(3, 4, 5, generator=generator)
    shares = weights / weights.sum(1, keepdims=True)
    slow = classes.reshape(3, 20).numpy() @ shares.T
    got = spread(classes, embedding, 2.0, reach)
    np.testing.assert_allclose(got.reshape(3, 20), slow, rtol=1e-4)


def test_affinity_loss_of_no_pairs_has_a_graph():
    embedding = torch.randn(2, 3, 3, requires_grad=True)
    loss = affinity_loss(embedding, torch.full((3, 3), -1), 8)
    loss.backward()
    assert float(loss.detach()) == 0
    assert embedding.grad is not None


@pytest.mark.parametrize("share", [0.1, 0.4, 1.0])
def test_hardest_pixels(share):
    logits = torch.randn(GROUND + 1, 5, 6, generator=torch.Generator().manual_seed(2))
    painted = torch.arange(30).reshape(5, 6) % 5 - 1
    terms = []
    for y in range(5):
        for x in range(6):
            if painted[y, x] != UNKNOWN:
                odds = logits[:, y, x].double().exp()
                terms.append(-float((odds[painted[y, x]] / odds.sum()).log()))
    terms.sort(reverse=True)
    count = int(np.ceil(share * len(terms)))
    assert float(hardest(logits, painted, share)) == pytest.approx(np.mean(terms[:count]), rel=1e-4)
    assert float(hardest(logits, torch.full((5, 6), UNKNOWN), share)) == 0
