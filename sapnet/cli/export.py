"""`sapnet export`: the masks of a run for other tools, from the shell."""

import json
from pathlib import Path
from typing import Annotated

import typer

from sapnet.cli.console import Bars, friendly_errors
from sapnet.data.annotations.boxes import Boxes
from sapnet.errors import InvalidConfig, InvalidDataset
from sapnet.pipeline.events import Progressed, Warned


def export(
    masks: Annotated[Path, typer.Argument(help="pseudo_masks.ndjson of a run")],
    points: Annotated[Path, typer.Option(help="the points that the run was given")],
    out: Annotated[Path, typer.Option(help="the file to write: a zip, a .json or an .xml")],
    format: Annotated[
        str, typer.Option(help="coco, coco-polygons, yolo-seg, voc, png, label-studio or cvat")
    ] = "coco",
    boxes: Annotated[Boxes, typer.Option(help="as the run was told")] = "use",
    images: Annotated[Path | None, typer.Option(help="their folder, to put them in too")] = None,
    min_quality: Annotated[float, typer.Option(help="masks below it stay behind")] = 0.0,
    simplify: Annotated[
        float, typer.Option(help="pixels that a polygon may leave its outline by")
    ] = 0.0,
) -> None:
    """Masks as COCO, YOLO, VOC, PNG, or for Label Studio and CVAT; says what was lost."""
    from sapnet.data.dataset_folder import read_dataset
    from sapnet.data.exporters import FORMATS, Options, suffix_of
    from sapnet.data.exporters import export as write
    from sapnet.data.exporters.sapnet_results import RunSource, mask_sizes
    from sapnet.data.file_pairing import NAMED

    with Bars() as bars, friendly_errors(bars.emit_event):
        if format not in FORMATS:
            raise InvalidConfig(f"there is no format {format!r}, only {', '.join(FORMATS)}")
        options = Options(images=images is not None, simplify=simplify)
        if out.suffix.lower() != suffix_of(format, options):
            raise InvalidConfig(f"this makes a {suffix_of(format, options)}: name it so")
        try:
            dataset = read_dataset(points, images, lambda _: None, mask_sizes(masks), boxes)
        except InvalidDataset as error:
            hint = "" if images else "; with --images, sizes and EXIF are read from the files"
            raise InvalidConfig(f"{error}{hint}") from error
        source = RunSource(masks, dataset.points, images, min_quality)
        for why in source.unpaired[:NAMED]:
            bars.emit_event(Warned(f"{why.problem} ({why.hint})"))

        def progress(done: int, of: int) -> None:
            bars.emit_event(Progressed("export", done, of))

        out.parent.mkdir(parents=True, exist_ok=True)
        typer.echo(json.dumps(write(source, format, out, options, progress), indent=2))
