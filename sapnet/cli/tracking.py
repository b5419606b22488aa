"""`sapnet train --track`: the events of a run go to trackers, for which it never waits."""

import json
import queue
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sapnet.errors import InvalidConfig
from sapnet.pipeline.events import Done, Event, EventSink, Failed, Warned
from sapnet.utils.files import write_text
from sapnet.utils.tracking.base import (
    TRACKERS,
    Ending,
    RunInfo,
    TrackedEvent,
    error_in_words,
    flattened,
)
from sapnet.utils.tracking.session import Session, described, open_tracker

_PATIENCE = 120.0  # seconds at the end
_WAITING = 10_000  # events of a tracker that hangs; later ones are dropped
_FILES = ("model.pt", "report.html", "gallery.png")
STATE = "tracking.json"


class Trackers:
    """Hands the events of a run on to trackers, each in a thread of its own.

    Args:
        names: of `TRACKERS`.
        workdir: of the run; `tracking.json` there has the runs' ids and how far they are, so that
            a run that is started again goes on in the same ones.
        params: what the run was asked for.
        emit_event: takes the events first, and warnings about trackers.

    Raises:
        InvalidConfig: there is no such tracker.
    """

    def __init__(
        self, names: Sequence[str], workdir: Path, params: Mapping[str, str], emit_event: EventSink
    ) -> None:
        if unknown := [name for name in names if name not in TRACKERS]:
            raise InvalidConfig(f"--track {unknown[0]}: there are {', '.join(TRACKERS)}")
        self._names, self._workdir, self._emit = dict.fromkeys(names), workdir, emit_event
        self._params, self._lock = params, threading.Lock()
        self._threads: dict[str, tuple[threading.Thread, queue.Queue[Any]]] = {}
        self._seq = 0

    def emit_event(self, event: Event) -> None:
        """Take an event. Threads begin with the first: of several processes one has events."""
        self._emit(event)
        if isinstance(event, Warned):
            return
        if not self._threads and self._names:
            self._start()
        self._seq += 1
        message = self._message(event)
        for _, waiting in self._threads.values():
            with suppress(queue.Full):
                waiting.put_nowait(message)

    def close(self, seconds: float = _PATIENCE) -> None:
        """Wait for the trackers, together at most so long."""
        deadline = time.monotonic() + seconds
        for name, (thread, waiting) in self._threads.items():
            with suppress(queue.Full):
                waiting.put(None, timeout=max(0.0, deadline - time.monotonic()))
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                self._emit(Warned(f"{name} has not taken all of the run within {seconds:g} s"))

    def _start(self) -> None:
        try:
            state = json.loads((self._workdir / STATE).read_text())
        except (OSError, ValueError):
            state = {"key": uuid.uuid4().hex}
        self._state: dict[str, Any] = state
        for name in self._names:
            waiting: queue.Queue[Any] = queue.Queue(_WAITING)
            thread = threading.Thread(target=self._follow, args=(name, waiting), daemon=True)
            self._threads[name] = thread, waiting
            thread.start()

    def _message(self, event: Event) -> TrackedEvent | Ending:
        fields, moment = event.to_dict(), time.time()
        if isinstance(event, Failed):
            return Ending(state="failed", time=moment)
        if not isinstance(event, Done):
            kind = fields.pop("event")
            return TrackedEvent(seq=self._seq, type=kind, time=moment, data=fields)
        result = self._workdir / "result"
        files = {name: result / name for name in _FILES if (result / name).is_file()}
        try:
            figures = dict(flattened(json.loads((result / "metrics.json").read_text())))
        except (OSError, ValueError):
            figures = {}
        return Ending(state="succeeded", time=moment, figures=figures, files=files)

    def _follow(self, name: str, waiting: "queue.Queue[Any]") -> None:
        kept = self._state.get(name, {})
        info = RunInfo(
            key=self._state["key"],
            name=self._workdir.resolve().name,
            folder=(self._workdir / "tracking" / name).resolve(),
            run_id=kept.get("run_id"),
            params=self._params,
        )
        try:
            session = Session(open_tracker(name, info), kept.get("reached", {}))
            self._keep(name, session)
            if url := session.tracker.url:
                self._emit(Warned(f"{name}: {url}"))
            while (message := waiting.get()) is not None:
                if isinstance(message, Ending):
                    session.finish(message)
                    return
                session.take(message)
                self._keep(name, session)
            session.tracker.close()
        except Exception as error:  # each package has its own, and none may end the run
            self._emit(Warned(f"{name} does not take the run: {error_in_words(error, 300)}"))

    def _keep(self, name: str, session: Session) -> None:
        with self._lock:
            self._state[name] = described(session)
            write_text(self._workdir / STATE, json.dumps(self._state))
