"""`report.html`: a finished run for people, in one file with its images inside. No torch."""

from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from sapnet.evaluation.report import sections
from sapnet.evaluation.report.html import duration, number
from sapnet.evaluation.report.inputs import ReportInputs
from sapnet.evaluation.report.loss_curve import LossHistory
from sapnet.evaluation.report.mask_cards import example_strips, whole_images
from sapnet.evaluation.report.thumbnails import Thumbnails
from sapnet.utils.files import atomic_write

__all__ = ["LossHistory", "ReportInputs", "render_report", "write_report"]


def write_report(path: Path, inputs: ReportInputs) -> None:
    """Write the page, whole or not at all.

    It needs no script and nothing from the net, and stays below three megabytes.
    """
    with atomic_write(path) as file:
        file.write(render_report(inputs).encode("utf-8", "replace"))


def render_report(inputs: ReportInputs) -> str:
    """The whole document (`templates/report.html.j2`); sections without content are left out."""
    thumbnails = Thumbnails(inputs.paths, ranges=inputs.report.get("pixel_ranges"))
    return _template().render(
        report=inputs.report,
        points=inputs.points,
        has_masks=bool(inputs.masks),
        has_ground_truth=bool(inputs.ious),
        tiles=sections.tiles(inputs),
        data=sections.data(inputs),
        proposals=sections.proposals(inputs),
        steps=sections.steps(inputs),
        training=sections.training(inputs),
        whole_images=whole_images(inputs, thumbnails),
        strips=example_strips(inputs, thumbnails),
        quality=sections.quality(inputs),
        resources=sections.resources(inputs),
        recipe=sections.recipe(inputs),
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("sapnet.evaluation.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "duration": duration}
    return environment.get_template("report.html.j2")
