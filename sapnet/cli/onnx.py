"""`sapnet onnx`: trained models for other runtimes, from the shell."""

from pathlib import Path
from typing import Annotated

import typer

from sapnet.cli.console import Bars, friendly_errors

app = typer.Typer(no_args_is_help=True, help="Models in ONNX; `sapnet predict` reads them too.")


@app.command("export")
def export_model(
    model: Annotated[Path, typer.Argument(help="model.pt or model.safetensors")],
    out: Annotated[Path, typer.Argument(help="the ONNX file")],
) -> None:
    """Write a model as one ONNX file: images of any size in, labels, scores and masks out."""
    from sapnet.segmenters.checkpoint import load_predictor
    from sapnet.segmenters.onnx.export import export_onnx

    with Bars() as bars, friendly_errors(bars.emit_event):
        export_onnx(load_predictor(model, device="cpu", ready=False), out)
        typer.echo(f"{out.stat().st_size >> 10:,} KiB, written to {out}")
