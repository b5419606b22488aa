"""What the service needs, checked one by one: `sapnet-service doctor`."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import make_url

from app import schema
from app.db import Database
from app.settings import Settings
from app.storage import make_storage

LEAST_DISK_GB = 5
TORCH = """
import json, torch
gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
print(json.dumps({"version": torch.__version__, "gpus": gpus, "threads": torch.get_num_threads()}))
"""


@dataclass(frozen=True, slots=True)
class Check:
    """ok: None is worth knowing and no fault. mend: what to do about it."""

    name: str
    ok: bool | None
    found: str
    mend: str = ""


def checks(settings: Settings) -> Iterator[Check]:
    yield from _database(settings)
    yield _tried(
        "storage",
        lambda: make_storage(settings).ping(),
        settings.storage,
        "set SAPNET_STORAGE_URL to a folder that can be written to, or to s3://bucket/prefix with "
        "AWS_ENDPOINT, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    )
    yield _disk(settings)
    yield _broker(settings)
    yield _torch()
    yield _backbone(settings)
    yield _sam()


def _database(settings: Settings) -> Iterator[Check]:
    shown = make_url(settings.database).render_as_string(hide_password=True)
    database = Database(settings.database)
    try:
        answer = _tried("database", database.ping, shown, "check SAPNET_DATABASE_URL")
        yield answer
        if answer.ok:
            revision, head = schema.current(database), schema.head()
            mend = "sapnet-service migrate (serve does it by itself)"
            yield Check("schema", revision == head, f"{revision}, newest {head}", mend)
    finally:
        database.dispose()


def _disk(settings: Settings) -> Check:
    free = shutil.disk_usage(settings.folder()).free / 1e9
    mend = f"{LEAST_DISK_GB} GB or more are wise; SAPNET_DATA_DIR may name another disk"
    return Check("disk", free >= LEAST_DISK_GB, f"{free:.1f} GB free", mend)


def _broker(settings: Settings) -> Check:
    if settings.broker_url is None:
        return Check("broker", True, "none: workers find the jobs in the database")
    from redis import Redis

    client = Redis.from_url(settings.broker_url, socket_connect_timeout=3)
    shown = make_url(settings.broker_url).render_as_string(hide_password=True)
    mend = "start Redis, or unset SAPNET_BROKER_URL"
    return _tried("broker", client.ping, shown, mend)


def _torch() -> Check:
    """In a process of its own: this one stays light."""
    answer = subprocess.run([sys.executable, "-c", TORCH], capture_output=True, text=True)
    if answer.returncode:
        last = answer.stderr.strip().splitlines()[-1:]
        return Check("torch", False, "".join(last), "pip install --force-reinstall torch")
    found = json.loads(answer.stdout)
    gpus = ", ".join(found["gpus"]) or "no GPU"
    text = f"{found['version']}, {gpus}, {found['threads']} threads"
    mend = "the presets for CPUs (cpu, demo) train in minutes to hours"
    return Check("torch", True if found["gpus"] else None, text, mend)


def _backbone(settings: Settings) -> Check:
    path = settings.backbone_weights
    if path is None:
        mend = "SAPNET_BACKBONE_WEIGHTS may name a torchvision state dict of this machine"
        return Check("backbone weights", None, "torchvision's download, else random", mend)
    mend = "SAPNET_BACKBONE_WEIGHTS names no file"
    return Check("backbone weights", path.is_file(), str(path), mend)


def _sam() -> Check:
    path = os.environ.get("SAPNET_SAM_CHECKPOINT")
    if not path:
        mend = "set SAPNET_SAM_CHECKPOINT to sam_vit_b_01ec64.pth or its like"
        return Check("SAM checkpoint", None, "none set: fetched when a job asks for SAM", mend)
    mend = "SAPNET_SAM_CHECKPOINT names no file"
    return Check("SAM checkpoint", Path(path).is_file(), path, mend)


def _tried(name: str, action: Callable[[], object], found: str, mend: str) -> Check:
    try:
        action()
    except Exception as error:  # whatever it raises is what the user needs to read
        why = str(error).split("(Background on")[0].strip()  # SQLAlchemy's link
        return Check(name, False, f"{found}: {type(error).__name__}: {why}", mend)
    return Check(name, True, found)
