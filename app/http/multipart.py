"""A multipart form straight to disk: constant memory, whatever the size.

FastAPI's `UploadFile` would have the whole body read and copied before the endpoint is asked.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.errors import BadForm, TooLarge, UnsupportedMedia

MAX_TEXT = 10_000  # bytes of a text field
_BUFFER = 1 << 20


@dataclass(frozen=True, slots=True)
class FilePart:
    """A part that was written to disk. `filename` is as the client sent it, or "" for none."""

    name: str
    filename: str
    path: Path


@dataclass(slots=True)
class Form:
    """A multipart form: its texts by name, and its files on disk."""

    texts: dict[str, str] = field(default_factory=dict)
    lists: dict[str, list[str]] = field(default_factory=dict)
    """The same texts, where a name may come several times."""
    files: list[FilePart] = field(default_factory=list)

    def named(self, name: str) -> list[FilePart]:
        """Return the files of the parts of this name, in order."""
        return [file for file in self.files if file.name == name]


async def receive(
    request: Request,
    folder: Path,
    *,
    max_bytes: int,
    max_parts: int,
    texts: Iterable[str],
    max_part_bytes: Mapping[str, int],
    example: str = "-F annotations=@points.json -F images=@images.zip",
) -> Form:
    """Read the request's form; parts that are not among `texts` become files in `folder`.

    max_bytes: of the whole body, refused by its header before a byte of it is read, and counted
    all the same. max_part_bytes: the same for single parts, by name.
    Raises UnsupportedMedia, BadForm, TooLarge, starlette's ClientDisconnect. The folder's removal
    is the caller's.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data":
        raise UnsupportedMedia(f"Send it as multipart/form-data: curl {example}")
    if not options.get(b"boundary"):
        raise BadForm("The Content-Type header names no boundary.")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > max_bytes:
        raise TooLarge(f"At most {max_bytes:,} bytes are taken.", limit=max_bytes)
    try:
        receiver = _Receiver(options[b"boundary"], folder, max_parts, set(texts), max_part_bytes)
    except FormParserError as error:  # its boundary is too long
        raise BadForm(f"The form cannot be read: {error}") from error
    total, buffer = 0, bytearray()
    try:
        async for chunk in request.stream():
            total += len(chunk)
            if total > max_bytes:
                raise TooLarge(f"At most {max_bytes:,} bytes are taken.", limit=max_bytes)
            buffer += chunk
            if len(buffer) >= _BUFFER:
                await run_in_threadpool(receiver.feed, bytes(buffer))
                buffer.clear()
        await run_in_threadpool(receiver.feed, bytes(buffer))
        return receiver.finish()
    finally:
        receiver.close()


class _Receiver:
    """The callbacks of python-multipart's parser, around one part at a time."""

    def __init__(
        self,
        boundary: bytes,
        folder: Path,
        max_parts: int,
        texts: set[str],
        max_part_bytes: Mapping[str, int],
    ) -> None:
        self._folder, self._max_parts = folder, max_parts
        self._text_names, self._max_part_bytes = texts, max_part_bytes
        self._form = Form()
        self._parts, self._ended = 0, False
        self._headers: dict[bytes, bytes] = {}
        self._header = (bytearray(), bytearray())
        self._name, self._size, self._limit = "", 0, 0
        self._text: bytearray | None = None
        self._file: IO[bytes] | None = None
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": lambda data, a, b: self._header[0].extend(data[a:b]),
                "on_header_value": lambda data, a, b: self._header[1].extend(data[a:b]),
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._data,
                "on_part_end": self._end,
                "on_end": self._finished,
            },
        )

    def feed(self, data: bytes) -> None:
        try:
            if data:
                self._parser.write(data)
        except FormParserError as error:
            raise BadForm(f"The form cannot be read: {error}") from error

    def finish(self) -> Form:
        if not self._ended:
            raise BadForm("The form ends before its last boundary.")
        return self._form

    def close(self) -> None:
        if self._file is not None:
            with suppress(OSError):  # a full disk was reported by the write already
                self._file.close()

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > self._max_parts:
            raise TooLarge(
                f"At most {self._max_parts:,} parts are taken; send more images in an archive.",
                limit=self._max_parts,
            )
        self._headers.clear()

    def _header_end(self) -> None:
        name, value = self._header
        self._headers[bytes(name).lower()] = bytes(value)
        self._header = (bytearray(), bytearray())

    def _headers_finished(self) -> None:
        disposition = self._headers.get(b"content-disposition", b"").decode("latin-1")
        _, options = parse_options_header(disposition)
        if b"name" not in options:
            raise BadForm("A part of the form has no name.")
        self._name = _text(options[b"name"])
        self._size = 0
        if self._name in self._text_names:
            self._limit, self._text = MAX_TEXT, bytearray()
            return
        self._limit = self._max_part_bytes.get(self._name, 0)
        path = self._folder / f"part-{self._parts}"
        filename = _text(options.get(b"filename", b""))
        self._form.files.append(FilePart(self._name, filename, path))
        self._file = path.open("wb")

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._limit and self._size > self._limit:
            raise TooLarge(
                f"The part {self._name!r} may have at most {self._limit:,} bytes.",
                limit=self._limit,
            )
        if self._text is not None:
            self._text += data[start:end]
        elif self._file is not None:
            self._file.write(memoryview(data)[start:end])

    def _end(self) -> None:
        if self._text is not None:
            text = self._form.texts[self._name] = _text(bytes(self._text))
            self._form.lists.setdefault(self._name, []).append(text)
            self._text = None
        elif self._file is not None:
            self._file.close()
            self._file = None

    def _finished(self) -> None:
        self._ended = True


def _text(raw: bytes) -> str:
    """UTF-8, with the two escapes that browsers and curl use in names."""
    text = raw.decode("utf-8", errors="replace")
    return text.replace("%22", '"').replace("%0D", "\r").replace("%0A", "\n")
