"""Logs: one line an event on stderr, for people or, with SAPNET_LOG_JSON, for programs.

What the libraries log (uvicorn, Celery, SQLAlchemy) comes out the same way, and every line bears
what is bound to its context: `request_id` in the API, `job` and `attempt` in a worker.
"""

import logging
import sys
from typing import TextIO, cast

import structlog
from structlog.typing import Processor

_OURS = "sapnet-stderr"
_CHATTY = ("uvicorn", "celery")  # at the level that is set; other libraries only from warnings on


def configure(level: str, as_json: bool, *extra: Processor) -> None:
    """Set up logging for this process; `level` is debug, info, warning or error. `extra` add to
    every line."""
    number = getattr(logging, level.upper())
    common: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        *extra,
    ]
    ending: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=repr)]
        if as_json
        else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    structlog.configure(
        processors=[*common, *ending],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _Stderr())),
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


class _Stderr:
    """What is stderr at the moment of writing: tests put another in its place."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()
