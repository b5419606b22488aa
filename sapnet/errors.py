"""The library's exceptions, as classes that carry data; independent of HTTP."""

import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass

ATTEMPT_FAILED = "attempt_failed"
"""Reason of a failure after which the same run, started again, may well succeed."""


class SapnetError(Exception):
    """Root of the library's own errors. `reason` is a stable code for programs."""

    reason = "error"


@dataclass(frozen=True, slots=True)
class ValidationIssue:
    """One thing that is wrong in a document.

    Attributes:
        pointer: RFC 6901 JSON pointer to the place ("" is the whole document,
            "/annotations/3/point").
        problem: what is wrong there.
        hint: how to fix it.
    """

    pointer: str
    problem: str
    hint: str


class InvalidDataset(SapnetError):
    """The annotations or the images are not usable. `issues` lists everything found, in order."""

    reason = "invalid_dataset"

    def __init__(self, issues: list[ValidationIssue]) -> None:
        self.issues = issues
        first = "; ".join(
            f"{i.pointer or '/'}: {i.problem}" + (f" ({i.hint})" if i.hint else "")
            for i in issues[:3]
        )
        more = f" (and {len(issues) - 3} more)" if len(issues) > 3 else ""
        super().__init__(f"{first}{more}")


class InvalidGeometry(SapnetError, ValueError):
    """A size, a mask, a polygon or a box that cannot be one of its image.

    `hint` says how to fix it.
    """

    reason = "invalid_geometry"

    def __init__(self, problem: str, hint: str = "write the masks of this file anew") -> None:
        self.hint = hint
        super().__init__(problem)


class InvalidConfig(SapnetError):
    """A preset, an override or a combination of settings does not exist or does not fit."""

    reason = "invalid_config"


class WeightsUnavailable(SapnetError):
    """Weights that were asked for are missing, do not fit, or fail their checksum."""

    reason = "weights_unavailable"


class NonFiniteLoss(SapnetError):
    """A loss term became NaN or infinite. `term` names it, `step` says when."""

    reason = "non_finite_loss"

    def __init__(self, term: str, step: int, value: float) -> None:
        self.term, self.step, self.value = term, step, value
        super().__init__(
            f"loss term {term!r} became {value} at step {step}; a lower learning rate helps"
        )


class OutOfMemory(SapnetError):
    """The GPU's memory does not hold one step, not even with the smallest batch."""

    reason = "out_of_memory"


class DiskFull(SapnetError):
    """There is no room to go on. What was written before is whole."""

    reason = "disk_full"


DISK_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""No space on the device, a quota, a limit on the size of files."""


def chain_of(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, those in it where it is a group, and all that led to it, each once."""
    left, visited = [error], set[int]()
    while left:
        one = left.pop()
        if one is None or id(one) in visited:
            continue
        visited.add(id(one))
        yield one
        left += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            left += one.exceptions


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, is the system's refusal for want of space.

    torch raises errors of its own for it.
    """
    return any(
        isinstance(one, OSError) and one.errno in DISK_FULL_ERRNOS for one in chain_of(error)
    )


_REFUSED_MEMORY = re.compile(
    r"out of memory|can(no|')t allocate memory|_(ALLOC_FAILED|NOT_INITIALIZED)", re.IGNORECASE
)
"""In the words of torch, cuBLAS and cuDNN, for a GPU's memory and for the machine's."""


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, is the refusal of memory, a GPU's or the machine's.

    Other work on the machine may be what holds it, so the same may do later.
    """
    return any(
        isinstance(one, MemoryError)
        or (isinstance(one, OSError) and one.errno == errno.ENOMEM)
        or (isinstance(one, RuntimeError) and _REFUSED_MEMORY.search(f"{one}") is not None)
        for one in chain_of(error)
    )


class Stopped(SapnetError):
    """The run was asked to stop. Its checkpoint is written; the same run started again goes on."""

    reason = "stopped"
