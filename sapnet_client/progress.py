"""How far something is, and bars that show it."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as RichProgress


@dataclass(frozen=True, slots=True)
class Progress:
    """How far something is.

    Attributes:
        what: "upload images.zip", "job 01a1…".
        done: of `of`, in bytes or as a share of 1.
        stage: of a job, such as "train".
        note: of a job: its losses.
        over: whether nothing more will come.
    """

    what: str
    done: float
    of: float
    stage: str = ""
    note: str = ""
    over: bool = False


Show = Callable[[Progress], None]


def wanted(progress: bool | Show | None) -> Show | None:
    """Return what shows progress; None in is bars where stderr is a terminal."""
    if callable(progress):
        return progress
    if progress is None:
        progress = sys.stderr.isatty() or in_notebook()
    if not progress:
        return None
    return NotebookBars() if in_notebook() else Bars()


def in_notebook() -> bool:
    """Whether this runs in a notebook's kernel, where terminals' bars cannot be drawn."""
    ipython = sys.modules.get("IPython")  # a kernel has imported it
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and getattr(shell, "kernel", None) is not None


class NotebookBars:
    """A bar in the notebook for each thing that is under way; a full one stays."""

    def __init__(self) -> None:
        self._shown: dict[str, Any] = {}
        self._last: dict[str, str] = {}

    def __call__(self, progress: Progress) -> None:
        """Show progress."""
        from IPython.display import HTML, display

        text = progress_html(progress)
        handle = self._shown.get(progress.what)
        if handle is None:
            self._shown[progress.what] = display(HTML(text), display_id=True)
        elif text != self._last.get(progress.what):
            handle.update(HTML(text))
        self._last[progress.what] = text
        if progress.over:
            del self._shown[progress.what], self._last[progress.what]


def progress_html(progress: Progress) -> str:
    """Return progress as a bar of HTML, with what it is of and where that is."""
    share = progress.done / progress.of if progress.of else 0.0
    words = " · ".join(word for word in (progress.what, progress.stage, progress.note) if word)
    return f"<progress value='{share:.3f}' max='1'></progress> {share:.0%} {escape(words)}"


class Bars:
    """Bars in the terminal, one for each thing that is under way.

    Where the console is no terminal, a line for each stage of a job.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._bars: RichProgress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._stage = ""

    def __call__(self, progress: Progress) -> None:
        """Show progress; a bar goes when its thing is over."""
        if not self._console.is_terminal:
            self._line(progress)
            return
        bars = self._begun()
        if progress.what not in self._tasks:
            self._tasks[progress.what] = bars.add_task(progress.what, note="")
        bars.update(
            self._tasks[progress.what],
            description=progress.stage or progress.what,
            completed=progress.done,
            total=progress.of or 1.0,
            note=progress.note,
        )
        if progress.over:
            del self._tasks[progress.what]
            if not self._tasks:
                self.close()

    def close(self) -> None:
        """Remove all bars."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
            self._tasks.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _line(self, progress: Progress) -> None:
        if progress.stage not in ("", self._stage):
            self._console.print(f"  {progress.stage}", markup=False)
        self._stage = "" if progress.over else progress.stage

    def _begun(self) -> RichProgress:
        if self._bars is None:
            self._bars = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[note]}"),
                console=self._console,
            )
            self._bars.start()
        return self._bars
