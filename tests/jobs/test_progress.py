"""Progress of a job: one number that never falls, over all stages that a run may have."""

import pytest

from app.db.models import JobKind
from app.jobs.kinds import FETCH, KINDS, QUEUES, KindInfo
from sapnet.pipeline.contract import Stage
from worker.jobs.handlers import handler_of
from worker.runtime.progress import Progress, overall

TRAIN = KINDS[JobKind.TRAIN].shares


def test_the_stages_of_a_training_are_those_of_the_run() -> None:
    assert list(TRAIN) == [FETCH, *Stage]


@pytest.mark.parametrize("kind", JobKind, ids=str)
def test_each_kind_has_a_queue_stages_and_a_handler(kind: JobKind) -> None:
    info: KindInfo = KINDS[kind]
    assert info.queue in QUEUES
    assert sum(info.shares.values()) == pytest.approx(1)
    assert len(info.shares) == len(info.stages) > 0
    assert handler_of(kind).kind is kind


@pytest.mark.parametrize("left_out", [None, "teacher"])
def test_it_never_falls_and_ends_at_one(left_out: str | None) -> None:
    told = [
        overall(stage, step, 5, TRAIN)
        for stage in TRAIN
        if stage != left_out
        for step in range(1, 6)
    ]
    assert told == sorted(told)
    assert len(set(told)) == len(told)
    assert 0 < told[0] < told[-1] == pytest.approx(1)
    assert overall("teacher", 0, 0, TRAIN) == overall("proposals", 5, 5, TRAIN)


def test_a_preset_is_written_at_once() -> None:
    progress = Progress(None, None, [], TRAIN)
    progress.take({"event": "progress", "stage": "proposals", "step": 1, "of": 3})
    told = {"event": "preset", "preset": "gpu", "reasons": ["16 cores.", "A GPU."]}
    columns = {"preset": "gpu", "preset_reasons": ["16 cores.", "A GPU."]}
    assert progress.take(told) == columns


def test_a_step_of_the_teacher_is_a_step_ahead() -> None:
    """Of an attempt that ended in proposals, not of one that was in training."""
    event = {"event": "progress", "stage": "teacher", "step": 1, "of": 3, "losses": {"mask": 0.5}}
    ahead = Progress("proposals", 90, [], TRAIN).take(event)
    assert (ahead["stage"], ahead["setbacks"], ahead["losses"]) == ("teacher", 0, {"mask": 0.5})
    assert "setbacks" not in Progress("train", 1, [], TRAIN).take(event)


def test_a_stage_that_others_have_made_is_not_told_again() -> None:
    progress = Progress(None, None, [], TRAIN)
    event = {"event": "progress", "stage": "proposals", "step": 3, "of": 3}
    assert progress.take(event)["step"] == 3
    progress.take({"event": "made", "stage": "proposals"})
    assert progress.take({**event, "step": 1}) == {}
    assert progress.take({**event, "stage": "train", "step": 1})["stage"] == "train"
