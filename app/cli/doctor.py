"""What the service needs, checked one by one: `sapnet-service doctor`.

The machine's own parts are in `app.cli.doctor_machine`.
"""

import secrets
from collections.abc import Callable, Iterator
from datetime import datetime

from sqlalchemy import func, make_url, select
from sqlalchemy.exc import SQLAlchemyError

from app.auth.own_site import is_local
from app.cli import doctor_machine as machine
from app.cli import keys as commands
from app.cli.doctor_machine import Check
from app.db import migrate as schema
from app.db.columns import Utc, now
from app.db.models import Job, JobState
from app.db.session import Database
from app.jobs.reaper import expired
from app.settings import Settings
from app.storage import garbage_collection
from app.storage.store import BlobState, Storage, make_storage

OLDEST_REDIS = (6, 2)
PATIENCE_SECONDS = 600
"""So long may a job wait before the doctor asks whether there is a worker at all."""


def checks(settings: Settings, *, blobs: bool = False) -> Iterator[Check]:
    """Yield every check, in an order in which the first failure may explain the later ones.

    Args:
        settings: of the service that is checked.
        blobs: whether to read all stored files, too (see `_blobs`).
    """
    yield from _database(settings)
    yield _lease_settings(settings)
    yield _tried(
        "storage",
        lambda: _round_trip(make_storage(settings)),
        f"{settings.storage} (written, read, deleted)",
        "set SAPNET_STORAGE_URL to a folder that can be written to, or to s3://bucket/prefix with "
        "AWS_ENDPOINT, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; the bucket must be there",
    )
    if blobs:
        yield from _blobs(settings)
    yield from machine.disks(settings)
    yield from _broker(settings)
    yield from machine.ports(settings)
    yield from machine.torch_and_gpus()
    yield machine.backbone(settings)
    yield from machine.sam(settings)
    yield from machine.tracing(settings)


def _database(settings: Settings) -> Iterator[Check]:
    shown = make_url(settings.database).render_as_string(hide_password=True)
    database = Database(settings.database)
    try:
        answer = _tried("database", database.ping, shown, "check SAPNET_DATABASE_URL")
        yield answer
        if not answer.ok:
            return
        revision, head = schema.current(database), schema.head()
        yield _schema(revision, head, schema.unknown_revision(database))
        yield from _clock(database, settings)
        if revision == head:
            yield _jobs(database, settings)
            yield _keys(database, settings)
    finally:
        database.dispose()


def _schema(revision: str | None, head: str, unknown: str | None) -> Check:
    if revision is None:
        return Check("schema", None, "no tables yet", "sapnet-service serve makes them")
    remedy = "sapnet-service migrate (serve does it by itself)"
    if unknown:
        remedy = "a newer release wrote this database: install that one, or name another database"
    return Check("schema", revision == head, f"{revision}, newest {head}", remedy)


def _blobs(settings: Settings) -> Iterator[Check]:
    """Read every stored file that the database names, and compare it with its SHA-256.

    A damaged one is moved aside, so that the same file, sent again, is stored anew.
    """
    database, storage = Database(settings.database), make_storage(settings)
    try:
        if schema.current(database) is None:
            yield Check("blobs", True, "none yet")
            return
        with database.read() as session:
            wanted = garbage_collection.wanted(session)
        issues = {}
        for sha in sorted(wanted):
            state = storage.state(sha)
            if state is BlobState.DAMAGED:
                storage.set_aside(sha)
            if state is not BlobState.WHOLE:
                issues[sha] = state
        if not issues:
            yield Check("blobs", True, f"{len(wanted)}, all whole")
        for sha, state in issues.items():
            users = ", ".join(sorted(wanted[sha]))
            remedy = "send the same file again (a data set's images and documents), or restore it"
            yield Check(f"blob {sha}", False, f"{state}, named by {users}", remedy)
    except SQLAlchemyError as error:
        yield Check("blobs", False, str(error).splitlines()[0], "see the database above")
    finally:
        database.dispose()


def _clock(database: Database, settings: Settings) -> Iterator[Check]:
    """Leases are written by one clock and read by another; a file of this machine has the same."""
    if database.engine.dialect.name == "sqlite":
        return
    with database.read() as session:
        began = now()
        database_time: datetime = session.execute(select(func.now().cast(Utc))).scalar_one()
        local_time = began + (now() - began) / 2
    skew = abs((database_time - local_time).total_seconds())
    remedy = "set the clocks by NTP: a lease would run out early on one machine and late on another"
    state = f"{skew:.1f} s from the database's, leases of {settings.lease_seconds:g} s"
    yield Check("clock", skew < settings.lease_seconds / 4, state, remedy)


def _lease_settings(settings: Settings) -> Check:
    lease, beat, poll = settings.lease_seconds, settings.heartbeat_seconds, settings.poll_seconds
    remedy = (
        "SAPNET_LEASE_SECONDS should be three times SAPNET_HEARTBEAT_SECONDS and "
        "SAPNET_POLL_SECONDS together, so that one slow heartbeat loses no job"
    )
    state = f"of {lease:g} s, renewed every {beat:g} s, looked at every {poll:g} s"
    return Check("leases", lease >= 3 * (beat + poll), state, remedy)


def _jobs(database: Database, settings: Settings) -> Check:
    with database.read() as session:
        silent = session.scalar(select(func.count()).where(expired())) or 0
        waiting = select(func.count(), func.min(Job.created_at))
        count, oldest = session.execute(waiting.where(Job.state == JobState.QUEUED)).one()
        running = select(func.count()).where(Job.state == JobState.RUNNING)
        busy = session.scalar(running) or 0
    age = (now() - oldest).total_seconds() if oldest else 0.0
    state = f"{busy} running, {count} waiting"
    if silent:
        remedy = "their workers are gone, and nobody takes them up: start sapnet-service worker"
        return Check("jobs", False, f"{state}, {silent} of workers that fell silent", remedy)
    if age > PATIENCE_SECONDS and not busy:
        remedy = "is there a worker? serve starts one; else sapnet-service worker"
        return Check("jobs", False, f"{state}, for {age / 60:.0f} min, none is running", remedy)
    return Check("jobs", True, state)


def _keys(database: Database, settings: Settings) -> Check:
    if not commands.no_key(database):
        return Check("keys", True, "there are some")
    if settings.allow_without_keys:
        return Check("keys", None, "none, and strangers are answered", "see to it that none come")
    if is_local(settings.host) or settings.host == "localhost":
        return Check("keys", None, "none: this machine alone is answered", commands.MAKE)
    return Check("keys", False, f"none, and SAPNET_HOST is {settings.host}", commands.MAKE)


def _round_trip(storage: Storage) -> None:
    """Write, read and delete a blob that nobody else has. Raises what any of it raises."""
    storage.ping()
    data = secrets.token_bytes(64)
    sha = storage.put_bytes(data)
    try:
        if storage.read(sha) != data:
            raise OSError("what was read is not what was written")
    finally:
        storage.delete(sha)
    if storage.exists(sha):
        raise OSError("what was deleted is still there")


def _broker(settings: Settings) -> Iterator[Check]:
    if settings.broker_url is None:
        yield Check("broker", True, "none: workers find the jobs in the database")
        return
    from redis import Redis

    shown = make_url(settings.broker_url).render_as_string(hide_password=True)
    client = Redis.from_url(settings.broker_url, socket_connect_timeout=3, socket_timeout=5)
    with client:
        remedy = "start Redis, or unset SAPNET_BROKER_URL"
        answer = _tried("broker", client.ping, shown, remedy)
        yield answer
        if answer.ok:
            yield _redis_is_fit(dict(client.info()))


def _redis_is_fit(info: dict[str, object]) -> Check:
    version = str(info.get("redis_version", "0.0"))
    policy = str(info.get("maxmemory_policy", "noeviction"))
    state = f"Redis {version}, maxmemory-policy {policy}"
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_REDIS:
        return Check("queue", False, state, "Celery needs Redis 6.2 or newer")
    if policy != "noeviction":
        remedy = "set maxmemory-policy noeviction: Redis throws messages out to make room"
        return Check("queue", False, state, remedy)
    if not info.get("aof_enabled"):
        remedy = "appendonly yes keeps messages over a restart; without it workers find the rows"
        return Check("queue", None, f"{state}, not appendonly", remedy)
    return Check("queue", True, f"{state}, appendonly")


def _tried(name: str, action: Callable[[], object], state: str, remedy: str) -> Check:
    try:
        action()
    except Exception as error:  # whatever it raises is what the user needs to read
        lines = str(error).split("(Background on")[0].strip().splitlines() or [""]
        return Check(name, False, f"{state}: {type(error).__name__}: {lines[0]}", remedy)
    return Check(name, True, state)
