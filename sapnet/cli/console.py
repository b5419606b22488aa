"""How a command runs: signals become a wish to stop, errors a line and an exit code."""

import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sapnet.errors import DiskFull, SapnetError, Stopped, is_disk_full
from sapnet.pipeline.contract import ExitCode
from sapnet.utils.command_line import missing_extra

if TYPE_CHECKING:
    from sapnet.pipeline.offline_jobs import Job
    from sapnet.pipeline.spec import RunSpec

Emit = Callable[[dict[str, Any]], None]


def execute(make_spec: "Callable[[], RunSpec | Job]", emit: Emit) -> int:
    """Run the pipeline, or the job, to its end. Returns the exit code: 0 done, 1 failed, 3 stopped
    on request.

    SIGTERM and SIGINT ask for a stop, which takes hold after the step in hand. Warnings become
    events. A failure is one `error` event with a stable reason; where it is a bug of ours, its
    traceback goes to stderr. Of several processes that torchrun started, the main one speaks.
    """
    wish = StopWish()
    try:
        from sapnet.pipeline.spec import RunSpec
        from sapnet.utils import distributed

        distributed.join()
        if not distributed.is_main():
            emit = _say_nothing
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: emit(
                {"event": "warning", "message": str(message)}
            )
            spec = make_spec()
            if isinstance(spec, RunSpec):
                from sapnet.pipeline.run import Run

                report = Run(spec, emit, wish)()
            else:
                report = spec(emit, wish)
    except Stopped as stop:
        print(stop, file=sys.stderr)
        return ExitCode.STOPPED
    except SapnetError as error:
        emit({"event": "error", "reason": error.reason, "message": f"{error}"})
        return ExitCode.FAILED
    except Exception as error:
        full = is_disk_full(error)
        if not full and not isinstance(error, OSError) and not missing_extra(error):
            traceback.print_exc()
        reason, words = "error", in_words(error)
        if full:
            reason = DiskFull.reason
            words = f"no space is left on the disk: {words}. Make room, and start it again"
        emit({"event": "error", "reason": reason, "message": words})
        return ExitCode.FAILED
    emit({"event": "done", **{key: report[key] for key in ("seconds", "peak_memory_mb")}})
    return ExitCode.DONE


def _say_nothing(_event: dict[str, Any]) -> None:
    """For the processes beside the main one."""


def in_words(error: Exception) -> str:
    """What happened, with the file's name first where the system refused one."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if missing := missing_extra(error):
        return missing
    expected = isinstance(error, SapnetError | ValueError | OSError)
    return f"{error}" if expected else f"{type(error).__name__}: {error}"


class StopWish:
    """Whether SIGTERM or SIGINT came; installed for the life of the process."""

    def __init__(self) -> None:
        self.wished = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._remember)

    def __call__(self) -> bool:
        return self.wished

    def _remember(self, _number: int, _frame: FrameType | None) -> None:
        self.wished = True


class EventLog:
    """Events as lines on stderr, for people: all but progress, and of that no more than one in
    `every` seconds and the first and last of a stage."""

    def __init__(self, every: float = 10.0) -> None:
        self._every, self._stage, self._last = every, "", 0.0

    def __call__(self, event: dict[str, Any]) -> None:
        now = time.monotonic()
        if event["event"] == "progress":
            ends = event["stage"] != self._stage or event["step"] == event["of"]
            if not ends and now - self._last < self._every:
                return
            self._stage, self._last = event["stage"], now
            losses = event.get("losses", {})
            more = "".join(f" {name} {value:.4g}" for name, value in losses.items())
            text = f"{event['stage']} {event['step']}/{event['of']}{more}"
        else:
            rest = (f"{key}: {value}" for key, value in event.items() if key != "event")
            text = f"{event['event']} {', '.join(rest)}"
        print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


class Bars:
    """Progress events as bars on stderr, one a stage."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description:13}"), BarColumn(), MofNCompleteColumn())
        self._console = Console(stderr=True)
        self._progress = Progress(
            *columns,
            TimeRemainingColumn(),
            TextColumn("{task.fields[more]}"),
            console=self._console,
        )
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> "Bars":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def emit(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "progress":
            stage = event["stage"]
            if stage not in self._tasks:
                self._tasks[stage] = self._progress.add_task(stage, total=event["of"], more="")
            losses = event.get("losses", {})
            more = " ".join(f"{name} {value:.3g}" for name, value in losses.items())
            self._progress.update(self._tasks[stage], completed=event["step"], more=more)
        elif kind in ("warning", "error"):
            style = "yellow" if kind == "warning" else "red"
            self._console.print(f"[{style}]{kind}[/]: ", end="")
            self._console.print(event["message"], markup=False, highlight=False, soft_wrap=True)


@contextmanager
def friendly_errors(emit: Emit) -> Iterator[None]:
    """What is the user's to mend ends as a line, not as a traceback."""
    try:
        yield
    except (SapnetError, OSError, ValueError) as error:
        emit({"event": "error", "message": in_words(error)})
        raise typer.Exit(ExitCode.FAILED) from error
