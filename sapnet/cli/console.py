"""Terminal output of the commands: events as lines or bars, errors as one line."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sapnet.errors import SapnetError
from sapnet.pipeline.contract import ExitCode
from sapnet.pipeline.events import Event, EventSink, Failed, PresetChosen, Progressed, Warned
from sapnet.pipeline.execute import describe_error


class EventLog:
    """Events as lines on stderr, for people.

    Every event but progress is printed; of progress, one in `every` seconds, and the first and the
    last of each stage.
    """

    def __init__(self, every: float = 10.0) -> None:
        self._every, self._stage, self._last = every, "", 0.0

    def __call__(self, event: Event) -> None:
        """Print the event, unless it is progress that comes too early."""
        now = time.monotonic()
        if isinstance(event, Progressed):
            ends = event.stage != self._stage or event.step == event.of
            if not ends and now - self._last < self._every:
                return
            self._stage, self._last = event.stage, now
            more = "".join(f" {name} {value:.4g}" for name, value in (event.losses or {}).items())
            text = f"{event.stage} {event.step}/{event.of}{more}"
        else:
            fields = event.to_dict()
            rest = (f"{key}: {value}" for key, value in fields.items() if key != "event")
            text = f"{fields['event']} {', '.join(rest)}"
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

    def emit_event(self, event: Event) -> None:
        """Move the bar of the event's stage, or print a warning or an error above the bars."""
        match event:
            case Progressed(stage=stage):
                if stage not in self._tasks:
                    self._tasks[stage] = self._progress.add_task(stage, total=event.of, more="")
                losses = (event.losses or {}).items()
                more = " ".join(f"{name} {value:.3g}" for name, value in losses)
                self._progress.update(self._tasks[stage], completed=event.step, more=more)
            case PresetChosen(preset=preset, reasons=reasons):
                self._print(f"preset [bold]{preset}[/]: ", " ".join(reasons))
            case Warned(message=message):
                self._print("[yellow]warning[/]: ", message)
            case Failed(message=message):
                self._print("[red]error[/]: ", message)

    def _print(self, kind: str, message: str) -> None:
        self._console.print(kind, end="")
        self._console.print(message, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def friendly_errors(emit_event: EventSink) -> Iterator[None]:
    """Report errors that the user can fix in one line, and exit with `ExitCode.FAILED`."""
    try:
        yield
    except (SapnetError, OSError, ValueError) as error:
        emit_event(Failed(message=describe_error(error)))
        raise typer.Exit(ExitCode.FAILED) from error
