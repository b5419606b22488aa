"""How many pixels the process holds decoded at the same time.

A file of 400 KB may stand for 100 million of them, and many requests for many such files.
"""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from app.errors import Unavailable

CAPACITY = 100_000_000
"""Pixels, of all requests together: up to 7 bytes each while one is decoded, 4 to 7 in a model."""
REQUEST_PATIENCE, IMPORT_PATIENCE = 10.0, 120.0  # seconds
_RETRY_AFTER = 5  # seconds


class DecodeBudget:
    """Room for decoded pixels, given in the order in which it is asked for.

    An image that is larger than all of it is decoded alone.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity, self._used = capacity, 0
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()

    @contextmanager
    def room(self, pixels: int, patience: float | None = None) -> Iterator[None]:
        """Hold room for so many pixels inside this block.

        Args:
            patience: seconds to wait for it, by default `REQUEST_PATIENCE`.

        Raises:
            Unavailable: there was no room in that time.
        """
        self._take(pixels, REQUEST_PATIENCE if patience is None else patience)
        try:
            yield
        finally:
            with self._changed:
                self._used -= pixels
                self._changed.notify_all()

    def _take(self, pixels: int, patience: float) -> None:
        ticket = object()

        def is_next() -> bool:
            fits = self._used == 0 or self._used + pixels <= self._capacity
            return self._waiting[0] is ticket and fits

        with self._changed:
            self._waiting.append(ticket)
            try:
                if not self._changed.wait_for(is_next, patience):
                    raise Unavailable(
                        "Other requests hold as many decoded images as there is memory for.",
                        headers={"Retry-After": str(_RETRY_AFTER)},
                    )
                self._used += pixels
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()


DECODING = DecodeBudget()
"""Of this process."""
