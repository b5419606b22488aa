"""The contract of a run that is started as a process: its stages and exit codes.

Imports nothing, so that the service and the worker, which load no torch, share it with the run.
"""

from enum import IntEnum, StrEnum


class Stage(StrEnum):
    """The stages of a run, in order. The teacher is left out where the method has none."""

    PROPOSALS = "proposals"
    TEACHER = "teacher"
    TRAIN = "train"
    PSEUDO_MASKS = "pseudo-masks"
    EVALUATE = "evaluate"
    EXPORT = "export"


class ExitCode(IntEnum):
    """Exit codes of the process of a run or of an offline job."""

    DONE = 0
    FAILED = 1  # an `error` event came before
    STOPPED = 3  # on request; the same run started again goes on


def allowed_failures(images: int, share: float) -> int:
    """Return how many images of a run may fail.

    Args:
        images: of the run.
        share: of them, in [0, 1]; at least one where it is above 0, and never all of them.
    """
    least = 1 if share > 0 else 0
    return min(max(int(share * images), least), images - 1)
