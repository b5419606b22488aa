"""The log of the API: structlog's, loaded when the log is set up, or with the first line."""

from typing import Any


class _Log:
    """structlog's logger. structlog imports rich, which takes as long as SQLAlchemy's ORM."""

    def __getattr__(self, name: str) -> Any:
        import structlog

        return getattr(structlog.get_logger(), name)


log: Any = _Log()


def begin_context(**values: Any) -> None:
    """Have every line that is written in this context bear these values and no others."""
    import structlog

    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(**values)
