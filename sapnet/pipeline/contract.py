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
