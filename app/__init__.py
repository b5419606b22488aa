"""The service: FastAPI over a database, a queue and a store. It imports no torch."""

import gc

# What imports make stays: looking through it again and again takes a seventh of the start.
gc.set_threshold(10_000, 10, 10)
