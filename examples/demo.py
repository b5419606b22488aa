"""The whole job over HTTP: points in, masks and a trained segmenter out. Run by `make demo`.

Without options it draws scenes of its own, with true masks beside them; with --images and --points
it takes yours. Everything that it starts it stops again.
"""

import json
import signal
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from stack import StackError, check, service

from sapnet.data.synthetic import make_scenes
from sapnet.evaluation import average_precision
from sapnet_client import Bars, Client, SapnetError
from sapnet_client.types import document

SCENES, HELD_OUT = 48, 12
BARS = {"mIoU of the delivered masks": 0.75, "AP50 on held-out scenes": 0.30}

console = Console(highlight=False)
Json = dict[str, Any]


class DemoError(Exception):
    pass


def main(
    images: Annotated[Path | None, typer.Option(help="folder of your images")] = None,
    points: Annotated[Path | None, typer.Option(help="COCO-style JSON, a point an object")] = None,
    truth: Annotated[Path | None, typer.Option(help="COCO instances, for figures alone")] = None,
    stack: Annotated[str, typer.Option(help="embedded, or redis for Celery")] = "embedded",
    preset: Annotated[str | None, typer.Option(help="demo for scenes, cpu for yours")] = None,
    method: str = "sapnet++",
    override: Annotated[list[str] | None, typer.Option("--set", help="train.epochs=6")] = None,
    weights: Annotated[Path | None, typer.Option(help="backbone state dict")] = None,
    seed: int = 0,
    scenes: Annotated[int, typer.Option(min=1, help="how many to draw and train on")] = SCENES,
    out: Annotated[Path, typer.Option(help="folder for gallery.png and result.json")] = Path(
        "demo-out"
    ),
) -> None:
    """Post images and points, train SAPNet++, show the masks. Exit code 0: it worked."""
    if (images is None) != (points is None):
        raise typer.BadParameter("--images and --points go together")
    if stack not in ("embedded", "redis"):
        raise typer.BadParameter("--stack is embedded or redis")
    out.mkdir(parents=True, exist_ok=True)
    (out / "service.log").unlink(missing_ok=True)
    request = {
        "method": method,
        "preset": preset or ("cpu" if images else "demo"),
        "seed": seed,
        "overrides": {k: _value(v) for k, v in (o.split("=", 1) for o in override or [])},
    }
    for ending in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C does: nothing is left running
        signal.signal(ending, signal.default_int_handler)
    began = time.monotonic()
    try:
        check(stack)
        with TemporaryDirectory(prefix="sapnet-demo-") as name:
            folder = Path(name)
            held_out = None
            if images is None or points is None:
                console.print(f"Drawing {scenes} scenes to train on, {HELD_OUT} to test on …")
                images, points, truth = _drawn(folder / "scenes", scenes, seed, 1)
                held_out = _drawn(folder / "held-out", HELD_OUT, seed, 100_001)
            try:
                with service(folder / "service", stack, weights) as url:
                    console.print(f"Service at [bold]{url}[/] ({stack})")
                    result = run(url, images, points, truth, held_out, request, out)
            finally:
                _keep_log(folder / "service" / "service.log", out)
    except (DemoError, StackError, SapnetError) as error:
        console.print(f"[red]The demo failed:[/] {error}", style=None, markup=True)
        if (out / "service.log").exists():
            console.print(f"The service's log is {out / 'service.log'}")
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        console.print("Stopped.")
        raise typer.Exit(130) from None
    result["seconds in all"] = round(time.monotonic() - began, 1)
    (out / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    full_size = held_out is not None and request["preset"] == "demo" and scenes >= SCENES
    usual = full_size and method == "sapnet++" and not override
    raise typer.Exit(0 if show(result, out, judged=usual) else 1)


def run(
    url: str,
    images: Path,
    points: Path,
    truth: Path | None,
    held_out: tuple[Path, Path, Path] | None,
    request: Json,
    out: Path,
) -> Json:
    """All of it over HTTP; what the table shows."""
    with Client(url, progress=Bars(console)) as client:
        dataset = client.create_dataset(images, points, truth=truth)
        counts = f"{dataset.images} images, {dataset.annotations} points"
        console.print(f"Dataset {dataset.id}: {counts}")
        accepted = client.train(dataset, **request)
        console.print(f"Job {accepted.id}: {request['method']}, preset {request['preset']}")
        job = client.wait(accepted)
        figures = client.metrics(job)
        masks = list(client.pseudo_masks(job))
        if len(masks) != dataset.annotations:
            raise DemoError(f"{len(masks)} masks for {dataset.annotations} points")
        (out / "gallery.png").write_bytes(client.gallery(job))
        result: Json = {"job": document(job), "metrics": document(figures), "masks": len(masks)}
        if held_out is not None and job.model_id is not None:
            result["held_out"] = _test(client, job.model_id, *held_out)
        return result


def show(result: Json, out: Path, *, judged: bool) -> bool:
    """Print the table. Whether the bars are met, where it is the usual demo (`judged`)."""
    metrics, job = result["metrics"], result["job"]
    table = Table(title="What came out", show_header=False, title_justify="left")
    for stage, seconds in metrics["seconds"].items():
        table.add_row(f"{stage}", f"done in {seconds:.1f} s")
    table.add_row("masks delivered", str(result["masks"]))
    pseudo, bags = metrics["pseudo_masks"] or {}, metrics["proposals"] or {}
    figures = {
        "mIoU of the delivered masks": pseudo.get("miou_mask"),
        "  best of each bag (the ceiling)": bags.get("best_of_bag_miou_mask"),
        "  consensus (no learning)": bags.get("consensus_miou_mask"),
        "  most confident proposal": bags.get("sam_top1_miou_mask"),
        "AP50 on the training images": ((metrics["model"] or {}).get("segm") or {}).get("AP50"),
        "AP50 on held-out scenes": result.get("held_out", {}).get("AP50"),
    }
    for name, figure in figures.items():
        if figure is not None:
            table.add_row(name, f"{figure:.3f}")
    table.add_row("proposals by", str(job["proposal_generator"]))
    table.add_row("backbone weights", str(job["weights_origin"]))
    table.add_row("peak memory", f"{metrics['peak_memory_mb'] or 0:.0f} MB")
    table.add_row("time in all", f"{result['seconds in all']:.0f} s")
    console.print(table)
    for warning in job["warnings"]:
        console.print(f"warning: {warning}")
    console.print(f"Images: {out / 'gallery.png'}   Figures: {out / 'result.json'}")
    missed = [n for n, bar in BARS.items() if judged and (figures[n] or 0.0) < bar]
    for name in missed:
        console.print(f"[red]{name} is below {BARS[name]}[/]")
    return not missed


def _test(client: Client, model: str, images: Path, _: Path, truth: Path) -> Json:
    """AP on images that the training never saw, by POST /predict."""
    instances = json.loads(truth.read_text())
    found = [
        {**document(one), "image_id": image["id"]}
        for image in instances["images"]
        for one in client.predict(model, images / image["file_name"], score=0.05)
    ]
    return average_precision(found, instances, kind="segm")


def _drawn(folder: Path, count: int, seed: int, start_id: int) -> tuple[Path, Path, Path]:
    scenes = make_scenes(folder, count, seed=seed, start_id=start_id)
    return scenes.images, scenes.points, scenes.truth


def _keep_log(log: Path, out: Path) -> None:
    if log.exists():
        (out / "service.log").write_bytes(log.read_bytes())


def _value(text: str) -> Any:
    """A setting from the command line: JSON where it is JSON, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


if __name__ == "__main__":
    typer.run(main)
