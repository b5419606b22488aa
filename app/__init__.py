"""The service: FastAPI over a database, a queue and a store. It imports no torch."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

# For as long as the process runs. What imports make stays, and looking through it after every
# 700 objects, and through all of it after every 100,000, takes a fifth of the start.
gc.set_threshold(10_000, 50, 10)


@contextmanager
def loading() -> Iterator[None]:
    """Look for no garbage while modules are imported, nor afterwards among what they made.

    The least threshold that a running service can do with still costs a twentieth of the start.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        if enabled:
            gc.enable()
