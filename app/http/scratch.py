"""A folder for what comes with one request."""

import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from fastapi.concurrency import run_in_threadpool


@asynccontextmanager
async def scratch_folder(parent: Path) -> AsyncIterator[Path]:
    """Make a folder for a request, and remove it with all that is in it.

    Threads do both: there may be thousands of files, and the event loop has others to answer. It is
    removed for a client that has gone, too.
    """
    folder = await run_in_threadpool(tempfile.mkdtemp, dir=parent)
    try:
        yield Path(folder)
    finally:
        with anyio.CancelScope(shield=True):
            await run_in_threadpool(shutil.rmtree, folder, ignore_errors=True)
