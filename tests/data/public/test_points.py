"""Points inside their masks, by each rule, and distributed as it says."""

import numpy as np
import pytest

from sapnet.data.public.point_sampling import RULES, draw_point, draw_points, quasi_center
from sapnet.data.public.split import instance


def blob(seed, size=(60, 80)):
    """A ragged mask of one or several pieces."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(size, dtype=bool)
    for _ in range(rng.integers(1, 4)):
        x, y = rng.integers(0, size[1] - 3), rng.integers(0, size[0] - 3)
        mask[y : y + rng.integers(1, 30), x : x + rng.integers(1, 30)] = True
    return mask & (rng.random(size) < 0.8)


@pytest.mark.parametrize("rule", RULES)
def test_inside_whatever_the_shape(rule):
    for seed in range(60):
        mask = blob(seed)
        point = draw_point(mask, rule, np.random.default_rng(seed))
        if not mask.any():
            assert point is None
            continue
        x, y = point
        assert (x % 1, y % 1) == (0.5, 0.5)
        assert mask[int(y), int(x)]


@pytest.mark.parametrize("rule", RULES)
def test_one_pixel_and_none(rule):
    mask = np.zeros((9, 7), dtype=bool)
    assert draw_point(mask, rule, np.random.default_rng(0)) is None
    mask[8, 6] = True  # the image's corner
    assert draw_point(mask, rule, np.random.default_rng(0)) == (6.5, 8.5)


def test_the_deepest_pixel():
    mask = np.zeros((30, 30), dtype=bool)
    mask[2:9, 2:9] = True
    mask[4, 9:28] = True  # an arm, which moves the box's centre but not the deepest pixel
    assert draw_point(mask, "center", np.random.default_rng(0)) == (5.5, 5.5)
    mask[:] = True  # the image's border is the mask's
    x, y = draw_point(mask, "center", np.random.default_rng(0))
    assert {x, y} <= {14.5, 15.5}


def plain_quasi_center(mask):
    """RG(p; 0, 1/4, 1/4), a pixel at a time."""
    rows, columns = np.nonzero(mask)
    x1, y1, x2, y2 = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    w, h = x2 - x1, y2 - y1
    gauss, inside = [], []
    for row, column in zip(rows, columns, strict=True):
        dx, dy = column + 0.5 - (x1 + x2) / 2, row + 0.5 - (y1 + y2) / 2
        gauss.append(np.exp(-((dx / w) ** 2 + (dy / h) ** 2) / (2 * 0.25**2)))
        inside.append((dx / min(96, w / 8)) ** 2 + (dy / min(96, h / 8)) ** 2 <= 1)
    gauss, inside = np.array(gauss), np.array(inside)
    weight = gauss * inside if inside.any() else gauss
    return weight / weight.sum()


def test_quasi_center_is_a_cut_off_gaussian():
    for seed in range(30):
        mask = blob(seed)
        if mask.any():
            got = quasi_center(*np.nonzero(mask))
            np.testing.assert_allclose(got, plain_quasi_center(mask), rtol=1e-9, atol=1e-15)


def test_the_ellipse_of_a_huge_object_is_cut():
    mask = np.ones((100, 1600), dtype=bool)
    rows, columns = np.nonzero(mask)
    used = quasi_center(rows, columns) > 0
    assert columns[used].max() - columns[used].min() + 1 == 192
    assert rows[used].max() - rows[used].min() + 1 == 2 * int(100 / 8)


def test_a_ring_has_no_centre():
    """Where the ellipse misses the mask, the Gaussian is taken over all of it."""
    mask = np.zeros((41, 41), dtype=bool)
    mask[:] = True
    mask[3:38, 3:38] = False
    weight = quasi_center(*np.nonzero(mask))
    assert (weight > 0).all()
    rows, columns = np.nonzero(mask)
    nearest = np.hypot(rows - 20, columns - 20).argmin()
    assert weight[nearest] == weight.max()


def test_random_takes_every_pixel_alike():
    mask = np.zeros((4, 4), dtype=bool)
    mask[1, :3] = True
    rng = np.random.default_rng(0)
    xs = [draw_point(mask, "random", rng)[0] for _ in range(600)]
    counts = [xs.count(x) for x in (0.5, 1.5, 2.5)]
    assert sum(counts) == 600
    assert min(counts) > 150


def instances(*rows):
    size = {"height": 60, "width": 80}
    images = [{"id": n, "file_name": f"{n}.png", **size} for n in range(3)]
    return {"images": images, "annotations": list(rows), "categories": [{"id": 3, "name": "c"}]}


def test_a_document_of_points():
    nothing = np.zeros((60, 80), dtype=bool)
    rows = [
        instance(4, 0, 3, blob(1)),
        instance(5, 1, 3, blob(2), crowd=True),
        instance(6, 2, 3, nothing),
        instance(7, 0, 3, blob(3)),
    ]
    document = draw_points(instances(*rows), "quasi-center", 0)
    assert [row["id"] for row in document["annotations"]] == [4, 7]
    assert [image["id"] for image in document["images"]] == [0]
    assert all(
        set(r) == {"id", "image_id", "category_id", "point"} for r in document["annotations"]
    )
    assert draw_points(instances(), "center", 0)["annotations"] == []
    # a point is its object's own: neither order nor company matters, the seed does
    alone = draw_points(instances(rows[3]), "quasi-center", 0)["annotations"]
    assert alone == document["annotations"][1:]
    seeds = {
        tuple(draw_points(instances(rows[3]), "random", s)["annotations"][0]["point"])
        for s in range(9)
    }
    assert len(seeds) > 1


def test_jittered_points():
    """Noise of the asked size about the same points, within the image."""
    rows = [instance(id_, 0, 3, blob(1)) for id_ in range(400)]
    plain, moved = (
        draw_points(instances(*rows), "center", 0, jitter)["annotations"] for jitter in (0.0, 2.0)
    )
    shifts = np.array([m["point"] for m in moved]) - np.array([p["point"] for p in plain])
    assert np.abs(shifts.std(axis=0) - 2.0).max() < 0.25
    assert np.abs(shifts.mean(axis=0)).max() < 0.4
    far = draw_points(instances(*rows), "center", 0, 500.0)["annotations"]
    points = np.array([row["point"] for row in far])
    assert (points >= 0).all()
    assert (points < (80, 60)).all()
    again = draw_points(instances(*rows[5:]), "center", 0, 2.0)["annotations"]
    assert again == moved[5:]
