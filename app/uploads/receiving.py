"""The body of a PATCH, to storage as it comes: what was received outlives a broken line."""

import hashlib
from pathlib import Path

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from app.db.models import Upload
from app.db.session import Database
from app.errors import ChecksumMismatch, TooLarge
from app.http.scratch import scratch_folder
from app.settings import Settings
from app.storage.store import Storage
from app.uploads import service
from app.uploads.headers import Checksum

PIECE = 64 * 2**20
"""Bytes after which what has come is kept: so much may be lost with the process."""
_BUFFER = 1 << 20


async def receive(
    request: Request,
    database: Database,
    storage: Storage,
    settings: Settings,
    upload: Upload,
    checksum: Checksum | None,
) -> int:
    """Add the request's body to the upload. With a checksum all of it is kept or nothing.

    Returns:
        Where the upload is now, in bytes.

    Raises:
        TooLarge: it is more than the upload has room for.
        ChecksumMismatch: the bytes are not those that were sent.
        Conflict: somebody else has added meanwhile.
        ClientDisconnect: the client left.
    """
    room = upload.length - upload.received
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > room:
        raise _too_long(room)
    async with scratch_folder(settings.folder("uploads")) as folder:
        pieces = _Pieces(database, storage, settings, upload, checksum, folder)
        buffer = bytearray()
        try:
            async for chunk in request.stream():
                buffer += chunk
                if len(buffer) >= _BUFFER:
                    await run_in_threadpool(pieces.feed, bytes(buffer))
                    buffer.clear()
        except ClientDisconnect:
            if checksum is None:
                await run_in_threadpool(pieces.feed, bytes(buffer))
                await run_in_threadpool(pieces.end)
            raise
        await run_in_threadpool(pieces.feed, bytes(buffer))
        return await run_in_threadpool(pieces.end)


class _Pieces:
    def __init__(
        self,
        database: Database,
        storage: Storage,
        settings: Settings,
        upload: Upload,
        checksum: Checksum | None,
        folder: Path,
    ) -> None:
        self._database, self._storage, self._settings = database, storage, settings
        self._upload, self._checksum = upload, checksum
        self._path = folder / "piece"
        self._at, self._size = upload.received, 0
        self._sha = hashlib.sha256()
        self._sum = checksum.new() if checksum else None

    def feed(self, data: bytes) -> None:
        room = self._upload.length - self._at - self._size
        if len(data) > room:
            raise _too_long(room)
        with self._path.open("ab") as file:
            file.write(data)
        self._sha.update(data)
        self._size += len(data)
        if self._sum is not None:
            self._sum.update(data)
        elif self._size >= PIECE:
            self._keep()

    def end(self) -> int:
        """Keep what has come; where the upload is now."""
        expected = self._checksum
        if expected is not None and self._sum is not None and self._sum.digest() != expected.digest:
            raise ChecksumMismatch(
                f"The {self._size:,} bytes that came have another {expected.algorithm}; "
                "nothing of them was kept. Send them again."
            )
        if self._size:
            self._keep()
        return self._at

    def _keep(self) -> None:
        sha = self._sha.hexdigest()
        arguments = (self._database, self._storage, self._settings, self._upload, self._at)
        self._at = service.add(*arguments, self._path, sha)
        self._size, self._sha = 0, hashlib.sha256()


def _too_long(room: int) -> TooLarge:
    return TooLarge(f"The upload has room for {room:,} bytes more.", limit=room)
