"""The service: FastAPI over a database, a queue and a store. It imports no torch."""

import gc

# For as long as the process runs. What imports make stays, and looking through it after every
# 700 objects takes a seventh of the start.
gc.set_threshold(10_000, 10, 10)
