"""`sapnet`: the library from the shell. A researcher needs no service.

`run` is what the service's worker starts: JSON lines on stdout, logs on stderr.
"""

import errno
import json
import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sapnet.cli.console import Bars, EventLog, friendly_errors
from sapnet.cli.export import export
from sapnet.cli.mmdet import app as mmdet
from sapnet.cli.onnx import app as onnx
from sapnet.cli.tracking import Trackers
from sapnet.config import AUTO, DEFAULT_PROPOSALS
from sapnet.config.resolve import resolve_config
from sapnet.data.annotations.boxes import Boxes
from sapnet.data.dataset_folder import read_dataset
from sapnet.data.depth import parse
from sapnet.data.images import MAX_PIXELS
from sapnet.errors import InvalidConfig, ValidationIssue
from sapnet.pipeline.events import Event, EventSink, Progressed, Warned
from sapnet.pipeline.execute import execute
from sapnet.utils import command_line
from sapnet.utils.command_line import Version

if TYPE_CHECKING:
    from sapnet.data.dataset_folder import DatasetFolder, Warn
    from sapnet.pipeline.offline_jobs import Job
    from sapnet.pipeline.spec import RunSpec
    from sapnet.proposals.base import ProposalGenerator
    from sapnet.segmenters.checkpoint import Predictor
    from sapnet.segmenters.onnx.predictor import OnnxPredictor
    from sapnet.types import PointSet

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
app.command()(export)
app.add_typer(mmdet, name="mmdet")
app.add_typer(onnx, name="onnx")

LEAST_SCORE, LEAST_DRAWN = 0.1, 0.3
"""Scores: from which results are written, low as COCO's AP wants them, and from which drawn."""
Points = Annotated[Path, typer.Option(help="COCO, CVAT, Label Studio, or Labelme's file or folder")]
Images = Annotated[Path, typer.Option(help="folder of the images")]
BoxesOption = Annotated[Boxes, typer.Option("--boxes", help="ignore: by the points alone")]
Store = Annotated[Path | None, typer.Option(help="where proposals are kept for other runs")]
Kind = Annotated[str, typer.Option(help="hierarchy, prompter, hierarchy+prompter, sam, or JSON")]
Override = Annotated[list[str] | None, typer.Option("--set", help="train.epochs=6, repeatable")]


@app.callback()
def options(version: Version = False) -> None:
    """The library from the shell. A researcher needs no service."""


@app.command()
def run(job: Annotated[Path, typer.Argument(help="JOB.json, see docs/architecture.md")]) -> None:
    """Run a job file; speaks JSON lines on stdout."""
    log = EventLog()

    def emit_event(event: Event) -> None:
        sys.stdout.write(event.to_json() + "\n")
        sys.stdout.flush()
        log(event)

    def spec() -> "RunSpec | Job":
        from sapnet.pipeline.offline_jobs import job_of
        from sapnet.pipeline.spec import RunSpec

        return job_of(job) or RunSpec.read(job)

    def launch() -> None:
        from sapnet.pipeline.launch import spread

        spread(job)

    raise typer.Exit(execute(spec, emit_event, launch))


@app.command()
def shards() -> None:
    """Work on parts of runs, a line of JSON each on stdin; speaks JSON lines on stdout."""
    from sapnet.pipeline.shards import serve
    from sapnet.utils.devices import ALL, VARIABLE, take_devices

    def emit_event(event: Event) -> None:
        sys.stdout.write(event.to_json() + "\n")
        sys.stdout.flush()

    def build(settings: Mapping[str, Any]) -> "ProposalGenerator":
        from sapnet.proposals import build_generator

        names = os.environ.get(VARIABLE, ALL)
        if names != ALL:  # to count them all, torch would be loaded
            take_devices(names)
        return build_generator(settings)

    raise typer.Exit(serve(sys.stdin, emit_event, build))


@app.command()
def train(
    points: Points,
    images: Images,
    out: Annotated[Path, typer.Option(help="work folder; started again, it goes on from there")],
    truth: Annotated[Path | None, typer.Option(help="COCO instances, for metrics alone")] = None,
    method: Annotated[
        str,
        typer.Option(help="sapnet++, p2seg, sim, sapnet, mil, box-rule, consensus, sam-top1"),
    ] = "sapnet++",
    preset: Annotated[
        str, typer.Option(help="auto chooses by machine and images; cpu, gpu, demo, light_r18, …")
    ] = AUTO,
    seed: int = 0,
    proposals: Kind = DEFAULT_PROPOSALS,
    weights: Annotated[Path | None, typer.Option(help="backbone state dict, or a model")] = None,
    from_model: Annotated[
        Path | None, typer.Option(help="segmenter to go on from: ours, or mmdetection's SOLOv2")
    ] = None,
    store: Store = None,
    boxes: BoxesOption = "use",
    override: Override = None,
    track: Annotated[
        list[str] | None, typer.Option(help="tensorboard, mlflow or wandb, repeatable")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="check, tell how long it takes, and do nothing")
    ] = False,
) -> None:
    """Proposals, training, pseudo-masks, metrics and a checkpoint."""
    with Bars() as bars:
        # All that can be checked in a second is, before torch is loaded.
        with friendly_errors(bars.emit_event):
            generator, overrides = parse_kind(proposals), parse_overrides(override or [])
            named = "cpu" if preset == AUTO else preset
            resolve_config(method, named, overrides, str(generator["kind"]))
            warn = warning_to(bars.emit_event)
            dataset = read_dataset(points, images, warn, boxes=boxes)
            check_proposals(generator, dataset.points)
            check_files(truth, (weights, from_model), dataset, warning_to(bars.emit_event))
            params = {"method": method, "preset": preset, "seed": str(seed), "proposals": proposals}
            params |= {name: str(value) for name, value in overrides.items()}
            trackers = Trackers(track or [], out, params, bars.emit_event)

        def spec() -> "RunSpec":
            from sapnet.pipeline.spec import RunSpec

            return RunSpec(
                points=dataset.points,
                image_paths=dataset.files,
                workdir=out,
                proposal_store=store or out / "proposals",
                truth=truth,
                method=method,
                preset=preset,
                overrides=overrides,
                seed=seed,
                proposals=generator,
                backbone_weights=weights,
                initial_model=from_model,
            )

        if dry_run:
            with friendly_errors(bars.emit_event):
                typer.echo(told_time(spec(), dataset.points))
            return
        code = execute(spec, trackers.emit_event)
        trackers.close()
    if code:
        raise typer.Exit(code)
    from sapnet.utils.distributed import is_main

    if is_main():
        metrics = json.loads((out / "result" / "metrics.json").read_text())
        typer.echo(json.dumps(metrics, indent=2))
        typer.echo(f"written to {out / 'result'}")


@app.command()
def propose(
    points: Points,
    images: Images,
    store: Annotated[Path, typer.Option(help="where the bags go")],
    proposals: Kind = DEFAULT_PROPOSALS,
    boxes: BoxesOption = "use",
) -> None:
    """Make the bags of every image, once; `train --store` then finds them."""
    from sapnet.config.schema import DataConfig
    from sapnet.proposals import build_generator
    from sapnet.proposals.cached import populate_cache

    with Bars() as bars, friendly_errors(bars.emit_event):
        dataset = read_dataset(points, images, warning_to(bars.emit_event), boxes=boxes)
        generator = build_generator(parse_kind(proposals), dataset.points)
        limit = DataConfig().max_proposals
        steps = populate_cache(store, generator, dataset.points, dataset.files, limit)
        total = len(dataset.points.images)
        for index, (_, bags) in enumerate(steps):
            bars.emit_event(Progressed("proposals", index + 1, total))
            del bags


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="model.pt, .safetensors or .onnx")],
    images: Annotated[list[Path], typer.Argument(help="images, or folders of images")],
    out: Annotated[Path | None, typer.Option(help="COCO results go here, else to stdout")] = None,
    overlays: Annotated[
        Path | None, typer.Option(help="folder for images with the masks drawn on")
    ] = None,
    score: Annotated[
        float | None, typer.Option(help="confidence threshold; default 0.1, and 0.3 in images")
    ] = None,
    tiles: Annotated[
        str,
        typer.Option(
            help="cut images into overlapping tiles: auto (those much larger than the training's), "
            "off, or a tile's side in pixels"
        ),
    ] = "auto",
    mirror: Annotated[
        bool,
        typer.Option(help="predict mirror images too: objects in both count more; twice the time"),
    ] = False,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="larger images are refused; 3 bytes of memory a pixel")
    ] = MAX_PIXELS,
) -> None:
    """Instance masks of images, as COCO results with `file_name` for the image.

    They are in pixels as the files store them: an EXIF orientation is not applied.
    """
    from PIL import Image

    from sapnet.data.drawing import overlay
    from sapnet.data.exif import AS_STORED, orientation_of
    from sapnet.data.images import ImageProblem, drawings, image_files, read_rgb
    from sapnet.data.tiles import parse_tiles

    results, turned = [], []
    with Bars() as bars, friendly_errors(bars.emit_event):
        cut = parse_tiles(tiles)
        files = image_files(images)
        predictor, drawn = open_model(model), drawings(files, ".png")
        predict_image = predictor.predict
        if cut != "auto":
            predict_image = partial(predict_image, tiles=cut)
        if mirror:
            predict_image = partial(predict_image, mirror=True)
        for index, (name, file) in enumerate(files.items()):
            try:
                image = read_rgb(file, max_pixels, predictor.pixel_ranges)
            except ImageProblem as error:
                raise ImageProblem(f"{name}: {error}") from error
            if orientation_of(file) != AS_STORED:
                turned.append(name)
            least = LEAST_SCORE if score is None else score
            predicted = predict_image(image, least)
            results += [{"file_name": name, **result} for result in predicted]
            if overlays:
                target = overlays / drawn[name]
                target.parent.mkdir(parents=True, exist_ok=True)
                least = LEAST_DRAWN if score is None else score
                sure = [result for result in predicted if result["score"] >= least]
                Image.fromarray(overlay(image, sure, predictor.categories)).save(target)
            bars.emit_event(Progressed("predict", index + 1, len(files)))
        if turned:
            few = ", ".join(turned[:5]) + (", …" if len(turned) > 5 else "")
            what = "viewers turn by EXIF; their masks are in pixels as stored"
            message = f"{len(turned)} images that {what}: {few}"
            bars.emit_event(Warned(message))
    text = json.dumps(results)
    if out:
        out.write_text(text)
    else:
        typer.echo(text)


@app.command()
def evaluate(
    truth: Annotated[Path, typer.Option(help="COCO instances")],
    results: Annotated[
        Path | None, typer.Argument(help="COCO results (image_id or file_name)")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="model.pt, to predict on its images first")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="their folder: needed with --model, and for EXIF")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="the figures go here too")] = None,
) -> None:
    """AP of predictions, or of a model, against ground truth, for masks and for boxes."""
    from sapnet.data.annotations.coco import read_truth
    from sapnet.data.annotations.skipped import what_figures_lack
    from sapnet.data.exif import orientation_of
    from sapnet.evaluation import average_precision
    from sapnet.evaluation.detections import detect, read_truth_of
    from sapnet.evaluation.results import read_results
    from sapnet.utils.files import write_text

    with Bars() as bars, friendly_errors(bars.emit_event):
        warn = warning_to(bars.emit_event)
        files: dict[int, Path] = {}
        if images is None:
            document = read_truth(truth, warn=warn)
        else:
            document, files = read_truth_of(truth, images, warn)
        if results is not None and model is None:
            orientations = None if images is None else lambda id_: orientation_of(files[id_])
            detections = read_results(results, document, warn, orientations)
        elif results is None and model is not None and images is not None:

            def progress(step: int, of: int) -> None:
                bars.emit_event(Progressed("predict", step, of))

            detections = detect(open_model(model), files, document, progress)
        else:
            raise InvalidConfig("give either a file of results, or both --model and --images")
        complete = {i["id"] for i in document["images"]}.difference(document["incomplete"])
        if not complete:
            raise InvalidConfig("the ground truth lacks objects in every image: there is no AP")
        if lacking := what_figures_lack(document, named=0):  # each was named as it was read
            warn(ValidationIssue("", lacking, ""))
        figures = {
            kind: average_precision(detections, document, kind=kind, image_ids=complete)
            for kind in ("segm", "bbox")
        }
        text = json.dumps(figures, indent=2)
        typer.echo(text)
        if out:
            write_text(out, text + "\n")


@app.command()
def points(
    source: Annotated[str, typer.Option("--from", help="coco, voc, cityscapes or isaid")],
    root: Annotated[Path, typer.Option(help="folder of the dataset, as its makers ship it")],
    out: Annotated[Path, typer.Option(help="points.json, instances.json and images go here")],
    split: Annotated[str, typer.Option(help="train or val")] = "train",
    rule: Annotated[str, typer.Option(help="quasi-center, center or random")] = "quasi-center",
    seed: int = 0,
    jitter: Annotated[
        float, typer.Option(help="standard deviation of noise on each point, pixels", min=0)
    ] = 0.0,
) -> None:
    """Draw a point in each mask of a public dataset."""
    from sapnet.data.public import export, read_split

    with Bars() as bars, friendly_errors(bars.emit_event):
        counts = export(read_split(source, root, split), out, rule=rule, seed=seed, jitter=jitter)
        typer.echo(", ".join(f"{count} {name}" for name, count in counts.items()))


def told_time(spec: "RunSpec", points: "PointSet") -> str:
    """How long a training would take on this machine, in words; and the preset that it chooses."""
    from sapnet.config.estimate import Workload, estimate
    from sapnet.pipeline.preset import choose, given_body, this_machine

    kind, model_type = str(spec.proposals["kind"]), spec.proposals.get("model_type")
    preset, why = spec.preset, ""
    if preset == AUTO:
        choice = choose(spec, points)
        preset, why = choice.preset, f"{' '.join(choice.reasons)}\n"
    config = resolve_config(spec.method, preset, spec.overrides, kind, given_body(spec))
    workload = Workload.of(points, kind, model_type, has_truth=spec.truth is not None)
    return f"{why}{preset}: {estimate(config, workload, this_machine()).in_words()}"


def open_model(path: Path) -> "Predictor | OnnxPredictor":
    """A predictor of any file of a trained model. An ONNX one needs no torch."""
    if path.suffix.lower() == ".onnx":
        from sapnet.segmenters.onnx.predictor import OnnxPredictor

        return OnnxPredictor(path)
    from sapnet.segmenters.checkpoint import load_predictor

    return load_predictor(path)


def warning_to(emit_event: EventSink) -> "Warn":
    """Tell people what was left out, mapped or assumed, and where."""

    def warn(issue: ValidationIssue) -> None:
        emit_event(Warned(f"{issue.pointer}: {issue.problem}" if issue.pointer else issue.problem))

    return warn


def check_proposals(settings: dict[str, Any], points: "PointSet") -> None:
    """Raise what is wrong with settings of proposals that need no torch."""
    from sapnet.proposals import KINDS, build_generator

    if settings["kind"] in ("given", "hierarchy") or settings["kind"] not in KINDS:
        build_generator(settings, points)


def check_files(
    truth: Path | None,
    weights: "tuple[Path | None, ...]",
    dataset: "DatasetFolder",
    warn: "Warn",
) -> None:
    """Raise what is wrong with the files of a training beside its points and images."""
    from sapnet.data.annotations.coco import check_truth

    for path in weights:
        if path is not None and not path.is_file():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    if truth is not None:
        check_truth(truth, sizes=dataset.sizes, orientations=dataset.orientation, warn=warn)


def parse_kind(text: str) -> dict[str, Any]:
    """`hierarchy` or `{"kind": "sam", "model_type": "vit_b"}`."""
    if not text.startswith("{"):
        return {"kind": text}
    try:
        return parse(text)
    except ValueError as error:
        raise InvalidConfig(f"--proposals is no JSON: {error}") from error


def parse_overrides(pairs: list[str]) -> dict[str, Any]:
    """`train.epochs=6` -> {"train.epochs": 6}; a value is JSON, or else text."""
    out: dict[str, Any] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            out[name] = parse(value)
        except ValueError:
            out[name] = value
    return out


def main(*, prog_name: str | None = None) -> None:
    """Run `sapnet`."""
    command_line.run(app, prog_name=prog_name)


if __name__ == "__main__":
    main()
