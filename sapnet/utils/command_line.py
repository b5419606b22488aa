"""Parts common to `sapnet` and `sapnet-service`: --version, and which extra is missing."""

import sys
from importlib.metadata import version
from typing import Annotated

import typer

DISTRIBUTION = "sapnet-service"
_OWN = {"app", "worker", "sapnet", "sapnet_client", "migrations"}
_EXTRA_OF = {
    "onnxruntime": "onnx",
    "opentelemetry": "otel",
    "mcp": "mcp",
    "tensorboard": "tracking",
    "mlflow": "tracking",
    "wandb": "tracking",
    "authlib": "oidc",
    "joserfc": "oidc",
}


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{DISTRIBUTION} {version(DISTRIBUTION)}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version."),
]


def missing_extra(error: BaseException) -> str | None:
    """Return what to install where a library is missing; None for any other error."""
    library = (getattr(error, "name", None) or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or not library or library in _OWN:
        return None
    extra = _EXTRA_OF.get(library, "service")
    return f"This needs {library}, which is not installed: pip install '{DISTRIBUTION}[{extra}]'"


def run(app: typer.Typer, *, prog_name: str | None = None) -> None:
    """Run a command; a library that is missing ends it with one line and exit code 1."""
    try:
        app(prog_name=prog_name)
    except ModuleNotFoundError as error:
        if (message := missing_extra(error)) is None:
            raise
        print(message, file=sys.stderr)
        raise SystemExit(1) from None
