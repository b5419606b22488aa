"""What a job's process reports, as columns of the job's row."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from worker.runtime.job_events import Journal
from worker.runtime.subprocess import Event

_SECONDS_BETWEEN_WRITES = 1.0


def overall(stage: str, step: int, of: int, stages: Mapping[str, float]) -> float:
    """Return the progress of the whole job in [0, 1]; an unknown stage counts as the beginning."""
    if stage not in stages:
        return 0.0
    before = sum(list(stages.values())[: list(stages).index(stage)])
    return before + stages[stage] * min(max(step / of, 0.0), 1.0) if of > 0 else before


class Progress:
    """Takes events, and gives now and then the columns to write: about once a second."""

    def __init__(
        self,
        stage: str | None,
        step: int | None,
        warnings: Sequence[str],
        stages: Mapping[str, float],
    ) -> None:
        """Begin where the attempt before this one came to.

        Args:
            stage: that one's last stage.
            step: that one's last step.
            warnings: of the attempts before.
            stages: the share of the whole job that each takes, in order.
        """
        self._stages = stages
        self.warnings = list(warnings)
        self.journal = Journal(warnings)
        self.error: Event | None = None
        self._reached = self._rank(stage, step)
        self._pending: dict[str, Any] = {}
        self._last_write = 0.0
        self._stage = stage
        self._made: set[str] = set()

    def take(self, event: Event) -> dict[str, Any]:
        """Take an event in.

        Returns:
            The columns to write now; none where there is nothing new or it is too soon.
        """
        match event:
            case {"event": "start"}:
                for name in ("proposal_generator", "weights_origin"):
                    self._pending[name] = event.get(name)
                self._last_write = 0.0
            case {"event": "preset", "preset": str(preset), "reasons": list(reasons)}:
                self._pending |= {"preset": preset, "preset_reasons": list(map(str, reasons))}
                self._last_write = 0.0
            case {"event": "progress", "stage": str(stage), "step": int(step), "of": int(of)}:
                if stage not in self._made:
                    self._advance(stage, step, of, event)
            case {"event": "made", "stage": str(stage)}:
                self._made.add(stage)  # the process looks at what there is, which is no progress
            case {"event": "warning", "message": str(message)} if message not in self.warnings:
                self.warnings.append(message)
                self._pending["warnings"] = list(self.warnings)
            case {"event": "image_set_aside"}:
                self.journal.set_aside(event)
            case {"event": "validation"}:
                self.journal.validated(event)
            case {"event": "error"}:
                self.error = event
        if time.monotonic() - self._last_write < _SECONDS_BETWEEN_WRITES:
            return {}
        return self.flush()

    def flush(self) -> dict[str, Any]:
        """Return the columns that were not written yet, however soon it is."""
        values, self._pending = self._pending, {}
        if values:
            self._last_write = time.monotonic()
        return values

    def postpone(self, values: dict[str, Any]) -> None:
        """Take back values that could not be written: they come with the next, unless newer."""
        self._pending = values | self._pending

    def _advance(self, stage: str, step: int, of: int, event: Event) -> None:
        if stage != self._stage or step >= of:
            self._stage, self._last_write = stage, 0.0  # written at once
        self._pending |= {
            "stage": stage,
            "step": step,
            "of": of,
            "progress": overall(stage, step, of, self._stages),
            "eta_seconds": event.get("eta_seconds"),
            "losses": event.get("losses"),
        }
        if self._rank(stage, step) > self._reached:
            self._pending |= {"setbacks": 0, "error": None, "reason": None}

    def _rank(self, stage: str | None, step: int | None) -> tuple[int, int]:
        stages: list[str | None] = list(self._stages)
        return (stages.index(stage) if stage in stages else -1, step or 0)
