"""The commands `sapnet-service cvat`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from sapnet.config import AUTO
from sapnet_client import Client, NotFound, SapnetError

if TYPE_CHECKING:
    from cvat_sdk import Client as Cvat

    from app.cli.cvat.folder import TaskState

Host = Annotated[str | None, typer.Option(help="CVAT's address [CVAT_HOST]", envvar="CVAT_HOST")]
Token = Annotated[
    str | None,
    typer.Option(
        help="a personal access token [CVAT_ACCESS_TOKEN]",
        envvar="CVAT_ACCESS_TOKEN",
        show_envvar=False,
    ),
]
User = Annotated[
    str | None,
    typer.Option(
        help="in place of the token, with the password in CVAT_PASSWORD [CVAT_USER]",
        envvar="CVAT_USER",
        show_envvar=False,
    ),
]
Org = Annotated[
    str | None,
    typer.Option(help="slug of an organization [CVAT_ORG]", envvar="CVAT_ORG", show_envvar=False),
]
Url = Annotated[str | None, typer.Option(help="the service's address [SAPNET_URL]")]
Key = Annotated[str | None, typer.Option(help="an API key [SAPNET_KEY]")]
Task = Annotated[int, typer.Argument(metavar="TASK", help="its number in CVAT")]
Folder = Annotated[
    Path | None, typer.Option(help="with images, points and state", show_default="cvat-TASK")
]
MISSING = "the SDK of CVAT is not installed: pip install 'sapnet-service[cvat]'"
DEFAULT_HOST = "https://app.cvat.ai"

app = typer.Typer(no_args_is_help=True, help="Points of a task of CVAT, and masks back into it.")
console = Console(stderr=True, highlight=False, soft_wrap=True)


@app.command()
def pull(
    task: Task,
    folder: Folder = None,
    host: Host = None,
    token: Token = None,
    user: User = None,
    org: Org = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """A data set of a task's points and rectangles. What is there already is not fetched again."""
    with _cvat(host, token, user, org) as cvat, _service(url, key) as client:
        from app.cli.cvat import pull as pulling

        place = _place(folder, task)
        address = cvat.api_map.host
        with _bar("images") as report:
            state = pulling.pull(cvat, address, task, place, report)
        if state.dataset is None or not _is_there(client, state.dataset):
            points = place / pulling.POINTS
            dataset = client.create_dataset(place / pulling.IMAGES, points, name=f"CVAT {task}")
            state.dataset, state.job = dataset.id, None
            state.write(place)
        made = client.dataset(state.dataset)
        counts = f"{made.images} images, {made.annotations} objects"
        console.print(f"Data set {made.id}: {counts}. Next: sapnet-service cvat train {task}")


@app.command()
def train(
    task: Task,
    folder: Folder = None,
    preset: Annotated[str, typer.Option(help="as of `sapnet-service train`")] = AUTO,
    method: Annotated[str, typer.Option(help="the same")] = "sapnet++",
    again: Annotated[bool, typer.Option("--again", help="although it is trained")] = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Train on what was pulled, and wait for it; started again, it waits for the same job."""
    with _service(url, key) as client:
        place, state = _read(folder, task)
        if state.dataset is None:
            raise _Refused(f"there is no data set yet: sapnet-service cvat pull {task}")
        earlier = state.job if state.job and not again else None
        job = client.job(earlier) if earlier and _is_there(client, earlier, job=True) else None
        if job is None or (job.over and not job.succeeded):
            job = client.train(state.dataset, preset=preset, method=method)
            state.job = job.id
            state.write(place)
        console.print(f"Job {job.id}")
        done = client.wait(job.id)
        console.print(f"Model {done.model_id}. Next: sapnet-service cvat push {task}")


@app.command()
def push(
    task: Task,
    folder: Folder = None,
    job: Annotated[str | None, typer.Option(help="whose masks; default: the last training")] = None,
    min_quality: Annotated[
        float | None, typer.Option(min=0, max=1, help="masks below it stay behind")
    ] = None,
    host: Host = None,
    token: Token = None,
    user: User = None,
    org: Org = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Masks into the task. Done again it changes nothing; broken off, it goes on."""
    with _service(url, key) as client:
        place, state = _read(folder, task)
        job_id = job or state.job
        if job_id is None:
            raise _Refused(f"nothing is trained yet: sapnet-service cvat train {task}")
        with _cvat(host or state.host, token, user, org) as cvat:
            from app.cli.cvat import push as pushing

            with _bar("masks") as report:
                done = pushing.push(
                    cvat, client, state, place, job_id, report, min_quality=min_quality
                )
    console.print(f"{done.created} masks sent, {done.kept} were there, {done.removed} removed")


class _Refused(Exception):
    """What ends a command, in words."""


def _place(folder: Path | None, task: int) -> Path:
    place = folder or Path(f"cvat-{task}")
    place.mkdir(parents=True, exist_ok=True)
    return place


def _read(folder: Path | None, task: int) -> "tuple[Path, TaskState]":
    from app.cli.cvat.folder import TaskState

    place = folder or Path(f"cvat-{task}")
    try:
        return place, TaskState.read(place)
    except FileNotFoundError as error:
        raise _Refused(str(error)) from None


def _is_there(client: Client, id_: str, *, job: bool = False) -> bool:
    try:
        client.job(id_) if job else client.dataset(id_)
    except NotFound:
        return False
    return True


@contextmanager
def _bar(what: str) -> Iterator[Any]:
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def _service(url: str | None, key: str | None) -> Iterator[Client]:
    """The service; what goes wrong, with it or with a task, ends the command in one line."""
    try:
        with Client(url, key=key) as client:
            yield client
    except (SapnetError, _Refused, ValueError, OSError) as error:
        console.print(str(error), style="red", markup=False)
        raise typer.Exit(1) from None


@contextmanager
def _cvat(
    host: str | None, token: str | None, user: str | None, org: str | None
) -> "Iterator[Cvat]":
    """CVAT, logged in."""
    import os

    try:
        from cvat_sdk import make_client
        from cvat_sdk.exceptions import OpenApiException
        from urllib3.exceptions import HTTPError
    except ImportError:
        console.print(MISSING, style="red", markup=False)
        raise typer.Exit(1) from None
    password = os.environ.get("CVAT_PASSWORD")
    if not token and not (user and password):
        hint = "set CVAT_ACCESS_TOKEN, or CVAT_USER and CVAT_PASSWORD"
        console.print(f"CVAT asks who you are: {hint}", style="red", markup=False)
        raise typer.Exit(1)
    try:
        credentials = None if token else (user or "", password or "")
        with make_client(
            host or DEFAULT_HOST, credentials=credentials, access_token=token or None
        ) as cvat:
            cvat.organization_slug = org
            yield cvat
    except (OpenApiException, HTTPError) as error:
        reason = getattr(error, "reason", None) or str(error)
        code = getattr(error, "status", None)
        status = f"{code} " if code else ""
        console.print(f"CVAT: {status}{reason}", style="red", markup=False)
        raise typer.Exit(1) from None
