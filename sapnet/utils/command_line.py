"""Parts common to `sapnet` and `sapnet-service`: --version, and how a command ends."""

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from sapnet.utils.extras import DISTRIBUTION, missing_extra


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{DISTRIBUTION} {version(DISTRIBUTION)}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version."),
]


def run(app: typer.Typer, *, prog_name: str | None = None) -> None:
    """Run a command; a library that is missing ends it with one line and exit code 1."""
    try:
        app(prog_name=prog_name)
    except ModuleNotFoundError as error:
        if (message := missing_extra(error)) is None:
            raise
        print(message, file=sys.stderr)
        raise SystemExit(1) from None
