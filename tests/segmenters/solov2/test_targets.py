"""Targets against nested loops over levels, instances and cells."""

import math

import pytest
import torch

from sapnet.config.schema import SoloConfig
from sapnet.segmenters.solov2 import assign


def loops(masks, labels, config, num_classes):
    """{cell: (level, instance)} and the class of every cell, the slow way."""
    height, width = masks.shape[-2:]
    claims: dict[int, tuple[bool, int, int, int]] = {}
    offset = 0
    lowest, highest = config.scale_ranges[0][0], config.scale_ranges[-1][1]
    for level, (grid, (low, high)) in enumerate(
        zip(config.num_grids, config.scale_ranges, strict=True)
    ):
        for n, mask in enumerate(masks):
            ys, xs = mask.nonzero(as_tuple=True)
            if len(ys) == 0:
                continue
            w, h = int(xs.max() - xs.min()) + 1, int(ys.max() - ys.min()) + 1
            scale = min(max(4 * math.sqrt(w * h), lowest), highest)
            if not low <= scale <= high:
                continue
            cx, cy = float((xs + 0.5).mean()) / width, float((ys + 0.5).mean()) / height
            half_w, half_h = (
                0.5 * config.center_region * w / width,
                0.5 * config.center_region * h / height,
            )
            column, row = int(cx * grid), int(cy * grid)
            for i in range(grid):
                for j in range(grid):
                    near = abs(i - row) <= 1 and abs(j - column) <= 1
                    touched = math.floor((cy - half_h) * grid) <= i <= math.floor(
                        (cy + half_h) * grid
                    ) and math.floor((cx - half_w) * grid) <= j <= math.floor((cx + half_w) * grid)
                    if near and touched:
                        claim = ((i, j) != (row, column), len(ys), n, level)
                        cell = offset + i * grid + j
                        claims[cell] = min(claims.get(cell, claim), claim)
        offset += grid * grid
    classes = [num_classes] * offset
    for cell, (_, _, n, _) in claims.items():
        classes[cell] = int(labels[n])
    return {cell: (level, n) for cell, (_, _, n, level) in claims.items()}, classes


def same_as_loops(masks, labels, config, num_classes):
    got = assign(masks, labels, config, num_classes)
    claims, classes = loops(masks, labels, config, num_classes)
    found = zip(got.cells.tolist(), got.levels.tolist(), got.instances.tolist(), strict=True)
    assert {cell: (level, n) for cell, level, n in found} == claims
    assert got.cells.tolist() == sorted(claims)
    assert got.classes.tolist() == classes
    return got


@pytest.mark.parametrize("n", [1, 2, 7, 300])
@pytest.mark.parametrize("size", [(16, 16), (11, 23)])
def test_same_as_nested_loops(make_masks, small, n, size):
    masks = make_masks(n, *size)
    same_as_loops(masks, torch.arange(n) % 5, small, 5)


def test_same_as_nested_loops_on_the_paper_grids(make_masks):
    same_as_loops(make_masks(40, 50, 67), torch.arange(40) % 3, SoloConfig(), 3)


def test_no_instance(small):
    got = assign(
        torch.zeros(0, 16, 16, dtype=torch.bool), torch.zeros(0, dtype=torch.int64), small, 3
    )
    assert len(got) == 0
    assert (got.classes == 3).all()
    assert len(got.classes) == sum(s * s for s in small.num_grids)


def test_an_empty_mask_gets_no_cell(small):
    masks = torch.zeros(2, 16, 16, dtype=torch.bool)
    masks[1, 3, 4] = True
    got = same_as_loops(masks, torch.tensor([0, 0]), small, 1)
    assert got.instances.unique().tolist() == [1]


@pytest.mark.parametrize("place", [(0, 0), (0, 15), (15, 0), (15, 15)])
def test_one_pixel_in_a_corner(small, place):
    masks = torch.zeros(1, 16, 16, dtype=torch.bool)
    masks[0, place[0], place[1]] = True
    got = same_as_loops(masks, torch.tensor([0]), small, 1)
    expected = (place[0] // 2) * 8 + place[1] // 2
    assert got.cells.tolist() == [expected]
    assert got.levels.tolist() == [0]


def test_an_object_beyond_all_ranges_goes_to_the_nearest_level(small):
    masks = torch.ones(1, 16, 16, dtype=torch.bool)
    narrow = SoloConfig(
        num_grids=small.num_grids, scale_ranges=((30, 31), (31, 32), (32, 33), (33, 34), (34, 35))
    )
    assert same_as_loops(masks, torch.tensor([0]), narrow, 1).levels.unique().tolist() == [4]
    speck = torch.zeros(1, 16, 16, dtype=torch.bool)
    speck[0, 5, 5] = True
    assert same_as_loops(speck, torch.tensor([0]), narrow, 1).levels.unique().tolist() == [0]


def test_of_two_centres_in_one_cell_the_smaller_object_wins(small):
    masks = torch.zeros(2, 16, 16, dtype=torch.bool)
    masks[0, 8:11, 8:11] = True
    masks[1, 8:10, 8:10] = True
    got = same_as_loops(masks, torch.tensor([0, 1]), small, 2)
    assert got.instances[got.cells == 4 * 8 + 4].tolist() == [1]


def test_of_twins_the_first_wins(small):
    masks = torch.zeros(2, 16, 16, dtype=torch.bool)
    masks[:, 8:10, 8:10] = True
    got = same_as_loops(masks, torch.tensor([0, 1]), small, 2)
    assert got.instances.unique().tolist() == [0]


def test_the_centre_outranks_a_smaller_object_that_only_reaches_the_cell(small):
    wide = SoloConfig(num_grids=small.num_grids, scale_ranges=small.scale_ranges, center_region=1.0)
    masks = torch.zeros(2, 16, 16, dtype=torch.bool)
    masks[0, 4:8, 4:8] = True  # centre in cell (3, 3) of the finest grid
    masks[1, 6:9, 8:10] = True  # smaller, its region starts in row 3
    got = same_as_loops(masks, torch.tensor([0, 1]), wide, 2)
    assert got.instances[got.cells == 3 * 8 + 3].tolist() == [0]


def test_order_of_instances_does_not_matter(make_masks, small):
    masks = make_masks(20)
    masks = masks[masks.flatten(1).sum(1).unique(return_inverse=True)[1].argsort()]
    area = masks.flatten(1).sum(1)
    masks = masks[torch.cat((torch.tensor([True]), area[1:] != area[:-1]))]  # no ties
    labels = torch.arange(len(masks))
    shuffle = torch.randperm(len(masks), generator=torch.Generator().manual_seed(1))
    one = assign(masks, labels, small, len(masks))
    two = assign(masks[shuffle], labels[shuffle], small, len(masks))
    assert torch.equal(one.classes, two.classes)
    assert torch.equal(one.instances, shuffle[two.instances])


def test_a_flipped_image_has_flipped_targets(small):
    masks = torch.zeros(3, 17, 23, dtype=torch.bool)  # sides that put no centre on a cell's border
    masks[0, 2:5, 2:6], masks[1, 6:16, 9:16], masks[2, 1:3, 20:23] = True, True, True
    labels = torch.tensor([0, 1, 2])
    one, two = assign(masks, labels, small, 3), assign(masks.flip(2), labels, small, 3)
    assert set(one.instances.tolist()) == {0, 1, 2}
    splits = [s * s for s in small.num_grids]
    levels = zip(one.classes.split(splits), two.classes.split(splits), small.num_grids, strict=True)
    for a, b, grid in levels:
        assert torch.equal(a.view(grid, grid).flip(1), b.view(grid, grid))
