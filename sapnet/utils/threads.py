"""Threads for compiled work that lets the interpreter go: trees, runs of masks."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache


@cache
def pool() -> ThreadPoolExecutor:
    """The pool of the whole process. What runs there must not wait for other work there."""
    return ThreadPoolExecutor(min(os.cpu_count() or 1, 8), thread_name_prefix="sapnet")
