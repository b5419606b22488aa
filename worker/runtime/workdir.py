"""The folder of a job on this machine: what its process reads and writes."""

import json
import shutil
from pathlib import Path
from typing import Any

from app.settings import Settings
from sapnet.utils.files import write_text


def workdir_of(settings: Settings, job_id: str) -> Path:
    """Return the job's folder, the same for each of its attempts, so that a later one goes on."""
    return settings.folder("jobs", job_id)


def discard(settings: Settings, job_id: str) -> None:
    """Remove the folder of a job that has ended: its results are in storage and in rows."""
    shutil.rmtree(settings.data_dir.resolve() / "jobs" / job_id, ignore_errors=True)


def write_job_file(workdir: Path, **document: Any) -> Path:
    """Write JOB.json, which tells the job's process what to do, whole or not at all; its path."""
    path = workdir / "JOB.json"
    write_json(path, {**document, "workdir": str(workdir)})
    return path


def write_json(path: Path, document: Any) -> None:
    """Write a document as JSON, whole or not at all."""
    write_text(path, json.dumps(document))
