"""Images of tasks, fetched; those that were looked at last are kept for the next click."""

import hashlib
import tempfile
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from app.datasets.image_sources import ImageHost, NotFetched
from app.errors import Invalid, ValidationIssue
from app.http.capacity import Capacity
from app.settings import Settings

_MOST_BYTES = 1 << 27  # kept, all together
_SECONDS = 300.0  # after which an image is fetched anew: another may be at its address


@dataclass(frozen=True, slots=True)
class TaskImage:
    """An image's file, and its SHA-256."""

    data: bytes
    sha256: str


class TaskImages:
    """Fetches images, and keeps some of them."""

    def __init__(self, settings: Settings, fetches: Capacity) -> None:
        self._settings, self._fetches = settings, fetches
        self._kept: OrderedDict[tuple[str, ...], tuple[float, TaskImage]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, owner: str, host: ImageHost | None, address: str) -> TaskImage:
        """Return the image at an address.

        Args:
            owner: whose request it is: what is kept for one is not for another.
            host: the Label Studio, whose a relative address is; None where it is not known.

        Raises:
            Invalid: says why it could not be had.
            Unavailable: other requests hold all that is free.
        """
        key = owner, host.url if host else "", address
        with self._lock:
            until, image = self._kept.get(key, (0.0, None))
            if image is not None and until > time.monotonic():
                self._kept.move_to_end(key)
                return image
        image = self._fetched(host, address)
        with self._lock:
            self._kept[key] = time.monotonic() + _SECONDS, image
            self._kept.move_to_end(key)
            total = sum(len(kept.data) for _, kept in self._kept.values())
            while total > _MOST_BYTES:
                _, (_, gone) = self._kept.popitem(last=False)
                total -= len(gone.data)
        return image

    def _fetched(self, host: ImageHost | None, address: str) -> TaskImage:
        from app.datasets.fetching import fetch_one  # loads a client that few need

        folder = self._settings.folder("uploads")
        try:
            with tempfile.TemporaryDirectory(dir=folder) as name, self._fetches.slot():
                path = Path(name) / "image"
                fetch_one(self._settings, address, path, host)
                data = path.read_bytes()
        except NotFetched as error:
            detail = f"the image {address[:300]!r} could not be fetched: {error}"
            hint = "see docs/integrations/label-studio.md, 'Images'"
            raise Invalid([ValidationIssue("body", "/tasks/0/data", detail, hint)]) from error
        return TaskImage(data, hashlib.sha256(data).hexdigest())
