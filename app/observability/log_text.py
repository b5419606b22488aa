"""What may stand in a log line: no secret, no control character, and never more than so much.

Messages of exceptions are made by libraries from whatever they were given: connection URLs with
passwords, headers, whole documents. Secrets are recognised by their form or by the name before
them.
"""

import re
import traceback
from collections import deque
from types import TracebackType
from typing import Any

MOST_BYTES = 4_000
"""Of one value in a line."""
_PIECE_BYTES = 1_500  # of one frame or one exception's message in a traceback
_HEAD_BYTES, _TAIL_BYTES = 3_000, 6_000  # of a traceback; what is between them is left out
_FRAMES, _LEAST_FRAMES = 24, 4  # of a traceback, shared by the exceptions of a chain
_ITEMS = 20  # of a list or an object
_DEPTH = 4

_HIDDEN = "***"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SECRETS = (
    re.compile(r"(sapnet_[0-9a-f]{8}_)[\w-]+"),  # API keys
    re.compile(r"(whsec_)[\w+/=-]+"),
    re.compile(r"(://[^\s/:@\"']{0,200}:)[^\s\"']{1,300}(?=@)"),  # a URL's password
    re.compile(r"(://)[^\s/:@\"']{1,300}(?=@)"),  # one that stands for its user, as tokens do
    re.compile(r"(?i)(\bbearer\s+)[^\s\"',]+"),
    re.compile(r"(?i)((?<=[?&;])sig=)[^\s\"'&]+"),
    re.compile(r"\b((?:AKIA|ASIA)[0-9A-Z]{4})[0-9A-Z]{12}\b"),
    re.compile(  # whatever a name says is one: the whole of a quoted value, or the next word
        r"(?i)((?:passw(?:or)?d|secret|api[_-]?key|access[_-]?key(?:[_-]?id)?|signature|credential"
        r"|[_-]token|authorization|cookie)(?:[\"']?\s*[=:]|[\"'],)\s*b?)"
        r"(?:(?P<quote>[\"'])[^\"']+(?P=quote)?|(?:(?:basic|digest)\s+)?[^\s\"'&,;()\[\]{}]+)"
    ),
)


def presentable(text: str, limit: int = MOST_BYTES) -> str:
    """Return the text without secrets and control characters (but for tab and line feed).

    Args:
        limit: bytes of UTF-8 to which it is cut.
    """
    whole = len(text)
    text = text[: 2 * limit]  # a secret that is cut in two would not be recognised
    for secret in _SECRETS:
        text = secret.sub(rf"\1{_HIDDEN}", text)
    text = _CONTROL.sub("?", text)
    data = text.encode("utf-8", "backslashreplace")
    if whole <= 2 * limit and len(data) <= limit:
        return data.decode()
    return f"{data[:limit].decode('utf-8', 'ignore')}… ({whole:,} characters)"


def presentable_value(value: Any, depth: int = _DEPTH) -> Any:
    """Return a value that a log line may have.

    Numbers stay, containers are kept as far as they are small, and anything else is its `repr`,
    made presentable.
    """
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return presentable(value)
    if isinstance(value, dict) and len(value) <= _ITEMS and depth:
        return {
            presentable(str(key), 100): _named(str(key), presentable_value(entry, depth - 1))
            for key, entry in value.items()
        }
    if isinstance(value, list | tuple) and len(value) <= _ITEMS and depth:
        return [presentable_value(entry, depth - 1) for entry in value]
    try:
        return presentable(repr(value))
    except Exception:
        return f"<{type(value).__name__}>"


def _named(name: str, value: Any) -> Any:
    """Hidden where the name says that it is a secret."""
    return _HIDDEN if presentable(f"{name}=12345678") == f"{name}={_HIDDEN}" else value


def traceback_text(
    exc_info: tuple[type[BaseException], BaseException, TracebackType | None],
) -> str:
    """Return a plain traceback, without the values of variables.

    Of many frames the innermost are kept; of a long chain its first and its last exceptions.
    """
    kind, error, trace = exc_info
    frames = max(_LEAST_FRAMES, _FRAMES // _chain_length(error))
    exception = traceback.TracebackException(
        kind, error, trace, limit=-frames, compact=True, max_group_width=4, max_group_depth=3
    )
    head: list[str] = []
    tail: deque[str] = deque()
    head_bytes = tail_bytes = left_out = 0
    for line in exception.format():
        piece = presentable(line.removesuffix("\n"), _PIECE_BYTES) + "\n"
        size = len(piece.encode())
        if not tail and head_bytes + size <= _HEAD_BYTES:
            head.append(piece)
            head_bytes += size
            continue
        tail.append(piece)
        tail_bytes += size
        while tail_bytes > _TAIL_BYTES:
            tail_bytes -= len(tail.popleft().encode())
            left_out += 1
    between = [f"  … {left_out} entries left out …\n"] if left_out else []
    return "".join([*head, *between, *tail]).rstrip("\n")


def _chain_length(error: BaseException) -> int:
    """As far as it matters for the number of frames."""
    length, following = 1, error
    while length < _FRAMES // _LEAST_FRAMES:
        hidden = following.__suppress_context__
        before = following.__cause__ or (None if hidden else following.__context__)
        if before is None:
            break
        length, following = length + 1, before
    return length
