"""The images of each step: drawn by seed and step alone, read ahead, the unreadable told of."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from sapnet.config.resolve import resolve_config
from sapnet.data.images import ImageProblem
from sapnet.training.loader import BatchLoader
from sapnet.types import ImageInfo

CONFIG = resolve_config(overrides={"data.short_sides": [64, 96], "train.batch_size": 2})


def records(count):
    return [SimpleNamespace(info=ImageInfo(n, f"{n}.png", 96, 64)) for n in range(count)]


@pytest.fixture(name="drawn")
def _drawn(monkeypatch):
    """Reading gives back what was asked for: (image, short side, flip)."""
    monkeypatch.setattr(
        "sapnet.training.loader.load_sample",
        lambda record, _config, side, flip: (record.info.id, side, flip),
    )


def of(batches, index):
    samples, generators = batches(batches.step(index))
    numbers = [float(torch.rand((), generator=g)) for g in generators]
    return [(*s, n) for s, n in zip(samples, numbers, strict=True)]


@pytest.mark.usefixtures("drawn")
def test_draws_are_functions_of_seed_and_step(monkeypatch):
    """Short side and flips, in any order of asking; the global generator is left alone."""
    before = torch.get_rng_state()
    batches = BatchLoader(records(5), CONFIG, 1)
    forwards = [of(batches, index) for index in range(30)]
    assert [of(batches, index) for index in reversed(range(30))] == forwards[::-1]
    assert torch.equal(before, torch.get_rng_state())
    samples = [s for step in forwards for s in step]
    assert {side for _, side, *_ in samples} == {64, 96}
    assert {flip for _, _, flip, _ in samples} == {True, False}
    assert len({number for *_, number in samples}) == 60
    for step in forwards:
        assert len({side for _, side, *_ in step}) == 1  # one size a batch
    for count in (2, 3):  # as shared out: each image has the draws that it had in one process
        monkeypatch.setattr("sapnet.utils.distributed.processes", lambda count=count: count)
        shares = []
        for rank in range(count):
            monkeypatch.setattr("sapnet.utils.distributed.rank", lambda rank=rank: rank)
            part = BatchLoader(records(5), CONFIG, 1)
            shares.append([of(part, index) for index in range(30)])
        for step, *parts in zip(forwards, *shares, strict=True):
            assert sorted(s for part in parts for s in part) == sorted(step)


def test_the_next_step_is_read_meanwhile(monkeypatch):
    """And nothing is read that no step of the run asks for."""
    read = []
    monkeypatch.setattr(
        "sapnet.training.loader.load_sample",
        lambda record, *_rest: read.append(record.info.id) or record,
    )
    config = replace(CONFIG, train=replace(CONFIG.train, epochs=2, min_steps=0))
    batches = BatchLoader(records(4), config, 0)
    assert batches.total == 4
    for index, expected in enumerate([4, 6, 8, 8]):
        batches(batches.step(index))
        batches._pool.submit(int).result()  # threads take their work in order
        deadline = [None] * 200
        while deadline and len(read) < expected:
            deadline.pop()
            batches._pool.submit(int).result()
        assert len(read) == expected


@pytest.mark.parametrize("bad", [{1}, {0, 1, 3}, {0, 1, 2, 3}])
def test_images_that_cannot_be_read(monkeypatch, bad):
    """The next one is taken in their place, and whoever asks is told by the thread that asks."""
    told = []

    def load(record, *_rest):
        if record.info.id in bad:
            raise ImageProblem("damaged")
        return record.info.id

    monkeypatch.setattr("sapnet.training.loader.load_sample", load)
    batches = BatchLoader(records(4), CONFIG, 0, lambda info, _error: told.append(info.id))
    if len(bad) == 4:
        with pytest.raises(ImageProblem, match="damaged"):
            batches(batches.step(0))
        assert set(told) == bad
        return
    read = [batches(batches.step(index))[0] for index in range(2)]
    assert not bad & {image for step in read for image in step}
    assert set(told) == bad
    alone = BatchLoader(records(4), CONFIG, 0)  # nobody to tell
    with pytest.raises(ImageProblem, match="damaged"):
        list(map(alone, (alone.step(0), alone.step(1))))
