"""Files up by tus and down by Range: a line that breaks costs what was under way, no more."""

import base64
import hashlib
import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO

import httpx2

from sapnet_client.calls import Calls
from sapnet_client.errors import (
    BrokenUpload,
    Conflict,
    NotFound,
    SapnetError,
    Unavailable,
    Unreachable,
)
from sapnet_client.wire import Call

TUS = {"Tus-Resumable": "1.0.0"}
OFFSETS = "application/offset+octet-stream"
PIECE = 16 * 2**20
"""Bytes of one PATCH."""
CHUNK = 2**18
TRIES = 8
"""Breaks in a row without a byte of progress, before an upload or a download is given up."""


class Transfers(Calls):
    """Uploads and downloads that go on after a break."""

    async def upload(self, path: str | Path, *, resume: str | None = None) -> str:
        """Upload a file for `create_dataset`. It goes on after a break.

        Args:
            resume: the id in a `BrokenUpload`, of this same file.

        Returns:
            The id of the upload.

        Raises:
            BrokenUpload: it broke off again and again.
        """
        path = Path(path)
        size = path.stat().st_size
        upload_id = resume or await self._begin(path.name, size)
        try:
            await self._rest(path, size, upload_id)
        except NotFound:
            raise
        except (SapnetError, httpx2.TransportError) as error:
            raise BrokenUpload(upload_id, error) from error
        return upload_id

    async def _begin(self, name: str, size: int) -> str:
        about = f"filename {base64.b64encode(name.encode()).decode()}"
        headers = {**TUS, "Upload-Length": str(size), "Upload-Metadata": about}
        # An upload that was begun twice is forgotten after a day: it may be sent again.
        reply = await self._send(Call("POST", "/uploads", headers=headers, again=True))
        return reply.headers["location"].rpartition("/")[2]

    async def _rest(self, path: Path, size: int, upload_id: str) -> None:
        where = f"/uploads/{upload_id}"
        breaks = 0
        with self._reporting(f"upload {path.name}") as report_progress:
            offset = await self._offset(where, size)
            while offset < size:
                report_progress(offset, size)
                headers = {
                    **TUS,
                    "Content-Type": OFFSETS,
                    "Upload-Offset": str(offset),
                    "Content-Length": str(min(PIECE, size - offset)),
                }
                call = Call("PATCH", where, headers=headers, body=partial(_piece, path, offset))
                before = offset
                try:
                    reply = await self._send(call)
                    offset = int(reply.headers["upload-offset"])
                except (SapnetError, httpx2.TransportError) as error:
                    # What came before the line broke is kept, so the place must be asked for.
                    if not _may_pass(error) or breaks >= TRIES:
                        raise
                    await self._wire.sleep(min(0.1 * 2**breaks, 10.0))
                    offset = await self._offset(where, size)
                breaks = 0 if offset > before else breaks + 1
            report_progress(size, size)

    async def _offset(self, where: str, size: int) -> int:
        reply = await self._send(Call("HEAD", where, headers=TUS, again=True))
        if int(reply.headers["upload-length"]) != size:
            raise SapnetError("The upload is of a file of another size.")
        return int(reply.headers["upload-offset"])

    async def _download(self, path: str, to: str | Path, what: str) -> Path:
        """Download a file, whole or not at all.

        What an earlier try has left beside it is used.

        Args:
            to: a folder, which is made where the name ends in a slash or has no suffix and nothing
                is there, or the file itself.
        """
        about = await self._send(Call("HEAD", path, again=True))
        size = int(about.headers["content-length"])
        tag = about.headers.get("etag", "")
        name = _file_name(about.headers.get("content-disposition", "")) or what.split()[-1]
        target = _target(to, name)
        digest = hashlib.sha256(tag.encode()).hexdigest()[:12]
        part = target.with_name(f".{target.name}.{digest}.part")
        if not tag:
            part.unlink(missing_ok=True)
        await self._fill(path, part, size, tag, f"{what} → {target.name}")
        if re.fullmatch(r'"[0-9a-f]{64}"', tag) and _sha256(part) != tag.strip('"'):
            part.unlink()
            raise SapnetError(f"{target.name} came with other bytes than the service has of it.")
        os.replace(part, target)
        return target

    async def _fill(self, path: str, part: Path, size: int, tag: str, what: str) -> None:
        breaks = 0
        with self._reporting(what) as report_progress, part.open("ab") as file:
            if file.tell() > size:
                _empty(file)
            while (offset := file.tell()) < size:
                report_progress(offset, size)
                headers = {"Accept-Encoding": "identity"}
                if offset:
                    headers |= {"Range": f"bytes={offset}-", **({"If-Range": tag} if tag else {})}
                try:
                    call = Call("GET", path, headers=headers, again=True)
                    async with self._open(call) as answer:
                        if answer.status != 206:
                            _empty(file)
                        async for chunk in answer.chunks():
                            file.write(chunk)
                            report_progress(file.tell(), size)
                except httpx2.TransportError as error:
                    if breaks >= TRIES:
                        done = f"after {file.tell():,} of {size:,} bytes"
                        raise Unreachable(f"The download broke off {done}: {error}") from error
                    await self._wire.sleep(min(0.1 * 2**breaks, 10.0))
                breaks = 0 if file.tell() > offset else breaks + 1
                if breaks > TRIES:
                    raise SapnetError(f"{path} ends after {offset:,} of {size:,} bytes.")
            report_progress(size, size)


def _may_pass(error: Exception) -> bool:
    """Whether a piece may be sent again, from the offset that the service has.

    The line broke, the service was away, or somebody else's piece came in between.
    """
    broken = isinstance(error.__cause__, httpx2.TransportError)
    return broken or isinstance(error, Conflict | Unavailable)


def _empty(file: IO[bytes]) -> None:
    file.truncate(0)
    file.seek(0)


def _piece(path: Path, offset: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(offset)
        left = PIECE
        while chunk := file.read(min(CHUNK, left)):
            yield chunk
            left -= len(chunk)


def _file_name(disposition: str) -> str:
    """Of a download; the last step alone, whatever the header says."""
    match = re.search(r'filename="?([^";]+)"?', disposition)
    return Path(match[1]).name if match else ""


def _target(to: str | Path, name: str) -> Path:
    text, path = str(to), Path(to)
    if path.is_dir() or text.endswith(("/", os.sep)) or (not path.suffix and not path.exists()):
        path.mkdir(parents=True, exist_ok=True)
        return path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
