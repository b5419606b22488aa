"""A run or an offline job as a process: signals, events, exit codes. Imports no torch by itself."""

import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

from sapnet.errors import (
    ATTEMPT_FAILED,
    DiskFull,
    SapnetError,
    Stopped,
    is_disk_full,
    is_out_of_memory,
)
from sapnet.pipeline.contract import ExitCode
from sapnet.pipeline.events import Done, Event, EventSink, Failed, Warned
from sapnet.pipeline.spec import RunSpec
from sapnet.utils.extras import missing_extra

if TYPE_CHECKING:
    from sapnet.pipeline.offline_jobs import Job


def execute(
    make_spec: "Callable[[], RunSpec | Job]",
    emit_event: EventSink,
    launch: Callable[[], None] = lambda: None,
) -> int:
    """Run the pipeline, or the job, to its end.

    SIGTERM and SIGINT ask for a stop, which takes hold after the step in hand. Warnings become
    events. A failure is one `error` event with a stable reason; where it is a bug of ours, its
    traceback goes to stderr. Of several processes that torchrun started, the main one emits; a job
    that is no run is its alone.

    Args:
        make_spec: reads what is to be run; its errors are reported like those of the run.
        emit_event: takes each event.
        launch: called first; may replace this process by several (`sapnet.pipeline.launch`). Its
            errors are reported likewise.

    Returns:
        The exit code: 0 done, 1 failed, 3 stopped on request (`ExitCode`).
    """
    try:
        launch()
        should_stop = StopFlag()
        from sapnet.utils import distributed

        distributed.join()
        if not distributed.is_main():
            emit_event = _say_nothing
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: emit_event(Warned(str(message)))
            spec = make_spec()
            if isinstance(spec, RunSpec):
                from sapnet.pipeline.run import Run

                report = Run(spec, emit_event, should_stop)()
            elif distributed.is_main():
                report = spec(emit_event, should_stop)
            else:  # one result, written by one process
                return ExitCode.DONE
    except Stopped as stop:
        print(stop, file=sys.stderr)
        return ExitCode.STOPPED
    except SapnetError as error:
        emit_event(failure(error))
        return ExitCode.FAILED
    except Exception as error:
        from sapnet.utils import distributed

        failed = failure(error)
        if failed.reason == "error" and distributed.is_peer_lost(error):
            failed = Failed(ATTEMPT_FAILED, "another process of the training ended; see its log")
        emit_event(failed)
        return ExitCode.FAILED
    emit_event(Done(report["seconds"], report["peak_memory_mb"]))
    return ExitCode.DONE


def _say_nothing(_event: Event) -> None:
    """For the processes beside the main one."""


def failure(error: Exception) -> Failed:
    """Return the event that tells of an error; a bug of ours has its traceback on stderr."""
    if isinstance(error, SapnetError):
        return Failed(error.reason, f"{error}")
    full = is_disk_full(error)
    if not full and not isinstance(error, OSError) and not missing_extra(error):
        traceback.print_exc()
    words = describe_error(error)
    if full:
        words = f"no space is left on the disk: {words}. Make room, and start it again"
        return Failed(DiskFull.reason, words)
    if is_out_of_memory(error):
        words = f"out of memory ({words}); other work may hold it: start it again later"
        return Failed(ATTEMPT_FAILED, words)
    return Failed("error", words)


def describe_error(error: Exception) -> str:
    """Describe an error, with the file's name first where the system refused one."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if missing := missing_extra(error):
        return missing
    expected = isinstance(error, SapnetError | ValueError | OSError)
    return f"{error}" if expected else f"{type(error).__name__}: {error}"


class StopFlag:
    """Whether SIGTERM or SIGINT came; installed for the life of the process."""

    def __init__(self) -> None:
        self.is_set = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._remember)

    def __call__(self) -> bool:
        """Whether to stop."""
        return self.is_set

    def _remember(self, _number: int, _frame: FrameType | None) -> None:
        self.is_set = True
