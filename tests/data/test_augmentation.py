"""Augmentation: what is drawn, and what becomes of the colours."""

from types import SimpleNamespace

import pytest
import torch

from sapnet.config.resolve import resolve_config
from sapnet.config.schema import DataConfig
from sapnet.data.augmentation import Augmentation, draw_augmentation, jitter_color
from sapnet.data.samples import IMAGE_MEAN, IMAGE_STD, Sample
from sapnet.training.loader import BatchLoader
from sapnet.types import ImageInfo

MEAN, STD = (torch.tensor(v).view(3, 1, 1) for v in (IMAGE_MEAN, IMAGE_STD))


def sample(pixels):
    return Sample(None, (pixels - MEAN) / STD, (1.0, 1.0), False)


def pixels_of(changed):
    return changed.image * STD + MEAN


@pytest.fixture
def pixels(generator):
    return torch.rand(3, 8, 12, generator=generator)


def test_what_is_off_draws_nothing(generator):
    state = generator.get_state()
    assert draw_augmentation(DataConfig(flip=False), generator) == Augmentation()
    assert torch.equal(generator.get_state(), state)
    with_flip = draw_augmentation(DataConfig(), generator)
    expected = torch.rand((), generator=torch.Generator().set_state(state)) < 0.5
    assert with_flip == Augmentation(flip=bool(expected))


def test_draws_fill_their_ranges(generator):
    config = DataConfig(min_scale=0.5, color_jitter=0.4)
    drawn = [draw_augmentation(config, generator) for _ in range(300)]
    assert {one.flip for one in drawn} == {True, False}
    for values, low, high in (
        ([one.scale for one in drawn], 0.5, 1.0),
        ([factor for one in drawn for factor in one.color], 0.6, 1.4),
    ):
        assert low <= min(values) < low + 0.05
        assert high - 0.05 < max(values) <= high


def test_factors_of_one_change_nothing(pixels):
    torch.testing.assert_close(pixels_of(jitter_color(sample(pixels), (1, 1, 1))), pixels)


def test_brightness_contrast_and_saturation(pixels):
    dark = pixels_of(jitter_color(sample(pixels), (0.5, 1, 1)))
    torch.testing.assert_close(dark, pixels / 2)
    grey = (pixels * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(0)
    colourless = pixels_of(jitter_color(sample(pixels), (1, 1, 0)))
    torch.testing.assert_close(colourless, grey.expand(3, -1, -1))
    flat = pixels_of(jitter_color(sample(pixels), (1, 0, 1)))
    torch.testing.assert_close(flat, grey.mean().expand(3, 8, 12))
    loud = pixels_of(jitter_color(sample(pixels), (1.4, 1.4, 1.4)))
    assert loud.min() >= -1e-6
    assert loud.max() <= 1 + 1e-6


def test_the_loader_augments_by_seed_and_step(monkeypatch):
    sizes = []

    def load(record, config, side, flip):
        sizes.append(side)
        return sample(torch.full((3, 4, 6), 0.5))

    monkeypatch.setattr("sapnet.training.loader.load_sample", load)
    overrides = {"data.min_scale": 0.5, "data.color_jitter": 0.3, "train.batch_size": 2}
    config = resolve_config(overrides=overrides)
    records = [SimpleNamespace(info=ImageInfo(n, f"{n}.png", 96, 64)) for n in range(4)]
    runs = []
    for _ in range(2):
        batches = BatchLoader(records, config, 1)
        runs.append([s.image for i in range(3) for s in batches(batches.step(i))[0]])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
    assert len({float(image.sum()) for image in runs[0]}) == 6
    assert all(192 <= size <= 384 for size in sizes)
    assert len(set(sizes)) > 2
