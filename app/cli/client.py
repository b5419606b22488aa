"""`sapnet-service` for those who use a running service: train, wait, look, take it away."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer
from rich.console import Console
from rich.table import Table

from app.cli.agents.command import mcp
from sapnet.config import AUTO
from sapnet.config.resolve import resolve_config
from sapnet.config.schema import Config
from sapnet.errors import InvalidConfig, InvalidDataset
from sapnet_client import (
    Bars,
    Client,
    Dataset,
    Job,
    MissingPackage,
    NotFound,
    SapnetError,
    document,
)

PANEL = "Use a running service"
Url = Annotated[
    str | None,
    typer.Option(help="the service's address [SAPNET_URL]", show_default="this machine, 8000"),
]
Key = Annotated[str | None, typer.Option(help="an API key, where one is needed [SAPNET_KEY]")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="its id")]
MIN_QUALITY = "masks below it stay behind"
CONFIDENCE_THRESHOLD = "confidence threshold; default 0.1, and 0.3 in drawn images"
Out = Annotated[Path, typer.Option(help="folder for what comes of it")]

console = Console(stderr=True, highlight=False, soft_wrap=True)


def train(
    images: Annotated[str, typer.Option(help="folder, archive, or https:// or s3:// address")],
    points: Annotated[
        Path | None,
        typer.Option(
            help="COCO, CVAT, Label Studio, GeoJSON; or a folder",
            show_default="with the images, as COCO, YOLO and VOC folders have them",
        ),
    ] = None,
    truth: Annotated[Path | None, typer.Option(help="COCO instances, for figures alone")] = None,
    name: Annotated[str | None, typer.Option(help="of the data set")] = None,
    boxes: Annotated[str, typer.Option(help="use, or ignore for the points alone")] = "use",
    method: Annotated[
        str,
        typer.Option(help="sapnet++, p2seg, sim, sapnet, mil, box-rule, consensus, sam-top1"),
    ] = "sapnet++",
    preset: Annotated[
        str, typer.Option(help="auto chooses by machine and images; cpu, gpu, demo, …")
    ] = AUTO,
    seed: int = 0,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="train.epochs=6, repeatable")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="check, tell how long it takes here, send nothing")
    ] = False,
    out: Out = Path("results"),
    url: Url = None,
    key: Key = None,
) -> None:
    """From images and points to masks and a model: send, train, wait, fetch."""
    overrides = dict(_setting(text) for text in set_ or [])
    try:  # before anything is sent
        resolve_config(method, "cpu" if preset == AUTO else preset, overrides)
        if dry_run:
            resolve = partial(resolve_config, method, overrides=overrides)
            typer.echo(_plan(images, points, truth, resolve, preset, boxes=boxes))
            return
    except (InvalidConfig, InvalidDataset, OSError) as error:
        console.print(str(error), style="red", markup=False)
        raise typer.Exit(1) from None
    with _client(url, key) as client:
        dataset = client.create_dataset(images, points, truth=truth, name=name, boxes=boxes)
        counts = f"{dataset.images} images, {dataset.annotations} points"
        console.print(f"Data set {dataset.id}: {counts}")
        job = client.train(dataset, method=method, preset=preset, seed=seed, overrides=overrides)
        _finish(client, job.id, out)


def wait(job: JobId, out: Out = Path("results"), url: Url = None, key: Key = None) -> None:
    """Follow a job to its end, and fetch what came of it."""
    with _client(url, key) as client:
        _finish(client, job, out)


def status(
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="its id")] = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """A job in a few lines; without one, the newest jobs."""
    with _client(url, key) as client:
        if job is not None:
            _show(client.job(job))
            return
        table = Table("job", "kind", "state", "stage", "done", "method", "made")
        for job_info, _ in zip(client.jobs(), range(20), strict=False):
            made = f"{job_info.created_at:%Y-%m-%d %H:%M}" if job_info.created_at else ""
            share = f"{job_info.progress:.0%}"
            kind = (job_info.id, job_info.kind, job_info.state, job_info.stage or "", share)
            table.add_row(*kind, job_info.method or "", made)
        Console(width=None if sys.stdout.isatty() else 140).print(table)


def cancel(job: JobId, url: Url = None, key: Key = None) -> None:
    """Stop a job."""
    with _client(url, key) as client:
        typer.echo(client.cancel(job).state)


def masks(
    job: JobId,
    min_quality: Annotated[float | None, typer.Option(min=0, max=1, help=MIN_QUALITY)] = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """The job's masks on stdout, a line of JSON each: COCO RLE, your ids, a quality."""
    with _client(url, key) as client:
        for mask in client.pseudo_masks(job, min_quality=min_quality):
            typer.echo(json.dumps(_annotation(mask)))


def predict(
    model: Annotated[str, typer.Argument(help="a model's id or alias, or the id of its job")],
    images: Annotated[list[Path], typer.Argument(help="images, or folders of them")],
    score: Annotated[float | None, typer.Option(min=0, max=1, help=CONFIDENCE_THRESHOLD)] = None,
    overlays: Annotated[bool, typer.Option(help="images with the masks drawn on too")] = False,
    tiles: Annotated[
        str, typer.Option(help="cut images into tiles: auto, off, or a side in pixels")
    ] = "auto",
    mirror: Annotated[bool, typer.Option(help="mirror images too, in twice the time")] = (False),
    out: Out = Path("predictions"),
    url: Url = None,
    key: Key = None,
) -> None:
    """Masks in new images: OUT/predictions.json, COCO results with a file name each."""
    from sapnet.data.images import ImageProblem, drawings, image_files

    try:
        files = image_files(images)
    except ImageProblem as error:
        raise typer.BadParameter(str(error)) from error
    out.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = []
    drawn = drawings(files, ".overlay.png")
    with _client(url, key) as client:
        model = _model(client, model)
        how: dict[str, Any] = {"score": score, "tiles": tiles, "mirror": mirror}
        for name, file in files.items():
            instances = client.predict(model, file, **how)
            results += [{"file_name": str(file), **document(one)} for one in instances]
            if overlays:
                overlay = client.overlay(model, file, **how)
                target = out / drawn[name]
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(overlay)
            console.print(f"{file}: {len(instances)} objects")
    (out / "predictions.json").write_text(json.dumps(results))
    typer.echo(out / "predictions.json")


def export(
    job: JobId,
    format: Annotated[
        str,
        typer.Option(help="coco, coco-polygons, yolo-seg, voc, png, label-studio or cvat"),
    ] = "coco",
    min_quality: Annotated[float, typer.Option(min=0, max=1, help=MIN_QUALITY)] = 0.0,
    images: Annotated[bool, typer.Option(help="with the images")] = False,
    out: Annotated[Path, typer.Option(help="folder, or the file itself")] = Path("."),
    url: Url = None,
    key: Key = None,
) -> None:
    """The job's masks as a file in another tool's format."""
    with _client(url, key) as client:
        made = client.create_export(job, format, min_quality=min_quality, images=images)
        made = client.wait_for_export(made)
        report = made.report or {}
        for one in report.get("left_out", []):
            console.print(f"left out: annotation {one['id']}: {one['why']}")
        lost = (report.get("round_trip") or {}).get("mean_iou")
        if lost is not None and lost < 1:
            console.print(f"IoU with the masks here, after the way back: {lost:.3f} on average")
        typer.echo(client.download_export(made, out))


def label(
    model: Annotated[str, typer.Argument(help="a model's id or alias, or the id of its job")],
    dataset: Annotated[str | None, typer.Option(help="its id; default: the model's own")] = None,
    image: Annotated[
        list[int] | None,
        typer.Option(help="id of an image, repeatable", show_default="all without annotations"),
    ] = None,
    score: Annotated[float | None, typer.Option(min=0, max=1, help=CONFIDENCE_THRESHOLD)] = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Let a model label the images that have no points; its masks wait for a review."""
    with _client(url, key) as client:
        job = client.label(_model(client, model), dataset=dataset, images=image, score=score)
        console.print(f"Job {job.id}")
        _show(client.wait(job))
        counts = client.review_counts(job)
        console.print(f"{counts['open']} masks. Look at them: sapnet-service review {job.id}")
        typer.echo(job.id)


def statistics(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="its id")],
    job: Annotated[
        str | None, typer.Option(help="a training of it, whose masks tell of points")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="all of it as JSON")] = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """What is in a data set, and what in it looks wrong."""
    with _client(url, key) as client:
        health = client.statistics(dataset, job=job)
        if as_json:
            typer.echo(json.dumps(document(health)))
            return
        table = Table("class", "objects", "share", "images")
        for one in health.classes:
            table.add_row(one.name, str(one.annotations), f"{one.share:.1%}", str(one.images))
        Console(width=None if sys.stdout.isatty() else 100).print(table)
        for finding in health.findings:
            typer.echo(finding.detail)
        if not health.complete:
            typer.echo(f"{health.described} of {health.images} images were compared; ask again.")


def next_images(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="its id")],
    job: Annotated[
        str | None,
        typer.Option(help="a training or labelling whose masks count", show_default="the newest"),
    ] = None,
    to_review: Annotated[
        bool, typer.Option("--review", help="those with open masks, not those without points")
    ] = False,
    most: Annotated[int, typer.Option(min=1, help="how many to list")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="a line of JSON an image")] = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Which images to click or to review next, and why."""
    with _client(url, key) as client:
        kind = "open" if to_review else "unannotated"
        ranked = islice(client.next_images(dataset, job=job, images=kind), most)
        if as_json:
            for one in ranked:
                typer.echo(json.dumps(document(one)))
            return
        names = ("uncertainty", "disagreement", "novelty", "diversity")
        table = Table("image", "file", "masks", "score", *names)
        for one in ranked:
            reasons = ["–" if (v := one.reasons[n]) is None else f"{v:.2f}" for n in names]
            ids = (str(one.image_id), one.file_name, str(one.masks))
            table.add_row(*ids, f"{one.score:.2f}", *reasons)
        Console(width=None if sys.stdout.isatty() else 120).print(table)


def corrections(
    jobs: Annotated[list[str], typer.Argument(metavar="JOB...", help="with reviewed masks")],
    name: Annotated[str | None, typer.Option(help="of the version")] = None,
    points: Annotated[
        bool, typer.Option("--points", help="of accepted masks the points alone")
    ] = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Make a new version of the data set from what was decided about the masks of jobs."""
    with _client(url, key) as client:
        kind = "points" if points else "masks"
        made = client.corrections(jobs[0], name=name, also=jobs[1:], accepted_as=kind)
        console.print(f"{made.name}: {made.images} images, {made.annotations} annotations")
        typer.echo(made.id)


def review(
    job: JobId,
    accept_from: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="accept all open masks of at least this quality"),
    ] = None,
    worst: Annotated[int, typer.Option(min=1, help="how many to list")] = 20,
    url: Url = None,
    key: Key = None,
) -> None:
    """How far the review is, and the masks of lowest quality."""
    with _client(url, key) as client:
        if accept_from is not None:
            rule = client.accept_from(job, accept_from)
            console.print(f"{rule.accepted} masks accepted by the rule {rule.id}")
        counts = client.review_counts(job)
        typer.echo("  ".join(f"{name} {count}" for name, count in counts.items()))
        table = Table("mask", "image", "annotation", "class", "quality")
        for mask, _ in zip(client.review(job), range(worst), strict=False):
            ids = (mask.mask_id, mask.image_id, mask.id, mask.category_id)
            table.add_row(*map(str, ids), f"{mask.quality:.2f}")
        Console(width=None if sys.stdout.isatty() else 120).print(table)
        typer.echo(f"Decide on the page, {client.url}, or by sapnet_client.Client.")


def import_model(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="the checkpoint")],
    name: Annotated[str | None, typer.Option(help="for people; the file's by default")] = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Take in a model from elsewhere: ours, mmdetection's SOLOv2, safetensors, a backbone."""
    with _client(url, key) as client:
        model = client.import_model(file, name=name)
        classes = ", ".join(c.name for c in model.categories[:8]) or "none: a backbone alone"
        more = ", …" if len(model.categories) > 8 else ""
        console.print(f"{len(model.categories)} classes ({classes}{more})", markup=False)
        typer.echo(model.id)


def demo(context: typer.Context) -> None:
    """All of it on drawn scenes, with a service of its own; or --images and --points of yours."""
    script = Path(__file__).parents[2] / "examples" / "demo.py"
    if not script.exists():
        console.print("The demo is in the repository: clone it, and `make demo`.")
        raise typer.Exit(1)
    # In this process's place: its Ctrl-C, its output, its exit code.
    sys.stdout.flush()
    path = os.pathsep.join(filter(None, (str(script.parents[1]), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, str(script), *context.args]
    if os.name == "posix":
        os.execve(sys.executable, command, {**os.environ, "PYTHONPATH": path})
    raise typer.Exit(subprocess.run(command, check=False).returncode)


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to the service's command line."""
    for command in (
        train,
        wait,
        status,
        cancel,
        masks,
        predict,
        export,
        label,
        review,
        corrections,
        statistics,
    ):
        app.command(rich_help_panel=PANEL)(command)
    app.command("next", rich_help_panel=PANEL)(next_images)
    models = typer.Typer(no_args_is_help=True, help="Models from elsewhere.")
    models.command("import")(import_model)
    models.callback()(lambda: None)
    app.add_typer(models, name="models", rich_help_panel=PANEL)
    passed_on = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command(rich_help_panel=PANEL, context_settings=passed_on)(demo)
    app.command(rich_help_panel=PANEL)(mcp)


@contextmanager
def _client(url: str | None, key: str | None) -> Iterator[Client]:
    """Connect; print what the service refuses in its own words, and exit with 1."""
    try:
        with Client(url, key=key, progress=Bars(console)) as client:
            yield client
    except (SapnetError, OSError, MissingPackage) as error:
        console.print(str(error), style="red", markup=False)
        raise typer.Exit(1) from None


def _plan(
    images: str,
    points: Path | None,
    truth: Path | None,
    resolve: Callable[[str], Config],
    preset: str,
    *,
    boxes: str,
) -> str:
    """With which preset a training would go on this machine, and how long; the data is checked.

    Args:
        resolve: gives the settings of a preset.
    """
    from app.jobs.plan import this_machine
    from app.settings import Settings
    from sapnet.config import DEFAULT_PROPOSALS
    from sapnet.config.choice import choose_preset
    from sapnet.config.estimate import Workload, estimate
    from sapnet.data.annotations.boxes import Boxes
    from sapnet.data.annotations.coco import check_truth
    from sapnet.data.dataset_folder import read_dataset

    if not Path(images).is_dir():
        raise InvalidConfig(f"{images} is no folder, and a dry run reads no other images")
    if boxes not in get_args(Boxes):
        raise InvalidConfig(f"--boxes is {' or '.join(get_args(Boxes))}, not {boxes!r}")
    dataset = read_dataset(
        points or Path(images),
        Path(images),
        lambda issue: console.print(issue.problem, markup=False),
        boxes=cast(Boxes, boxes),
    )
    if truth is not None:
        check_truth(truth, sizes=dataset.sizes, orientations=dataset.orientation)
    workload = Workload.of(dataset.points, DEFAULT_PROPOSALS, has_truth=truth is not None)
    machine, why = this_machine(Settings()), ""
    if preset == AUTO:
        choice = choose_preset(machine, workload)
        preset, why = choice.preset, f"{' '.join(choice.reasons)}\n"
    time = estimate(resolve(preset), workload, machine).in_words()
    return f"{why}{preset}, on this machine: {time}"


def _finish(client: Client, job_id: str, out: Path) -> None:
    console.print(f"Job {job_id}")
    try:
        job = client.wait(job_id)
    except KeyboardInterrupt:
        console.print(f"The job goes on. Come back: sapnet-service wait {job_id}")
        console.print(f"Stop it: sapnet-service cancel {job_id}")
        raise typer.Exit(130) from None
    if job.model_id is None:
        _show(job)
        return
    out.mkdir(parents=True, exist_ok=True)
    dataset = client.dataset(job.dataset_id or "")
    annotations = [_annotation(mask) for mask in client.pseudo_masks(job)]
    (out / "masks.json").write_text(json.dumps(_coco(client, dataset, annotations)))
    (out / "metrics.json").write_text(json.dumps(document(client.metrics(job)), indent=2))
    client.download_checkpoint(job, out / "model.pt")
    with suppress(NotFound):
        client.download_report(job, out / "report.html")
    with suppress(NotFound):
        (out / "gallery.png").write_bytes(client.gallery(job))
    _show(job)
    for name in ("masks.json", "model.pt", "metrics.json", "report.html", "gallery.png"):
        if (out / name).exists():
            typer.echo(out / name)


def _coco(client: Client, dataset: Dataset, annotations: Iterable[Any]) -> dict[str, Any]:
    images = [
        {"id": i.id, "file_name": i.file_name, "width": i.width, "height": i.height}
        for i in client.images(dataset)
    ]
    categories = [{"id": c.id, "name": c.name} for c in dataset.categories]
    return {"images": images, "categories": categories, "annotations": list(annotations)}


def _annotation(mask: Any) -> dict[str, Any]:
    """As COCO has it, and the quality."""
    names = ("id", "image_id", "category_id", "segmentation", "bbox", "area", "quality", "source")
    whole = document(mask)
    return {**{name: whole[name] for name in names}, "iscrowd": 0}


def _show(job: Job) -> None:
    parts = [f"{job.state}, {job.progress:.0%}"]
    parts += [f"stage {job.stage}"] if job.stage and not job.over else []
    parts += [f"model {job.model_id}"] if job.model_id else []
    parts += [f"{job.error}"] if job.error else []
    console.print(f"Job {job.id}: {'  '.join(parts)}", markup=False)
    if job.preset_reasons:
        console.print(f"preset {job.preset}: {' '.join(job.preset_reasons)}", markup=False)
    for warning in job.warnings:
        console.print(f"warning: {warning}", markup=False)


def _model(client: Client, model: str) -> str:
    """A job's id stands for its model."""
    try:
        return client.job(model).model_id or model
    except NotFound:
        return model


def _setting(text: str) -> tuple[str, Any]:
    """A value is JSON, or else text: train.optimizer=sgd."""
    name, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"{text!r}: write --set {name}=6")
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        return name, value
