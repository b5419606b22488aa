"""Logs: one line an event on stderr, for people or, with SAPNET_LOG_JSON, for programs.

What the libraries log (uvicorn, Celery, SQLAlchemy) comes out the same way, and every line bears
what is bound to its context: `request_id` in the API, `job` and `attempt` in a worker. Each value
and each traceback is bounded and without secrets: see `app.observability.log_text`.
"""

import logging
import sys
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO, cast

from app.observability.log import log
from app.observability.log_text import presentable_value, traceback_text

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor

_OURS = "sapnet-stderr"
_CHATTY = ("uvicorn", "celery")  # at the level that is set; other libraries only from warnings on


def configure(level: str, as_json: bool, *extra: "Processor") -> None:
    """Set up logging for this process.

    Args:
        level: debug, info, warning or error.
        extra: processors that add to every line.
    """
    import structlog

    number = getattr(logging, level.upper())
    common: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        *extra,
    ]
    ending: list[Processor] = [
        _presentable,
        structlog.processors.ExceptionRenderer(traceback_text),
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if as_json
        # Its default formatter is rich's, which takes seconds and shows the variables' values.
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        ),
    ]
    structlog.configure(
        processors=[*common, *ending],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, _Stderr())),
    )
    handler = logging.StreamHandler(_Stderr())
    handler.name = _OURS
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*common, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ending],
        )
    )
    root = logging.getLogger()
    root.handlers = [h for h in root.handlers if h.name != _OURS] + [handler]
    root.setLevel(max(number, logging.WARNING))
    for name in _CHATTY:
        logging.getLogger(name).setLevel(number)


def log_uncaught() -> None:
    """What ends this process, or a thread of it, is logged as any other failure is."""

    def whole(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
        else:
            log.critical("the process fails", exc_info=(kind, error, trace))

    def of_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and not issubclass(args.exc_type, SystemExit):
            info = (args.exc_type, args.exc_value, args.exc_traceback)
            name = args.thread.name if args.thread else None
            log.critical("a thread fails", thread=name, exc_info=info)

    sys.excepthook = whole
    threading.excepthook = of_thread


def _presentable(_logger: Any, _method: str, event: "EventDict") -> "EventDict":
    return {
        key: value if key == "exc_info" else presentable_value(value)
        for key, value in event.items()
    }


class _Stderr:
    """What is stderr at the moment of writing: tests put another in its place."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()
