"""64 clients on the read endpoints beside a running training job, next to an empty route.

    python benchmarks/load.py [--seconds 60] [--clients 64] [--markdown docs/reliability.md]

Starts the service as a user does (API and worker, SQLite, a folder), trains a job on drawn scenes,
and asks for everything that can be read; in turns the same clients ask an empty FastAPI route in a
process of its own, so that both meet the same machine and the same training. Clients ask again as
soon as they have their answer: the figures are those of a service asked as fast as it answers.
"""

import asyncio
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx2
import typer
from fastapi.testclient import TestClient
from load_client import Taken, hammer

from app.db import migrate as schema
from app.db.session import Database
from app.main import create_app
from app.settings import Settings
from app.storage.store import make_storage
from sapnet.data.synthetic import make_scenes
from worker.jobs.execute import execute
from worker.runtime.types import WorkerContext

ROOT = Path(__file__).resolve().parents[1]
FAKE = (sys.executable, str(ROOT / "tests" / "jobs" / "fake_trainer.py"))
EMPTY = """
from fastapi import FastAPI
app = FastAPI()
@app.get("/")
def empty(): return {}
"""
BEGIN, END = "<!-- load: begin -->", "<!-- load: end -->"
TURNS = 6

Paths = list[tuple[str, str]]


def main(
    seconds: Annotated[float, typer.Option(help="on the service, in all")] = 60,
    clients: Annotated[int, typer.Option(help="at once")] = 64,
    images: Annotated[int, typer.Option(help="of the dataset")] = 24,
    fake: Annotated[bool, typer.Option(help="a trainer that only waits, not a training")] = False,
    json_out: Annotated[Path | None, typer.Option("--json", help="keep the figures")] = None,
    markdown: Annotated[Path | None, typer.Option(help="write its section in this file")] = None,
) -> None:
    taken, baseline = Taken(), Taken()
    with tempfile.TemporaryDirectory(prefix="sapnet-load-") as name:
        paths, running = prepare(Path(name), images)
        with service(Path(name), fake) as port, empty(Path(name)) as other:
            url = f"http://127.0.0.1:{port}/jobs/{running}"
            wait_until(lambda: httpx2.get(url).json()["step"], "the training does not begin", 600)
            for turn in range(TURNS):
                turns = ((port, paths, taken), (other, [("/", "/")], baseline))
                for at, asked, into in turns:
                    asyncio.run(hammer(at, asked, clients, seconds / TURNS, turn, into))
            job = httpx2.get(url).json()
    found = {
        "clients": clients,
        "seconds": seconds,
        "trainer": "one that waits" if fake else f"{job['method']}, preset {job['preset']}",
        "job": {"before": "running", "after": job["state"], "step": job["step"]},
        "machine": f"{platform.machine()}, {os.cpu_count()} logical cores",
        "python": platform.python_version(),
        "commit": commit(),
        "held_up_ms": round(max(taken.held_up, baseline.held_up) * 1000),
        "service": figures(taken.of_all(), taken.elapsed),
        "empty": figures(baseline.of_all(), baseline.elapsed),
        "endpoints": {n: figures(s, taken.elapsed) for n, s in sorted(taken.seconds.items())},
        "errors": len(taken.errors) + len(baseline.errors),
        "examples": (taken.errors + baseline.errors)[:10],
    }
    typer.echo(section(found))
    if json_out:
        json_out.write_text(json.dumps(found, indent=1) + "\n")
    if markdown:
        write_section(markdown, section(found))
    if found["errors"] or job["state"] != "running":
        raise typer.Exit(1)


def prepare(folder: Path, images: int) -> tuple[Paths, str]:
    """Into a data folder: a dataset, a job that has ended (by the fake trainer, at once) and one
    that waits for the service's worker. What can be read then, and the id of the one that waits."""
    drawn = make_scenes(folder / "scenes", images)
    settings = Settings(data_dir=folder / "data", trainer_command=FAKE, log_level="error")
    database = Database(settings.database)
    schema.upgrade(database)
    with TestClient(create_app(settings)) as client:
        files = [("annotations", drawn.points), ("truth", drawn.truth)]
        files += [("images", path) for path in sorted(drawn.images.iterdir())]
        sent = [(name, (path.name, path.read_bytes())) for name, path in files]
        dataset = client.post("/datasets", files=sent).raise_for_status().json()["id"]
        train = {"dataset_id": dataset, "overrides": {"train.epochs": 1000}}
        ended, waits = (client.post("/jobs/train", json=train).json()["id"] for _ in range(2))
        execute(ended, WorkerContext(settings, database, make_storage(settings)))
        model = client.get(f"/jobs/{ended}").json()["model_id"]
    database.dispose()
    names = {"{dataset}": dataset, "{job}": ended, "{running}": waits, "{model}": model}
    return [(template, _filled(template, names)) for template in READS], waits


READS = (
    "/",
    "/healthz",
    "/datasets",
    "/datasets/{dataset}",
    "/datasets/{dataset}/images?limit=20",
    "/datasets/{dataset}/images/1",
    "/jobs",
    "/jobs/{running}",
    "/jobs/{job}",
    "/jobs/{job}/metrics",
    "/jobs/{job}/report",
    "/jobs/{job}/logs",
    "/jobs/{job}/pseudo-masks?limit=100",
    "/models",
    "/models/{model}",
    "/metrics",
)


def _filled(template: str, names: dict[str, str]) -> str:
    for name, value in names.items():
        template = template.replace(name, value)
    return template


@contextmanager
def service(folder: Path, fake: bool) -> Iterator[int]:
    """API and worker as `sapnet-service serve` starts them; the port."""
    settings = {"SAPNET_DATA_DIR": str(folder / "data"), "SAPNET_LOG_LEVEL": "warning"}
    if fake:
        slow = [*FAKE, "--steps", "1000000", "--sleep", "0.2"]
        settings["SAPNET_TRAINER_COMMAND"] = json.dumps(slow)
    command = [sys.executable, "-m", "app.cli", "serve", "--port"]
    with process(command, folder / "service.log", settings) as port:
        yield port


@contextmanager
def empty(folder: Path) -> Iterator[int]:
    """One route that does nothing, behind the same server with the same options."""
    (folder / "empty.py").write_text(EMPTY)
    options = ["--no-access-log", "--log-level", "warning", "--app-dir", str(folder)]
    command = [sys.executable, "-m", "uvicorn", "empty:app", *options, "--port"]
    with process(command, folder / "empty.log", {}) as port:
        yield port


@contextmanager
def process(command: list[str], log: Path, settings: dict[str, str]) -> Iterator[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    with log.open("wb") as output:
        started = subprocess.Popen(
            [*command, str(port)],
            env={**os.environ, **settings, "PYTHONPATH": path},
            stdout=output,
            stderr=output,
        )

    def answers() -> bool:
        if started.poll() is not None:
            raise RuntimeError(log.read_text())
        try:
            return httpx2.get(f"http://127.0.0.1:{port}/openapi.json").is_success
        except httpx2.TransportError:
            return False

    try:
        wait_until(answers, "the server does not answer", 60)
        yield port
    finally:
        started.terminate()
        started.wait(60)


def wait_until(condition: Callable[[], object], complaint: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(complaint)
        time.sleep(0.1)


def figures(seconds: list[float], over: float) -> dict[str, float]:
    """Requests, how many a second, and milliseconds: median, 99th percentile, worst."""
    cuts = (
        statistics.quantiles(seconds, n=100, method="inclusive") if len(seconds) > 1 else [0.0] * 99
    )
    return {
        "requests": len(seconds),
        "per_second": round(len(seconds) / over, 1),
        "p50_ms": round(cuts[49] * 1000, 2),
        "p99_ms": round(cuts[98] * 1000, 2),
        "max_ms": round(max(seconds, default=0.0) * 1000, 2),
    }


def section(found: dict[str, Any]) -> str:
    def row(name: str, of: dict[str, float]) -> str:
        numbers = f"{of['requests']:,} | {of['per_second']:,} | {of['p50_ms']} | {of['p99_ms']}"
        return f"| {name} | {numbers} | {of['max_ms']} |"

    job = found["job"]
    lines = [
        "## Load",
        "",
        f"{found['clients']} clients on loopback for {found['seconds']:g} s beside a running job "
        f"({found['trainer']}; {job['before']} before, {job['after']} after, at step "
        f"{job['step']}), in turns with an empty FastAPI route in the same run. Each asks again as "
        f"soon as it has its answer. Errors: **{found['errors']}**. The client itself was held up "
        f"for {found['held_up_ms']} ms at most (the machine did other things). "
        f"{found['machine']}, Python "
        f"{found['python']}, commit {found['commit']}; `python benchmarks/load.py`.",
        "",
        "| | requests | a second | p50, ms | p99, ms | worst, ms |",
        "|---|---|---|---|---|---|",
        row("an empty FastAPI route", found["empty"]),
        row("**all read endpoints**", found["service"]),
        *(row(f"`{name}`", of) for name, of in found["endpoints"].items()),
    ]
    return "\n".join(lines)


def write_section(path: Path, text: str) -> None:
    """Put the section between its marks, which are added at the end of a file without them."""
    old = path.read_text(encoding="utf-8") if path.exists() else "# Reliability\n"
    if BEGIN not in old:
        old = f"{old.rstrip()}\n\n{BEGIN}\n{END}\n"
    before, rest = old.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True
    )
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    typer.run(main)
