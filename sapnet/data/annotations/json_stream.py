"""Read a large JSON object a piece at a time, so that memory does not grow with the file.

numpy finds where records end (brackets outside of strings), and whoever asks decodes the text in
between, some thousand records at once. Every byte of the file is in some piece or checked here, so
whoever decodes all pieces has checked all of the text.
"""

import io
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from sapnet.data.depth import MAX_DEPTH, TOO_DEEP, marks

BLOCK = 1 << 20  # bytes read at once
MAX_VALUE = 16 << 20
"""Bytes of a single record, or of a member that is no list of records."""
MAX_MEMBERS = 10_000
_NEAR = 4096  # bytes looked at first: a text of many small lists is not looked through for each

_SPACE = re.compile(rb"[ \t\r\n]*+")
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_LITERAL = re.compile(rb"[^ \t\r\n,\]}]++")


class Unreadable(Exception):
    """The text is no JSON object, or not one to be read in pieces.

    Args:
        offset: the byte at which.
    """

    def __init__(self, offset: int, problem: str) -> None:
        super().__init__(problem)
        self.offset, self.problem = offset, problem


class NoObject(Unreadable):
    """It is JSON's other things. `text` is the beginning of it."""

    def __init__(self, text: bytes) -> None:
        super().__init__(0, "the document is not an object")
        self.text = text


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of one member of the object.

    Attributes:
        key: the member's name.
        listed: whether its value is a list; there may then be several pieces, the first of which is
            `first`.
        text: JSON, the whole value, or a list of some of its elements.
        offset: place in the file of text[0] (one before it where that bracket was added).
    """

    key: str
    listed: bool
    first: bool
    text: bytes
    offset: int


@contextmanager
def opened(source: bytes | Path) -> Iterator[BinaryIO]:
    """The document as a file, wherever it is."""
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        yield file


def pieces(
    file: BinaryIO,
    skips: Callable[[str], bool] = lambda _: False,
    most_members: int = MAX_MEMBERS,
) -> Iterator[Piece]:
    """The members of the object in a file, in order.

    Of lists whose name `skips` is true for, only a first piece, an empty list.

    Raises:
        Unreadable: anywhere on the way.
    """
    window, members = _Window(file), 0
    window.begin()
    mark = window.peek()
    while mark != b"}":
        members += 1
        if members > most_members:
            raise Unreadable(window.place, f"there are more than {most_members:,} members")
        if mark != b'"':
            raise Unreadable(window.place, "a name in double quotes should come here")
        place = window.place
        key = _decoded(window.match(_STRING), place)
        window.expect(b":", "':' should come here")
        yield from _member(window, key, skips(key))
        mark = window.peek()
        if mark == b",":
            window.position += 1
            mark = window.peek()
            if mark == b"}":
                raise Unreadable(window.place, "a name should follow the comma")
        elif mark != b"}":
            raise Unreadable(window.place, "',' or '}' should come here")
    window.position += 1
    if window.peek():
        raise Unreadable(window.place, "there is more text after the end")


def line_and_column(source: bytes | Path, offset: int) -> tuple[int, int]:
    """Line and column of a byte of the file, both from 1; the column in characters."""
    line, column, left = 1, 1, offset
    with opened(source) as file:
        while left > 0 and (block := file.read(min(BLOCK, left))):
            left -= len(block)
            if (newline := block.rfind(b"\n")) >= 0:
                line, column = line + block.count(b"\n"), 1
            of_line = np.frombuffer(block, np.uint8)[newline + 1 :]
            column += int(np.count_nonzero(of_line & 0xC0 != 0x80))  # first bytes of UTF-8
    return line, column


class _Window:
    """The part of the file that is in memory; what lies before `position` has been read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.data, self.position, self.offset = b"", 0, 0

    @property
    def place(self) -> int:
        """In the file, of `position`."""
        return self.offset + self.position

    @property
    def end(self) -> int:
        """In the file, of what is in memory."""
        return self.offset + len(self.data)

    def begin(self) -> None:
        """Up to the first member."""
        self.more()
        if self.data.startswith(b"\xef\xbb\xbf"):
            self.position = 3
        mark = self.peek()
        if not mark:
            raise Unreadable(0, "the file is empty")
        if mark != b"{":
            raise NoObject(self.data[self.position : self.position + 100])
        self.position += 1

    def more(self) -> bool:
        """Read on; whether there was more. A value that does not end doubles what is read."""
        rest = self.data[self.position :]
        if len(rest) > MAX_VALUE:
            raise Unreadable(self.place, f"a single value has more than {MAX_VALUE:,} bytes")
        block = self._file.read(max(BLOCK, len(rest)))
        self.offset, self.position, self.data = self.place, 0, rest + block
        return bool(block)

    def peek(self) -> bytes:
        """The next byte that is no white space; b"" at the end of the file."""
        while True:
            match = _SPACE.match(self.data, self.position)
            assert match is not None  # it matches nothing as well
            self.position = match.end()
            if self.position < len(self.data):
                return self.data[self.position : self.position + 1]
            if not self.more():
                return b""

    def expect(self, mark: bytes, problem: str) -> None:
        if self.peek() != mark:
            raise Unreadable(self.place, problem)
        self.position += 1

    def match(self, pattern: re.Pattern[bytes]) -> bytes:
        """What the pattern finds here, when it is sure that no more of it follows."""
        while True:
            match = pattern.match(self.data, self.position)
            sure = match is not None and (match.end() < len(self.data) or pattern is _STRING)
            if sure or not self.more():
                break
        match = pattern.match(self.data, self.position)
        if match is None:
            raise Unreadable(self.place, "the text is cut off here")
        self.position = match.end()
        return match.group()


def _member(window: _Window, key: str, skip: bool) -> Iterator[Piece]:
    mark = window.peek()
    if mark != b"[":
        offset = window.place
        text = _object(window) if mark == b"{" else _scalar(window, mark)
        yield Piece(key, False, True, text, offset)
        return
    first = True
    for text, offset in _batches(window):
        if not skip:
            yield Piece(key, True, first, text, offset)
        elif first:
            yield Piece(key, True, True, b"[]", offset)
        first = False


def _scalar(window: _Window, mark: bytes) -> bytes:
    if mark in (b"", b",", b"]", b"}"):
        raise Unreadable(window.place, "a value should come here")
    return window.match(_STRING if mark == b'"' else _LITERAL)


def _object(window: _Window) -> bytes:
    while True:
        for stop in (window.position + _NEAR, len(window.data)):
            places, depths = _brackets(window.data, window.position, stop, 1, window.offset)
            ends = np.flatnonzero(depths == 0)
            if ends.size:
                start, window.position = window.position, int(places[ends[0]]) + 1
                return window.data[start : window.position]
        if not window.more():
            raise Unreadable(window.end, "the text is cut off here")


def _batches(window: _Window) -> Iterator[tuple[bytes, int]]:
    """The elements of a list, as lists of as many as the window holds; with their offsets."""
    place = window.place
    window.position += 1
    if window.peek() == b"]":
        window.position += 1
        yield b"[]", place
        return
    while True:
        if not window.peek():
            raise Unreadable(window.place, "the text is cut off here")
        start = window.position
        end, closed = _split(window.data, start, window.offset)
        if end == start and not closed:
            if not window.more():
                raise Unreadable(window.end, "the text is cut off here")
            continue
        text, offset = window.data[start:end], window.place - 1
        window.position = end
        if closed and window.peek() != b"]":
            raise Unreadable(window.place, "',' or ']' should come here")
        yield b"[%b]" % text, offset
        mark = window.peek()
        if mark not in (b"]", b","):
            raise Unreadable(window.place, "',' or ']' should come here")
        window.position += 1
        if closed or mark == b"]":
            return
        if window.peek() == b"]":
            raise Unreadable(window.place, "a value should follow the comma")


def _split(data: bytes, start: int, offset: int) -> tuple[int, bool]:
    """Where the last whole element with brackets ends (`start` where none does).

    Or, and then the second is true, where the bracket is that closes the list.
    """
    for stop in (start + _NEAR, len(data)):
        places, depths = _brackets(data, start, stop, 2, offset)
        below = np.flatnonzero(depths < 0)
        if below.size:
            return int(places[below[0]]), True
    ends = np.flatnonzero(depths == 0)
    return (int(places[ends[-1]]) + 1 if ends.size else start), False


def _brackets(
    data: bytes, start: int, stop: int, base: int, offset: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Places of the brackets outside of strings in data[start:stop], and the depth after each.

    `start` itself lies outside of strings, at depth 0.

    Args:
        base: how deep `start` lies in the whole text.
        offset: of data[0] in the file.
    """
    _, brackets, steps = marks(np.frombuffer(data, np.uint8)[start:stop])
    depths = np.cumsum(steps, dtype=np.int64)
    if depths.size and depths.max() > MAX_DEPTH - base:
        place = int(brackets[np.argmax(depths > MAX_DEPTH - base)]) + start
        raise Unreadable(offset + place, TOO_DEEP)
    return brackets + start, depths


def _decoded(text: bytes, place: int) -> str:
    try:
        key: str = json.loads(text)
    except ValueError as error:
        raise Unreadable(place, f"this name is no text: {error}") from None
    return key
