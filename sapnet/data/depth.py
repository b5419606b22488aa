"""How deeply JSON may be nested: one limit for bodies, documents and settings.

Decoders and whoever walks over what they return recurse, each with a limit and an error of its own;
text below this one passes them all.
"""

import json
from typing import Any

import numpy as np
import numpy.typing as npt

MAX_DEPTH = 64
TOO_DEEP = f"the text is nested more than {MAX_DEPTH} levels deep"
_QUOTE, _BACKSLASH = ord('"'), ord("\\")
_MARKS = np.zeros(256, np.bool_)
_MARKS[list(b'"\\{}[]')] = True
_STEP = np.zeros(256, np.int8)
_STEP[list(b"{[")], _STEP[list(b"}]")] = 1, -1
_BLOCK = 1 << 18  # bytes looked at together

Places = npt.NDArray[np.int64]


class Depth:
    """Counts brackets outside of strings in text that comes in parts."""

    def __init__(self) -> None:
        self._depth, self._carried = 0, b""

    def too_deep(self, part: bytes) -> bool:
        """Whether the text nests deeper than MAX_DEPTH within this part."""
        for start in range(0, len(part), _BLOCK):
            # A string that is open, and a backslash at the end of it, go on in the next part.
            text = self._carried + part[start : start + _BLOCK]
            quotes, _, steps = marks(np.frombuffer(text, np.uint8))
            self._carried = b""
            if quotes.size % 2:
                slashes = len(text) - len(text.rstrip(b"\\"))
                self._carried = b'"\\' if slashes % 2 else b'"'
            depths = self._depth + np.cumsum(steps, dtype=np.int64)
            if depths.size:
                self._depth = int(depths[-1])
                if depths.max() > MAX_DEPTH:
                    return True
        return False


def marks(text: npt.NDArray[np.uint8]) -> tuple[Places, Places, npt.NDArray[np.int8]]:
    """Quotes and brackets of a text of JSON.

    Args:
        text: (n,) uint8; the first byte lies outside of strings.

    Returns:
        Places of the quotes around strings; places of the brackets outside of strings; and for each
        bracket 1 (opens) or -1 (closes), int8.
    """
    marked = np.flatnonzero(_MARKS[text])
    kinds = text[marked]
    quotes, slashes = marked[kinds == _QUOTE], marked[kinds == _BACKSLASH]
    if slashes.size:
        quotes = quotes[~np.isin(quotes, _escaped(slashes))]
    steps = _STEP[kinds]
    brackets, steps = marked[steps != 0], steps[steps != 0]
    outside = np.searchsorted(quotes, brackets) % 2 == 0
    return quotes, brackets[outside], steps[outside]


def parse(text: bytes | str) -> Any:
    """`json.loads`, strict and with a limit on depth.

    Raises:
        ValueError: it is no JSON (NaN and infinities are none), or nested deeper than MAX_DEPTH.
    """
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if Depth().too_deep(data):
        raise ValueError(TOO_DEEP)
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError:  # brackets in text that is no JSON, or UTF-16
        raise ValueError(TOO_DEEP) from None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a number that JSON knows")


def _escaped(slashes: Places) -> Places:
    """The places after runs of an odd number of backslashes."""
    breaks = np.flatnonzero(np.diff(slashes) != 1)
    firsts, lasts = slashes[np.r_[0, breaks + 1]], slashes[np.r_[breaks, slashes.size - 1]]
    return lasts[(lasts - firsts) % 2 == 0] + 1
