"""An app of its own for each test: a migrated SQLite database and a folder of blobs."""

import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

from app.db import migrate as schema
from app.db.models import Dataset, DatasetStatus, Job
from app.db.session import Database
from app.main import create_app
from app.settings import Settings

MakeSettings = Callable[..., Settings]


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the newest schema, to be copied."""
    path = tmp_path_factory.mktemp("schema") / "sapnet.db"
    database = Database(f"sqlite:///{path}")
    schema.upgrade(database)
    database.dispose()
    return path


@pytest.fixture
def make_settings(
    tmp_path: Path, migrated: Path, stack: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> MakeSettings:
    """Settings of a fresh service in tmp_path/var, or on the servers of the stack; its database is
    migrated."""
    for name in list(os.environ):
        if name.startswith("SAPNET_"):
            monkeypatch.delenv(name)

    def make(**values: Any) -> Settings:
        data_dir = tmp_path / "var"
        data_dir.mkdir(exist_ok=True)
        if not (data_dir / "sapnet.db").exists():
            shutil.copy(migrated, data_dir / "sapnet.db")
        return Settings(_env_file=None, data_dir=data_dir, **{**stack, **values})  # type: ignore[call-arg,arg-type]

    return make


@pytest.fixture
def add_job() -> Callable[..., str]:
    """Writes a job's row, and a data set's for it, past the API."""

    def add(database: Database, **values: Any) -> str:
        with database.begin() as session:
            dataset = Dataset(
                name="n",
                status=DatasetStatus.READY,
                images=0,
                annotations=0,
                report={},
                document_sha="0" * 64,
            )
            session.add(dataset)
            session.flush()
            fields = {"method": "sapnet", "preset": "cpu", "seed": 0, "request": {}, **values}
            job = Job(dataset_id=dataset.id, **fields)
            session.add(job)
        return job.id

    return add


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings()


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings)


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


class Kit:
    """What tests of uploads are made of; the fixture `kit` hands it out."""

    @staticmethod
    def image(
        width: int = 40, height: int = 30, *, seed: int = 0, kind: str = "PNG", **options: Any
    ) -> bytes:
        """A small image, another one for each seed."""
        buffer = io.BytesIO()
        colour = (37 * seed % 256, 91 * seed % 256, 211 * seed % 256)
        Image.new("RGB", (width, height), colour).save(buffer, kind, **options)
        return buffer.getvalue()

    @staticmethod
    def points(images: int = 2, each: int = 2, **changes: Any) -> dict[str, Any]:
        """A right document: images 1.., `each` points on each, classes 0 and 7 with a gap."""
        return {
            "images": [
                {"id": i, "file_name": f"{i}.png", "width": 40, "height": 30}
                for i in range(1, images + 1)
            ],
            "annotations": [
                {
                    "id": 100 * i + j,
                    "image_id": i,
                    "category_id": (0, 7)[j % 2],
                    "point": [1.5 + j, 2.5],
                }
                for i in range(1, images + 1)
                for j in range(each)
            ],
            "categories": [{"id": 7, "name": "cat"}, {"id": 0, "name": "dog"}],
            **changes,
        }

    @staticmethod
    def images(count: int = 2) -> dict[str, bytes]:
        return {f"{i}.png": Kit.image(seed=i) for i in range(1, count + 1)}

    @staticmethod
    def zipped(files: Mapping[str, bytes]) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return buffer.getvalue()

    @staticmethod
    def upload(
        client: TestClient,
        document: Any,
        images: Mapping[str, bytes] | bytes | None,
        *,
        name: str | None = "cells",
        truth: Any = None,
        **fields: str,
    ) -> Any:
        """POST /datasets. document: a dict, or bytes as they are. images: single files, or an
        archive as bytes."""
        raw = document if isinstance(document, bytes) else json.dumps(document).encode()
        files: list[tuple[str, Any]] = [("annotations", ("points.json", raw))]
        if isinstance(images, bytes):
            files.append(("images", ("images.zip", images)))
        elif images is not None:
            files += [("images", (name_, data)) for name_, data in images.items()]
        if truth is not None:
            files.append(("truth", ("truth.json", json.dumps(truth).encode())))
        data = dict(fields) if name is None else {"name": name, **fields}
        return client.post("/datasets", files=files, data=data)


@pytest.fixture
def kit() -> type[Kit]:
    return Kit
