"""`sapnet`: the library on the command line."""

from sapnet.cli.main import app, main

__all__ = ["app", "main"]
