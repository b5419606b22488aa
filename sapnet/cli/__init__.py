"""`sapnet`: the library on the command line."""

from sapnet.cli.main import app

__all__ = ["app"]
