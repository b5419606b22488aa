"""What the columns of a job tell, as events: stages that begin and end, warnings, progress.

Why from the columns: they are what was written. What could not be written comes again with the
next columns, and its events with it. Images that failed and validations have no column: they are
kept here until they are written.
"""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from app.db.models import EventType
from app.jobs.events import NewEvent

_PROGRESS = ("stage", "step", "of", "progress", "eta_seconds", "losses")


class Journal:
    """The events of one attempt. `of` gives them, `mark_written` notes that they were written."""

    def __init__(self, warnings: Iterable[str] = ()) -> None:
        """warnings: those of the attempts before, which are not written again."""
        self._warnings = set(warnings)
        self._queued: list[NewEvent] = []
        self._stage: str | None = None
        self._last_progress = -math.inf
        self._told: tuple[str, int] | None = None

    def set_aside(self, entry: Mapping[str, Any]) -> None:
        """An image failed, and the job goes on without it; written with the next columns."""
        named = ("image_id", "file_name", "stage", "error")
        self._queued.append((EventType.IMAGE_SET_ASIDE, {n: entry.get(n) for n in named}))

    def validated(self, entry: Mapping[str, Any]) -> None:
        """The model was measured on images held out; written with the next columns."""
        named = ("step", "of", "against", "figures")
        self._queued.append((EventType.VALIDATION, {n: entry.get(n) for n in named}))

    def of(self, columns: Mapping[str, Any], seconds: float) -> list[NewEvent]:
        """Return the events of these columns of the job's row.

        Args:
            seconds: progress within a stage is an event at most once in so many. Where a stage
                begins and where it ends it always is one: a short stage has no other.
        """
        warned = [m for m in columns.get("warnings", ()) if m not in self._warnings]
        events: list[NewEvent] = [(EventType.WARNING, {"message": m}) for m in warned]
        events += self._queued
        stage = columns.get("stage")
        if stage is None:
            return events
        begins = stage != self._stage
        if begins:
            if self._stage is not None:
                events.append(stage_ended(self._stage))
            events.append((EventType.STAGE, {"stage": stage, "status": "started"}))
        ends = columns["step"] == columns["of"] and (stage, columns["step"]) != self._told
        if begins or ends or time.monotonic() - self._last_progress >= seconds:
            events.append((EventType.PROGRESS, {name: columns.get(name) for name in _PROGRESS}))
        return events

    def mark_written(self, events: Sequence[NewEvent]) -> None:
        """Note that these events are in the database, so that they are not written again."""
        self._queued = [event for event in self._queued if event not in events]
        for kind, data in events:
            if kind is EventType.WARNING:
                self._warnings.add(data["message"])
            elif kind is EventType.STAGE and data["status"] == "started":
                self._stage = data["stage"]
            elif kind is EventType.PROGRESS:
                self._last_progress = time.monotonic()
                self._told = data["stage"], data["step"]


def stage_ended(stage: str) -> NewEvent:
    """Return the event of the end of a stage."""
    return EventType.STAGE, {"stage": stage, "status": "ended"}
