"""One tracker and the events that it is given: none of its figures is kept twice."""

from collections.abc import Mapping
from typing import Any

from sapnet.utils.tracking.base import (
    Ending,
    RunInfo,
    TrackedEvent,
    Tracker,
    advancing,
    scalars_of,
)


def open_tracker(kind: str, info: RunInfo) -> Tracker:
    """Make or find the tracker's run.

    Args:
        kind: one of `TRACKERS`.

    Raises:
        ValueError: there is no such tracker.
        Exception: whatever its package raises where it is not reached.
    """
    if kind == "tensorboard":
        from sapnet.utils.tracking.tensorboard import TensorBoard

        return TensorBoard(info)
    if kind == "mlflow":
        from sapnet.utils.tracking.mlflow import MlflowRun

        return MlflowRun(info)
    if kind == "wandb":
        from sapnet.utils.tracking.wandb import WandbRun

        return WandbRun(info)
    raise ValueError(f"there is no tracker {kind!r}")


class Session:
    """Gives events to a tracker.

    Args:
        reached: the last step of each series, as `reached` was after the last event.
    """

    def __init__(self, tracker: Tracker, reached: Mapping[str, int]) -> None:
        self.tracker = tracker
        kept = tracker.reached()
        self.reached = {
            name: max(steps.get(name, -1) for steps in (kept, reached))
            for name in {*kept, *reached}
        }

    def take(self, event: TrackedEvent) -> None:
        """Keep the figures of an event that are new."""
        reached = dict(self.reached)
        if new := list(advancing(scalars_of(event), reached)):
            self.tracker.log(new)
            self.reached = reached

    def finish(self, ending: Ending) -> None:
        """Keep what came of the run."""
        self.tracker.finish(ending)


def described(session: Session) -> dict[str, Any]:
    """Return where a session is: run, address, and how far its series are."""
    tracker = session.tracker
    return {"run_id": tracker.run_id, "url": tracker.url, "reached": session.reached}
