"""Progress of a job: one number that never falls, over all stages that a run may have."""

import pytest

from sapnet.pipeline.run import STAGES
from worker.runtime.progress import STAGES as SHARES
from worker.runtime.progress import Progress, overall


def test_the_stages_are_the_trainers() -> None:
    assert tuple(SHARES) == STAGES
    assert sum(SHARES.values()) == pytest.approx(1)


@pytest.mark.parametrize("left_out", [None, "teacher"])
def test_it_never_falls_and_ends_at_one(left_out: str | None) -> None:
    told = [
        overall(stage, step, 5) for stage in STAGES if stage != left_out for step in range(1, 6)
    ]
    assert told == sorted(told)
    assert len(set(told)) == len(told)
    assert 0 < told[0] < told[-1] == pytest.approx(1)
    assert overall("teacher", 0, 0) == overall("proposals", 5, 5)


def test_a_step_of_the_teacher_is_a_step_ahead() -> None:
    """Of an attempt that ended in proposals, not of one that was in training."""
    event = {"event": "progress", "stage": "teacher", "step": 1, "of": 3, "losses": {"mask": 0.5}}
    ahead = Progress("proposals", 90).take(event)
    assert (ahead["stage"], ahead["setbacks"], ahead["losses"]) == ("teacher", 0, {"mask": 0.5})
    assert "setbacks" not in Progress("train", 1).take(event)
