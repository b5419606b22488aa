"""The numba kernels against plain loops."""

import heapq
import itertools

import numpy as np
import pytest
from scipy import ndimage

from sapnet.proposals.hierarchy import figure_ground as figure
from sapnet.proposals.hierarchy import flood_fill
from sapnet.proposals.hierarchy import mask_scoring as ranking
from sapnet.proposals.hierarchy import superpixels as regions
from sapnet.proposals.hierarchy.flood_fill import cells, fill_holes, stable_levels

from .conftest import iou

CROSS = ndimage.generate_binary_structure(2, 1)


def image_of(seed: int, size: tuple[int, int] = (14, 17)) -> np.ndarray:
    smooth = ndimage.gaussian_filter(
        np.random.default_rng(seed).normal(0, 40, (*size, 3)), (1, 1, 0)
    )
    return smooth.astype(np.float32)


def regions_of(seed: int, size: tuple[int, int] = (14, 17)) -> regions.Regions:
    return regions.superpixels(image_of(seed, size), 20.0, 4, 100)


@pytest.mark.parametrize("size", [(14, 17), (1, 1), (1, 8), (8, 1)])
def test_superpixels_are_connected_and_their_tables_right(size: tuple[int, int]) -> None:
    image, found = image_of(0, size), regions_of(0, size)
    count = len(found.size)
    assert sorted(set(found.labels.ravel().tolist())) == list(range(count))
    length, strength = np.zeros((count, count)), np.zeros((count, count))
    for y in range(size[0]):
        for x in range(size[1]):
            for v, u in ((y + 1, x), (y, x + 1)):
                if v < size[0] and u < size[1] and found.labels[y, x] != found.labels[v, u]:
                    a, b = found.labels[y, x], found.labels[v, u]
                    step = float(np.linalg.norm(image[y, x] - image[v, u]))
                    for i, j in ((a, b), (b, a)):
                        length[i, j] += 1
                        strength[i, j] += step
    np.testing.assert_array_equal(found.length, length)
    np.testing.assert_allclose(found.strength, strength, rtol=1e-4)
    x, y = regions.centres(found)
    for label in range(count):
        mask = found.labels == label
        assert ndimage.label(mask, CROSS)[1] == 1
        assert found.size[label] == mask.sum()
        np.testing.assert_allclose(
            found.colour[label], image[mask].sum(axis=0), rtol=1e-3, atol=0.1
        )
        rows, columns = np.nonzero(mask)
        assert (x[label], y[label]) == pytest.approx((columns.mean() + 0.5, rows.mean() + 0.5))
    assert size == (1, 1) or (found.size >= 4).all()


def test_superpixels_keep_below_their_number() -> None:
    image = np.random.default_rng(0).normal(0, 99, (40, 40, 3)).astype(np.float32)
    assert len(regions.superpixels(image, 1.0, 1, 30).size) <= 30


def plain_tree(found: regions.Regions, held: np.ndarray, power: float, edge: float) -> set:
    """Greedy merging that looks at every pair each time -> the sets of leaves of all nodes."""
    groups = [frozenset([i]) for i in range(len(found.size))]
    nodes = set(groups)

    def cost(a: frozenset, b: frozenset) -> float:
        one, two = sorted(a), sorted(b)
        length = found.length[np.ix_(one, two)].sum()
        if not length:
            return np.inf
        sizes = found.size[one].sum(), found.size[two].sum()
        gap = found.colour[one].sum(axis=0) / sizes[0] - found.colour[two].sum(axis=0) / sizes[1]
        border = found.strength[np.ix_(one, two)].sum() / length
        harmonic = sizes[0] * sizes[1] / (sizes[0] + sizes[1])
        barrier = 1e6 if held[one].any() and held[two].any() else 0.0
        return float((np.linalg.norm(gap) + edge * border) * harmonic**power + barrier)

    while len(groups) > 1:
        pairs = [(cost(a, b), i, j) for i, a in enumerate(groups) for j, b in enumerate(groups[:i])]
        _, i, j = min(pairs)
        joined = groups[i] | groups[j]
        groups = [g for k, g in enumerate(groups) if k not in (i, j)] + [joined]
        nodes.add(joined)
    return nodes


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("holding", [False, True])
def test_merge_tree_and_chain_against_all_pairs(seed: int, holding: bool) -> None:
    found = regions_of(seed)
    count = len(found.size)
    held = np.zeros(count, bool)
    held[:: max(count // 3, 1)] = holding
    parent = regions.merge_tree(found, held, 0.5, 3.0)
    got = set()
    for leaf in range(count):
        steps = regions.chain(parent, leaf, count)
        assert steps[0].nonzero()[0].tolist() == [leaf]
        assert steps[-1].all()
        got |= {frozenset(step.nonzero()[0].tolist()) for step in steps}
    assert count > 6
    assert got == plain_tree(found, held, 0.5, 3.0)


def test_a_tree_of_one_region() -> None:
    found = regions_of(0, (1, 1))
    parent = regions.merge_tree(found, np.ones(1, bool), 0.5, 3.0)
    assert parent.tolist() == [-1]
    assert regions.chain(parent, 0, 1).tolist() == [[True]]


def test_cells_against_distances() -> None:
    rng = np.random.default_rng(5)
    rows, columns = rng.integers(0, 20, 7).astype(np.int32), rng.integers(0, 30, 7).astype(np.int32)
    rows[6], columns[6] = rows[2], columns[2]
    owner = cells(20, 30, rows, columns)
    y, x = np.mgrid[:20, :30]
    distance = np.abs(y[..., None] - rows) + np.abs(x[..., None] - columns)
    assert (np.take_along_axis(distance, owner[..., None], 2)[..., 0] == distance.min(2)).all()
    for i in range(6):
        assert ndimage.label(owner == i, CROSS)[1] == 1
    assert not (owner == 6).any()


def test_unlike_against_plain_sums() -> None:
    image = image_of(6, (15, 21))
    owner = cells(15, 21, np.array([0, 10], np.int32), np.array([5, 15], np.int32))
    distance, towards = flood_fill.unlike(image, owner, 0, 5)
    reference = image[:2, 4:7].reshape(-1, 3).mean(axis=0)
    axis = image[owner == 0].mean(axis=0) - reference
    along = (image - reference) @ (axis / np.linalg.norm(axis))
    inside = owner == 0
    want = np.linalg.norm(image - reference, axis=2) * inside
    np.testing.assert_allclose(distance, want, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(towards, np.maximum(along, 0) * inside, rtol=1e-4, atol=1e-4)
    alone = flood_fill.unlike(image, np.arange(315, dtype=np.int32).reshape(15, 21), 3, 3)
    assert (alone[1] >= 0).all()
    assert all(np.isfinite(table).all() and np.count_nonzero(table) <= 1 for table in alone)


def test_flood_against_a_plain_queue() -> None:
    rows, columns = np.array([4, 10], np.int32), np.array([5, 15], np.int32)
    owner = cells(15, 21, rows, columns)
    cost = np.abs(image_of(7, (15, 21))[..., 0]) * (owner == 0)
    level, area = flood_fill.flood_levels(cost, owner, 4, 5, np.empty(15 * 21, np.int32))
    share = np.sqrt(cost / cost.max())
    want = np.full((15, 21), 255)
    want[4, 5] = 0
    queue = [(0, 4, 5)]
    while queue:
        at, y, x = heapq.heappop(queue)
        for v, u in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
            if 0 <= v < 15 and 0 <= u < 21 and owner[v, u] == 0:
                to = max(at, int(share[v, u] * 254))
                if to < want[v, u]:
                    want[v, u] = to
                    heapq.heappush(queue, (to, v, u))
    np.testing.assert_array_equal(level, want)
    assert area[:255].tolist() == np.bincount(level.ravel(), minlength=256)[:255].tolist()
    boxes = flood_fill.bounds(level)
    for t in range(255):
        inside = np.argwhere(level <= t)
        assert boxes[t].tolist() == [
            *(inside[:, 0].min(), inside[:, 0].max() + 1),
            *(inside[:, 1].min(), inside[:, 1].max() + 1),
        ]


def test_a_mask_grows_by_a_pixel_within_its_cell() -> None:
    rng = np.random.default_rng(12)
    for size in [(1, 1), (1, 6), (12, 15)]:
        mask, within = rng.random(size) < 0.2, rng.random(size) < 0.7
        want = mask | (ndimage.binary_dilation(mask, CROSS) & within)
        np.testing.assert_array_equal(flood_fill.grown(mask, within), want)


def test_stable_levels_find_the_step_and_keep_apart() -> None:
    area = np.zeros(256, np.int32)
    area[:20], area[100:110], area[200:255] = 50, 300, 90  # plateaus of 1000 and 4000 pixels
    picked = stable_levels(area, 4)
    total = np.cumsum(area[:255])
    reached = sorted(int(total[level]) for level in picked)
    assert 1000 in reached
    assert 4000 in reached
    assert all(two / one >= 1.15 for one, two in itertools.pairwise(reached))
    single = np.zeros(256, np.int32)
    single[0] = 1
    assert stable_levels(single, 4) == [0]


def test_holes_against_scipy() -> None:
    rng = np.random.default_rng(8)
    for size in [(1, 1), (1, 6), (12, 15), (12, 15), (30, 30)]:
        mask = rng.random(size) < 0.6
        np.testing.assert_array_equal(fill_holes(mask), ndimage.binary_fill_holes(mask))


def test_connected_against_scipy() -> None:
    found = regions_of(9)
    rng = np.random.default_rng(9)
    for seed in range(len(found.size)):
        on = rng.random(len(found.size)) < 0.6
        on[seed] = True
        pixels, _ = ndimage.label(on[found.labels], CROSS)
        want = pixels == pixels[found.labels == seed][0]
        got = figure.connected(on, seed, found.length)[found.labels]
        np.testing.assert_array_equal(got, want)


def test_figures_of_masks_against_pixels() -> None:
    image, found = image_of(10), regions_of(10)
    rng = np.random.default_rng(10)
    members = rng.random((6, len(found.size))) < 0.4
    members[:, 0] = True
    shapes = ranking.RegionFigures(found).shapes(members)
    masks = members[:, found.labels]
    inner = masks[0, 2:9, 3:12]
    small = np.zeros_like(masks[0])
    small[2:9, 3:12] = inner
    nested = np.stack([small, masks[0]])
    third = masks[1] | masks[2]
    nests = [
        ranking.Nest(np.where(small, 0, np.where(masks[0], 1, 2)).astype(np.int32), 2),
        ranking.Nest(np.where(third, 0, 1).astype(np.int32), 1),
    ]
    figures = np.stack(
        [ranking.measure(image, inner, 2, 3), ranking.measure(image, masks[0], 0, 0)]
    )
    flooded = [
        ranking.Shapes(
            ranking.tally(nest.first, found.labels, nest.depth + 1, len(found.size))[:-1].cumsum(0),
            *rows.T,
        )
        for nest, rows in zip(
            nests, [figures, ranking.measure(image, third, 0, 0)[None]], strict=True
        )
    ]
    both = ranking.joined(shapes, *flooded)
    every = np.concatenate([masks, nested, third[None]])
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
    frame = np.pad(np.ones(image.shape[:2], bool), 1)
    for i, mask in enumerate(every):
        wide = np.pad(mask, 1)
        border, strength = 0, 0.0
        for y, x in np.argwhere(wide):
            for v, u in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if not wide[v, u]:
                    border += 1
                    strength += frame[v, u] * float(np.linalg.norm(padded[y, x] - padded[v, u]))
        assert (
            both.counts[i].tolist()
            == np.bincount(found.labels[mask], minlength=len(found.size)).tolist()
        )
        rows, columns = np.nonzero(mask)
        assert both.area[i] == mask.sum()
        assert both.border[i] == border
        assert both.strength[i] == pytest.approx(strength, rel=1e-4)
        assert both.x[i] == pytest.approx(columns.mean() + 0.5, rel=1e-5)
        assert both.y[i] == pytest.approx(rows.mean() + 0.5, rel=1e-5)
    got = ranking.overlaps(both, members, nests)
    want = [[iou(one, two) for two in every] for one in every]
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_colour_models_against_loops() -> None:
    found = regions_of(11, (24, 30))
    at = np.array([[8.5, 8.5], [20.5, 15.5], [20.5, 15.5]], np.float32)
    got = figure.FigureGround(found, at).shares([0, 2], (4.0, 9.0))
    x, y = regions.centres(found)
    colour = found.colour / found.size[:, None]
    window = np.exp(-((colour[:, None] - colour[None]) ** 2).sum(axis=2) / 200)
    link = np.where(found.length > 0, found.length, 0) * np.exp(
        -found.strength / np.maximum(found.length, 1) / 10
    )
    link /= link.sum(axis=1, keepdims=True)
    for place, index in enumerate((0, 2)):
        distance = np.hypot(x[:, None] - at[:, 0], y[:, None] - at[:, 1])
        mine, other = distance[:, index], np.delete(distance, index, axis=1).min(axis=1)
        for scale, radius in enumerate((4.0, 9.0)):
            prior = 1 / (1 + np.exp((mine / radius - 1) / 0.4))
            prior /= 1 + np.exp((mine - other) / (0.15 * (mine + other) + 1e-6))
            ring = 1 / (1 + np.exp((mine / radius - 2.5) / 0.3))
            share = prior
            for _ in range(3):
                inside, outside = share * found.size, (1 - share) * ring * found.size
                figure_density = window @ inside / max(inside.sum(), 1e-6)
                ground_density = window @ outside / max(outside.sum(), 1e-6)
                odds = (figure_density + 1e-4) / (ground_density + 1e-4)
                odds *= (prior + 1e-6) / (1 - prior + 1e-6)
                new = odds / (1 + odds)
                share = (new + link @ new) / 2
            np.testing.assert_allclose(got[place, :, scale], share, atol=2e-3)


def test_selection_keeps_the_best_apart_and_covers_the_rest() -> None:
    overlap = np.array(
        [
            [1, 0.97, 0.2, 0.2, 0.1],
            [0.97, 1, 0.1, 0.2, 0.1],
            [0.2, 0.1, 1, 0.9, 0.1],
            [0.2, 0.2, 0.9, 1, 0.1],
            [0.1, 0.1, 0.1, 0.1, 1],
        ],
        np.float32,
    )
    confidence = np.array([0.8, 0.9, 0.72, 0.7, 0.71], np.float32)
    # the most confident first, never its near-duplicate; then the pair that one of them stands for
    assert ranking.select(confidence, overlap, most=1, alike=0.95) == [1]
    assert ranking.select(confidence, overlap, most=2, alike=0.95) == [1, 2]
    assert ranking.select(confidence, overlap, most=3, alike=0.95) == [1, 2, 4]
    assert ranking.select(confidence, overlap, most=9, alike=0.95) == [1, 2, 4, 3]
    assert ranking.select(confidence[:1], overlap[:1, :1], most=9, alike=0.95) == [0]
    assert ranking.select(confidence[:0], overlap[:0, :0], most=9, alike=0.95) == []


def test_each_choice_raises_the_expected_best_most() -> None:
    rng = np.random.default_rng(13)
    masks = rng.random((12, 40)) < 0.4
    overlap = np.array([[iou(a, b) for b in masks] for a in masks], np.float32)
    confidence = rng.random(12).astype(np.float32) / 3
    chosen = [int(confidence.argmax())]
    likely = np.exp(confidence / 0.12)
    while len(chosen) < 6:
        value = {
            i: float((likely * overlap[[*chosen, i]].max(axis=0)).sum())
            for i in range(12)
            if i not in chosen
        }
        chosen.append(max(value, key=value.__getitem__))
    assert set(ranking.select(confidence, overlap, most=6, alike=0.99)) == set(chosen)
