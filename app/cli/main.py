"""`sapnet-service`: the API, the workers, the database, and what is wrong with them.

The commands import what they need when they run: those of the client work without the extra
`service`, and quickly.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from socket import socket
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import client as cli_client
from app.cli import hub, weights
from app.cli import keys as commands
from app.cli.cvat.command import app as cvat
from sapnet.utils.command_line import Version, run

if TYPE_CHECKING:
    from app.db.session import Database
    from app.settings import Settings

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)

Host = Annotated[str | None, typer.Option(help="address to listen on [SAPNET_HOST]")]
Port = Annotated[int | None, typer.Option(help="0 takes a free one [SAPNET_PORT]")]
WithWorker = Annotated[bool, typer.Option("--worker/--no-worker", help="a worker beside the API")]


@app.callback()
def options(version: Version = False) -> None:
    """The API, the workers, the database, and what is wrong with them."""


@app.command()
def serve(host: Host = None, port: Port = None, worker: WithWorker = True) -> None:
    """Bring the database up to date, then run the API and a worker until Ctrl-C or SIGTERM.

    All settings are environment variables; with none, data goes to ./var.
    """
    from app.auth.own_site import is_local
    from app.cli import preflight

    settings = _settings()
    with preflight.only_server(settings):
        listener = preflight.listen(host or settings.host, settings.port if port is None else port)
        try:
            with _database(settings) as database:
                closed = settings.allow_without_keys or settings.oidc_issuer is not None
                local = not closed and commands.no_key(database)
            if local and not is_local(listener.getsockname()[0]):
                preflight.refuse(commands.NOT_STARTED)
            _serve(settings, listener, local=local, worker=worker)
        finally:
            listener.close()


def _serve(settings: "Settings", listener: socket, *, local: bool, worker: bool) -> None:
    """Run the API on a listening socket, and workers beside it.

    Args:
        local: whether this machine alone is answered.
    """
    import uvicorn

    from app.http.server import server_config
    from app.jobs.kinds import IO, PREDICT, QUEUES, SHARD, TRAIN
    from app.main import create_app
    from app.observability.logging import log_uncaught
    from worker.runtime.supervisor import Supervisor

    service = create_app(settings)
    log_uncaught()
    config = server_config(service, settings)
    # With a broker a worker does one job at a time: an import must not wait for a training.
    groups = [QUEUES] if settings.embedded else [(TRAIN, SHARD), (IO, PREDICT)]
    supervisors = [Supervisor(g, settings.stop_grace_seconds + 30) for g in groups if worker]
    # uvicorn raises the signal again once it is down; it must end in the `finally` below.
    signal.signal(signal.SIGTERM, _exit)
    try:
        for supervisor in supervisors:
            supervisor.start()
        bound, number = listener.getsockname()[:2]
        typer.echo(f"sapnet-service is at http://{bound}:{number}  (API: /docs, Ctrl-C stops it)")
        if local:
            typer.echo(commands.LOCAL)
        server = uvicorn.Server(config)
        service.state.feed.closing = lambda: server.should_exit  # else it waits for readers
        server.run(sockets=[listener])
    except KeyboardInterrupt:
        pass
    finally:
        for supervisor in supervisors:
            supervisor.request_stop()
        for supervisor in supervisors:
            supervisor.stop()


@app.command()
def worker(
    queues: Annotated[
        str | None,
        typer.Option(help="those to work on, of train, io, predict and shard", show_default="all"),
    ] = None,
) -> None:
    """Run one worker: embedded where no broker is set, else Celery's.

    Celery's does one job at a time, so give the queues train, io and predict workers of their own.
    Shards are parts of trainings: who takes trainings may take them, too.
    """
    from app.jobs.kinds import QUEUES
    from worker.main import main

    given = QUEUES if queues is None else queues.split(",")
    chosen = [queue.strip() for queue in given if queue.strip()]
    if unknown := [queue for queue in chosen if queue not in QUEUES] or not chosen:
        raise typer.BadParameter(f"{unknown or queues!r}: there are {', '.join(QUEUES)}")
    _settings()  # what is wrong with them is said here
    main(chosen)


@app.command()
def migrate(
    revision: Annotated[str, typer.Argument(help="head, base, or a revision's name")] = "head",
    down: Annotated[bool, typer.Option("--down", help="go back to it: data may be lost")] = False,
) -> None:
    """Bring the database's schema up to a revision, or back down to one."""
    from app.cli import preflight

    preflight.bring_up_to_date(_settings(), revision, down=down)


@app.command()
def doctor(
    blobs: Annotated[
        bool, typer.Option("--blobs", help="read every stored file, move damaged ones aside")
    ] = False,
) -> None:
    """Check everything the service needs, and say how to fix what is missing."""
    from app.cli.doctor import checks

    failed = False
    for check in checks(_settings(), blobs=blobs):
        mark = {True: "ok  ", False: "FAIL", None: "note"}[check.ok]
        typer.echo(f"{mark}  {check.name}: {check.state}")
        if check.ok is not True and check.remedy:
            typer.echo(f"      → {check.remedy}")
        failed = failed or check.ok is False
    raise typer.Exit(1 if failed else 0)


def _settings() -> "Settings":
    """Read the settings from the environment.

    What is wrong there is printed in one line each, without the values: some are secrets.
    """
    from pydantic import ValidationError

    from app.cli import preflight
    from app.settings import ENV_FILE, Settings, named_in_env_file

    try:
        settings = Settings()
    except ValidationError as error:
        for issue in error.errors():
            name = "_".join(str(step) for step in issue["loc"][:1]).upper()
            typer.echo(f"SAPNET_{name}: {issue['msg']}", err=True)
        raise typer.Exit(2) from None
    if names := named_in_env_file():
        typer.echo(f"Settings from {ENV_FILE.resolve()}: {', '.join(names)}", err=True)
    preflight.make_data_folder(settings)
    return settings


@contextmanager
def _database(settings: "Settings") -> Iterator["Database"]:
    """With the newest schema."""
    from app.cli import preflight
    from app.db.session import Database

    preflight.bring_up_to_date(settings)
    database = Database(settings.database)
    try:
        yield database
    finally:
        database.dispose()


def _exit(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


app.add_typer(commands.keys_group(lambda: _database(_settings())), name="keys")
app.add_typer(weights.app, name="weights")
app.add_typer(cvat, name="cvat", rich_help_panel=cli_client.PANEL)
cli_client.add_to(app)
app.add_typer(hub.app, name="hub", rich_help_panel=cli_client.PANEL)


def main() -> None:
    """Run `sapnet-service`."""
    run(app)


if __name__ == "__main__":
    main()
