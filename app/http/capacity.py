"""How much of one kind of work a process does at once.

The API answers on a fixed number of threads. Work that may take long holds one, so each kind of it
has a share of them; what is beyond the share is refused at once, and the rest of the API goes on.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from app.errors import Unavailable

RETRY_AFTER_SECONDS = 5


class Capacity:
    """A share of the process's threads.

    Args:
        what: the work, in the plural, for the message.
        size: how many may be in progress or wait for their turn at once.
        instead: a sentence on what else may be done.
    """

    def __init__(self, what: str, size: int, instead: str = "") -> None:
        self._what, self._instead = what, instead
        self._free = threading.BoundedSemaphore(size)

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Hold a place in this block.

        Raises:
            Unavailable: all are taken; it says when to ask again.
        """
        if not self._free.acquire(blocking=False):
            raise Unavailable(
                f"Too many {self._what} are in progress. Ask again in a few seconds."
                f"{self._instead and ' '}{self._instead}",
                headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
            )
        try:
            yield
        finally:
            self._free.release()
