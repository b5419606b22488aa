"""Windows and their cells, against plain loops over pixels."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from sapnet.labelers.sapnet.teacher import dataset as lessons_module
from sapnet.labelers.sapnet.teacher.dataset import (
    TeacherDataset,
    cells_of,
    frame_of,
    make_example,
    normal_colours,
)

FINE = 2


def box_mask(size, x0, y0, x1, y1):
    mask = np.zeros(size, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def shares_of(mask, frame, cells):
    """The share of each cell of a window that a mask holds, sampled at 2 × 2 places a cell."""
    found = np.zeros((cells, cells))
    width, height = (frame[2] - frame[0]) / cells, (frame[3] - frame[1]) / cells
    for row in range(cells):
        for column in range(cells):
            for a in range(FINE):
                for b in range(FINE):
                    y = math.floor(frame[1] + (row + (a + 0.5) / FINE) * height)
                    x = math.floor(frame[0] + (column + (b + 0.5) / FINE) * width)
                    if 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1]:
                        found[row, column] += mask[y, x] / FINE**2
    return found


OBJECTS = {
    "inside": (30.5, 20.5, [(20, 12, 40, 30), (26, 18, 33, 25)]),
    "at the corner": (0.5, 0.5, [(0, 0, 9, 7), (0, 0, 3, 3)]),
    "the whole image": (60.5, 44.5, [(0, 0, 64, 48), (50, 40, 64, 48)]),
    "one pixel": (10.5, 10.5, [(10, 10, 11, 11)]),
    "the point outside of every box": (50.5, 40.5, [(20, 12, 30, 20)]),
}


def frames(example, short_side):
    """The windows in pixels of the image; the network's short side is 96."""
    return example.windows.double() * (short_side / 96)


@pytest.mark.parametrize("name", OBJECTS)
def test_masks_on_cells_against_a_loop(own_record, body, config, name):
    x, y, boxes = OBJECTS[name]
    masks = [box_mask((48, 64), *box) for box in boxes]
    record = own_record((48, 64), [(x, y, 3, masks)])
    example = make_example(body, record, config)
    low = [min(min(b[i] for b in boxes), (x, y)[i]) for i in (0, 1)]
    high = [max(max(b[i + 2] for b in boxes), (x, y)[i]) for i in (0, 1)]
    margin = [0.1 * (h - lo) + 4 for lo, h in zip(low, high, strict=True)]
    frame = [low[0] - margin[0], low[1] - margin[1], high[0] + margin[0], high[1] + margin[1]]
    assert frames(example, 48)[0].tolist() == pytest.approx(frame, abs=1e-4)
    for mask, got in zip(masks, example.masks[0], strict=True):
        expected = shares_of(mask, frames(example, 48)[0].numpy(), config.teacher.cells)
        assert expected.sum() > 0
        np.testing.assert_allclose(got.numpy() / 255, expected, atol=1 / 255)
    factor = torch.tensor([2.0, 2.0])  # short side 48 to 96
    torch.testing.assert_close(example.points, torch.tensor([[x, y]]) * factor)


def test_cells_say_where_the_image_ends():
    rows, columns, inside = cells_of(np.array([-4.0, 2.0, 4.0, 10.0]), (6, 3), 4)
    assert rows.tolist() == [2, 3, 4, 5, 5, 5, 5, 5]
    assert columns.tolist() == [0, 0, 0, 0, 0, 1, 2, 2]
    expected = [[int(r < 4 and 4 <= c < 7) for c in range(8)] for r in range(8)]
    assert inside.tolist() == expected


def test_a_speck_that_no_sample_meets_keeps_a_cell(own_record, body, config):
    """On no cell at all it would have the best contrast of its bag."""
    size = (200, 200)
    speck = box_mask(size, 101, 97, 102, 98)
    record = own_record(size, [(101.5, 97.5, 3, [box_mask(size, 5, 5, 195, 195), speck])])
    example = make_example(body, record, config)
    assert shares_of(speck, frames(example, 200)[0].numpy(), config.teacher.cells).sum() == 0
    (place,) = example.masks[0][1].nonzero().tolist()
    x0, y0, x1, y1 = frames(example, 200)[0].tolist()
    wanted = [int((97.5 - y0) / (y1 - y0) * 16), int((101.5 - x0) / (x1 - x0) * 16)]
    assert place == wanted


def test_foreign_proposals_do_not_widen_the_window(own_record, body, config):
    """Unless all of them contain another point: then all are allowed."""
    size = (48, 64)
    small, wide = box_mask(size, 5, 5, 15, 15), box_mask(size, 2, 2, 60, 40)
    record = own_record(size, [(10.5, 10.5, 3, [small, wide]), (50.5, 30.5, 3, [wide])])
    example = make_example(body, record, config)
    assert [a.tolist() for a in example.allowed] == [[True, False], [True]]
    assert frames(example, 48)[0].tolist() == pytest.approx([0, 0, 20, 20], abs=1e-4)
    assert frames(example, 48)[1].tolist() == pytest.approx([-7.8, -5.8, 69.8, 47.8], abs=1e-4)
    other_class = own_record(size, [(10.5, 10.5, 3, [small, wide]), (50.5, 30.5, 7, [wide])])
    assert make_example(body, other_class, config).allowed[0].tolist() == [True, True]


def test_frame_holds_the_point(own_record):
    record = own_record((48, 64), [(50.5, 40.5, 3, [box_mask((48, 64), 2, 2, 9, 9)])])
    frame = frame_of(record.bags[0], np.array([True]), np.array([50.5, 40.5], np.float32))
    assert frame[0] < 2 < 50.5 < frame[2]
    assert frame[1] < 2 < 40.5 < frame[3]


def test_colours_are_the_pixels_of_the_cells(own_record, body, config):
    record = own_record((48, 64), [(30.5, 20.5, 3, [box_mask((48, 64), 20, 12, 40, 30)])])
    example = make_example(body, record, config)
    pixels = np.asarray(Image.open(record.path)).astype(float) / 255
    pixels = pixels - pixels.mean(axis=(0, 1))
    pixels /= pixels.std() + 0.02
    frame = frames(example, 48)[0].double().numpy()
    for channel in range(3):
        expected = shares_of(pixels[..., channel], frame, 16)
        np.testing.assert_allclose(example.colours[0, channel].numpy(), expected, atol=5e-3)


def test_colours_of_one_colour_are_nothing():
    assert not normal_colours(np.full((4, 5, 3), 77, np.uint8)).round(4).any()


def test_an_image_without_objects(own_record, body, config):
    example = make_example(body, own_record((48, 64), []), config)
    assert len(example) == 0
    assert example.points.shape == (0, 2)
    assert example.windows.shape == (0, 4)
    assert example.colours.shape == (0, 3, 16, 16)


def test_the_cache_is_bounded(plant, body, config, monkeypatch):
    records = [plant(seed).record for seed in range(3)]
    size = make_example(body, records[0], config).nbytes
    monkeypatch.setattr(lessons_module, "CACHE_BYTES", int(size * 2.5))
    dataset = TeacherDataset(body, records, config)
    first = [dataset[i] for i in range(3)]
    again = [dataset[i] for i in range(3)]
    assert [a is b for a, b in zip(first, again, strict=True)] == [True, True, False]
    assert torch.equal(first[2].features[0], again[2].features[0])
    assert torch.equal(first[2].masks[1], again[2].masks[1])
    assert len(list(dataset)) == 3


def test_nbytes_is_what_the_big_tensors_take(plant, body, config):
    example = make_example(body, plant(0).record, config)
    parts = [*example.features, *example.masks, example.colours]
    assert example.nbytes == sum(part.untyped_storage().nbytes() for part in parts)
