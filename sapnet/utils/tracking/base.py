"""What trackers are given, and what they can do."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from sapnet.utils.extras import missing_extra

TRACKERS = ("tensorboard", "mlflow", "wandb")
VALIDATION = "validation"
_NOT_IN_NAMES = re.compile(r"[^\w./-]+")
_CREDENTIALS = re.compile(r"(\w+://)[^\s/@]+@")


def error_in_words(error: Exception, most: int = 500) -> str:
    """One line of at most so many characters on what a tracker's package raised.

    The credentials of addresses are left out: what a job tells is read by more people.
    """
    words = missing_extra(error) or f"{type(error).__name__}: {error}"
    return without_credentials(" ".join(words.split()))[:most]


def without_credentials(text: str) -> str:
    """A text in which no address holds a user or a password."""
    return _CREDENTIALS.sub(r"\1", text)


class Scalar(NamedTuple):
    """A figure at a step of its series. `time` is in seconds since 1970."""

    name: str
    value: float
    step: int
    time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedEvent:
    """An event of a run.

    Attributes:
        seq: its number within the run; later ones are larger.
        type: progress, validation, end, …; as in the service's log of events.
        time: seconds since 1970.
    """

    seq: int
    type: str
    time: float
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """What a tracker is told of a run.

    Attributes:
        key: of the run, the same in each attempt at it.
        folder: for files of the tracker.
        run_id: the tracker's own, of an attempt before this one.
        params: what the run was asked for.
    """

    key: str
    name: str
    folder: Path
    run_id: str | None = None
    params: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a run ended.

    Attributes:
        state: succeeded, succeeded_with_warnings, failed or cancelled.
        time: seconds since 1970.
        figures: final ones, by name.
        params: those that were known at the end alone.
        files: to keep, by name: model.pt, report.html, gallery.png, …
    """

    state: str
    time: float
    figures: Mapping[str, float] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)

    @property
    def succeeded(self) -> bool:
        """Whether there are results."""
        return self.state.startswith("succeeded")


class Tracker(Protocol):
    """Keeps one run. Each method raises whatever its package does."""

    @property
    def run_id(self) -> str:
        """The tracker's own id of the run."""

    @property
    def url(self) -> str | None:
        """Where people see the run; None where it has no address."""

    def reached(self) -> Mapping[str, int]:
        """Return the last step of each series that is kept already, as far as can be told."""

    def log(self, scalars: Sequence[Scalar]) -> None:
        """Keep figures, for good once it returns."""

    def finish(self, ending: Ending) -> None:
        """Keep what came of the run, and end it. It may be called again."""

    def close(self) -> None:
        """Let go of the run, which may go on later."""


def scalars_of(event: TrackedEvent) -> list[Scalar]:
    """Return the figures of an event: losses by stage, and what validations measured."""
    data = event.data
    if event.type == "progress":
        series, figures = str(data.get("stage")), data.get("losses") or {}
    elif event.type == VALIDATION:
        series, figures = VALIDATION, data.get("figures") or {}
    else:
        return []
    step = data.get("step")
    if not isinstance(step, int):
        return []
    return [
        Scalar(f"{series}/{_plain(name)}", float(value), step, event.time)
        for name, value in figures.items()
        if isinstance(value, int | float) and math.isfinite(value)
    ]


def advancing(scalars: Iterable[Scalar], reached: dict[str, int]) -> Iterator[Scalar]:
    """Yield the figures whose step is beyond the last of their series.

    A training that goes on after a crash does some steps again.

    Args:
        reached: the last step of each series; brought up to date.
    """
    for scalar in scalars:
        if scalar.step > reached.get(scalar.name, -1):
            reached[scalar.name] = scalar.step
            yield scalar


def flattened(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield the numbers of a nested document by their path: "pseudo_masks/miou_mask"."""
    for name, value in document.items():
        path = f"{prefix}{_plain(name)}"
        if isinstance(value, Mapping):
            yield from flattened(value, f"{path}/")
        elif type(value) in (int, float) and math.isfinite(value):
            yield path, float(value)


def _plain(name: object) -> str:
    """A name that every tracker takes."""
    return _NOT_IN_NAMES.sub("_", str(name))
