"""`sapnet-service`: the service and its client on the command line."""

from app.cli.main import app, main

__all__ = ["app", "main"]
