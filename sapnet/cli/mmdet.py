"""`sapnet mmdet`: trained models to mmdetection and back, from the shell."""

import json
from pathlib import Path
from typing import Annotated

import typer

from sapnet.cli.console import Bars, friendly_errors

app = typer.Typer(no_args_is_help=True, help="Models to and from mmdetection's SOLOv2.")


@app.command("export")
def export_model(
    model: Annotated[Path, typer.Argument(help="model.pt, with a ResNet")],
    out: Annotated[Path, typer.Argument(help="checkpoint for mmdetection (.pth)")],
) -> None:
    """Write a model as mmdetection's SOLOv2 loads it; says what its config must be set to."""
    from sapnet.segmenters.solov2.mmdet import export_mmdet

    with Bars() as bars, friendly_errors(bars.emit_event):
        typer.echo(json.dumps(export_mmdet(model, out), indent=2))


@app.command("import")
def import_checkpoint(
    checkpoint: Annotated[Path, typer.Argument(help="mmdetection's checkpoint of a SOLOv2")],
    out: Annotated[Path, typer.Argument(help="folder for model.pt and model.json")],
) -> None:
    """Write a model of mmdetection as one that `sapnet predict` reads."""
    from sapnet.segmenters.importing import import_model

    with Bars() as bars, friendly_errors(bars.emit_event):
        meta = import_model(checkpoint, out)
        typer.echo(f"{len(meta['categories'])} classes, written to {out / 'model.pt'}")
