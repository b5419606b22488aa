"""`sapnet-service weights`: published files to start a training from, fetched where one can."""

from pathlib import Path
from typing import Annotated

import typer

from sapnet.config.published import PRESET_WEIGHTS, PUBLISHED
from sapnet.errors import WeightsUnavailable
from sapnet.utils.download import default_cache_dir, download
from sapnet.utils.files import file_sha256

Name = Annotated[str, typer.Argument(help="of `weights list`; or a preset, for what it wants")]
Out = Annotated[
    Path | None, typer.Option(help="folder", show_default="sapnet/weights in the user's cache")
]

app = typer.Typer(no_args_is_help=True, help="Published weights to start a training from.")


@app.command("list")
def list_weights() -> None:
    """What there is, and which preset wants it."""
    for name, weights in PUBLISHED.items():
        presets = [preset for preset, wanted in PRESET_WEIGHTS.items() if wanted == name]
        wanted = f"; preset {', '.join(presets)}" if presets else ""
        typer.echo(f"{name}: {weights.about} ({weights.licence}){wanted}")


@app.command()
def fetch(
    name: Name,
    out: Out = None,
    from_: Annotated[str | None, typer.Option("--from", help="a mirror's address of it")] = None,
) -> None:
    """Bring a file here, and check it against the digits of the sha256 in its name.

    Its publisher says no more of the sha256 than these eight digits.
    """
    weights = PUBLISHED.get(PRESET_WEIGHTS.get(name, name))
    if weights is None:
        raise typer.BadParameter(f"{name!r}: there are {', '.join(PUBLISHED)}")
    path = (out or default_cache_dir() / "weights") / weights.filename
    otherwise = (
        f"without a network, bring {weights.url} here by other means "
        f"(its sha256 begins with {weights.sha256_prefix})"
    )
    try:
        if path.is_file() and file_sha256(path).startswith(weights.sha256_prefix):
            typer.echo("It is here already.", err=True)
        else:
            sha256 = download(from_ or weights.url, path, weights.sha256_prefix, otherwise)
            typer.echo(f"sha256 {sha256}", err=True)
    except WeightsUnavailable as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    typer.echo(path)
    if weights.is_segmenter:
        typer.echo(f"Next: sapnet-service models import {path}", err=True)
    else:
        typer.echo(f"For every training of this service: SAPNET_BACKBONE_WEIGHTS={path}", err=True)
