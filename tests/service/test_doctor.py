"""`sapnet-service doctor`: sound services pass, each failure is named with its remedy."""

import http.server
import importlib.util
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import text
from typer.testing import CliRunner

from app.auth import keys
from app.auth.keys import Scope
from app.cli import doctor, doctor_machine
from app.cli.doctor_machine import Check
from app.cli.main import app as cli
from app.db import migrate as schema
from app.db.columns import now
from app.db.models import Dataset, DatasetStatus, JobState
from app.db.session import Database
from app.settings import Settings
from app.storage.store import make_storage
from tests.sam_file import sam2_folder, sam_file

MakeSettings = Callable[..., Settings]
NO_GPU = 'print(\'{"version": "2", "gpus": [], "threads": 1}\')'


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch takes seconds to import: one test does, the others get its answer."""
    monkeypatch.setattr(doctor_machine, "TORCH", NO_GPU)


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def settings(make_settings: MakeSettings, free_port: int) -> Settings:
    return make_settings(port=free_port)


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = Database(settings.database)
    yield database
    database.dispose()


def examined(settings: Settings, **changes: Any) -> dict[str, Check]:
    found = [*doctor.checks(settings.model_copy(update=changes))]
    assert len({check.name for check in found}) == len(found)
    for check in found:
        assert check.state
        assert check.ok is True or check.remedy or check.name == "torch", check
    return {check.name: check for check in found}


def wrong(settings: Settings, **changes: Any) -> dict[str, Check]:
    """What fails, but for the disk: that is this machine's own."""
    found = examined(settings, **changes)
    return {n: c for n, c in found.items() if c.ok is False and "disk" not in n}


@pytest.mark.slow
@pytest.mark.both_stacks
def test_a_sound_service_is_found_sound(settings: Settings, stack: dict[str, str]) -> None:
    assert wrong(settings) == {}
    found = examined(settings)
    assert found["broker"].state.startswith("redis://" if stack else "none")
    assert ("clock" in found) is bool(stack)
    assert found["storage"].state.startswith("s3://" if stack else "/")


@pytest.mark.slow
def test_the_real_torch_is_asked(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    monkeypatch.undo()
    torch, gpu = doctor_machine.torch_and_gpus()
    assert torch.ok
    assert gpu.ok is not False


def test_a_torch_without_cuda_beside_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = SimpleNamespace(labels={"name": "H100"}, value=80 * 2**30)
    family = SimpleNamespace(name="sapnet_gpu_memory_bytes", samples=[sample])
    monkeypatch.setattr(doctor_machine, "Gpus", lambda: SimpleNamespace(collect=lambda: [family]))
    _, gpu = doctor_machine.torch_and_gpus()
    assert (gpu.ok, gpu.state) == (False, "H100 (80 GiB), and torch sees none")


def test_a_torch_that_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_machine, "TORCH", "raise ImportError('libcudart is missing')")
    (torch,) = doctor_machine.torch_and_gpus()
    assert (torch.ok, torch.state) == (False, "ImportError: libcudart is missing")


@pytest.mark.slow
def test_a_database_before_its_migration(settings: Settings, database: Database) -> None:
    schema.downgrade(database, "base")
    assert wrong(settings) == {}
    found = examined(settings)["schema"]
    assert (found.ok, "serve" in found.remedy) == (None, True)


def test_a_database_of_a_newer_release(settings: Settings, database: Database) -> None:
    with database.begin() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    assert "newer release" in wrong(settings)["schema"].remedy


@pytest.mark.slow
def test_a_database_that_is_away_and_its_password(settings: Settings) -> None:
    url = "postgresql+psycopg://user:s3cret@127.0.0.1:1/none"
    (fault,) = wrong(settings, database_url=url).values()
    assert fault.name == "database"
    assert "s3cret" not in fault.state
    assert "SAPNET_DATABASE_URL" in fault.remedy


def test_a_storage_that_cannot_be_written(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (fault,) = wrong(settings, storage_url=str(tmp_path / "file" / "blobs")).values()
    assert (fault.name, "NotADirectoryError" in fault.state) == ("storage", True)


@pytest.mark.service
def test_a_bucket_that_is_not_there(settings: Settings, bucket: str) -> None:
    (fault,) = wrong(settings, storage_url=bucket.replace("s3://", "s3://no-")).values()
    assert fault.name == "storage"
    assert "the bucket must be there" in fault.remedy


def test_a_broker_that_is_away(settings: Settings) -> None:
    (fault,) = wrong(settings, broker_url="redis://:s3cret@127.0.0.1:1/0").values()
    assert fault.name == "broker"
    assert "s3cret" not in fault.state


@pytest.mark.service
def test_a_redis_that_throws_messages_out(settings: Settings, redis_database: str) -> None:
    with Redis.from_url(redis_database) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            (fault,) = wrong(settings, broker_url=redis_database).values()
        finally:
            client.config_set("maxmemory-policy", "noeviction")
    assert (fault.name, "noeviction" in fault.remedy) == ("queue", True)


def test_an_old_redis() -> None:
    assert doctor._redis_is_fit({"redis_version": "6.0.16"}).ok is False
    assert doctor._redis_is_fit({"redis_version": "7.4.1", "aof_enabled": 1}).ok is True


@pytest.mark.service
def test_clocks_that_differ(
    settings: Settings, postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "now", lambda: now() + timedelta(seconds=30))
    (fault,) = wrong(settings, database_url=postgres_database).values()
    assert fault.name == "clock"
    assert float(fault.state.split()[0]) == pytest.approx(30, abs=8)


def test_leases_that_one_slow_heartbeat_loses(settings: Settings) -> None:
    assert set(wrong(settings, heartbeat_seconds=20.0)) == {"leases"}


@pytest.mark.slow
def test_jobs_that_nobody_takes_up(
    settings: Settings, database: Database, add_job: Callable[..., str]
) -> None:
    add_job(database, created_at=now() - timedelta(minutes=1))
    assert wrong(settings) == {}
    add_job(database, created_at=now() - timedelta(minutes=20))
    assert "20 min" in wrong(settings)["jobs"].state
    add_job(database, state=JobState.RUNNING, lease_until=now() + timedelta(seconds=900))
    assert wrong(settings) == {}  # they wait for that one
    add_job(database, state=JobState.RUNNING, lease_until=now() - timedelta(seconds=9))
    assert "1 of workers that fell silent" in wrong(settings)["jobs"].state


@pytest.mark.slow
def test_an_open_address_without_keys(settings: Settings, database: Database) -> None:
    assert examined(settings)["keys"].ok is None
    (fault,) = wrong(settings, host="0.0.0.0").values()
    assert (fault.name, "keys create" in fault.remedy) == ("keys", True)
    assert examined(settings, host="0.0.0.0", allow_without_keys=True)["keys"].ok is None
    with database.begin() as session:
        keys.create(session, "me", Scope.ADMIN)
    assert wrong(settings, host="0.0.0.0") == {}


@pytest.mark.parametrize(
    ("name", "content", "ok"),
    [
        ("net-ba7816bf.pth", b"abc", True),
        ("net-ba7816bf.pth", b"abd", False),
        ("sam_vit_b_ba7816.pth", b"ab", False),
        ("my.pt", b"anything", True),
        ("my.pt", None, False),
    ],
)
def test_weights_are_there_and_whole(
    settings: Settings, tmp_path: Path, name: str, content: bytes | None, ok: bool
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    assert set(wrong(settings, backbone_weights=path)) == (set() if ok else {"backbone weights"})


@pytest.mark.slow
def test_sam_checkpoints_are_there_and_of_a_type(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert examined(settings)["SAM checkpoint"].ok is None
    base = sam_file(tmp_path / "lm.pth", width=768, blocks=12)
    renamed = sam_file(tmp_path / "sam_vit_h_4b8939.pth", width=1280, blocks=32)
    (tmp_path / "words.pth").write_bytes(b"anything")
    named = {"digest": renamed, "words": tmp_path / "words.pth", "none": tmp_path / "no.pth"}
    found = examined(settings, sam_checkpoint=base, sam_checkpoints=named)
    checks = {n: found[f"SAM checkpoint {n!r}"] for n in ("default", *named)}
    assert {n: check.ok for n, check in checks.items()} == {
        "default": True,
        "digest": False,
        "words": False,
        "none": False,
    }
    two = sam2_folder(tmp_path / "two", 96, [1, 2, 11, 2])
    check = examined(settings, sam_checkpoint=two)["SAM checkpoint 'default'"]
    assert (check.ok, check.state[:14]) == (True, "SAM 2 small, /")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    check = examined(settings, sam_checkpoint=two)["SAM checkpoint 'default'"]
    assert (check.ok, check.remedy) == (False, "pip install 'sapnet-service[sam2]'")
    assert checks["default"].state.startswith(f"vit_b, {base}, ")
    assert "SHA-256 begins with" in checks["digest"].state
    assert "torch did not write it" in checks["words"].state
    assert "SAPNET_SAM_CHECKPOINTS must name a file" in checks["none"].remedy


def test_a_full_disk(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    free = SimpleNamespace(free=1e9)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    assert examined(settings)["disk"].ok is False


class Answers(http.server.BaseHTTPRequestHandler):
    body = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: Any) -> None: ...


@pytest.mark.slow
@pytest.mark.parametrize(("body", "ok"), [(b'{"status":"ok"}', True), (b"hello", False)])
def test_a_port_that_is_taken(settings: Settings, body: bytes, ok: bool) -> None:
    handler = type("Handler", (Answers,), {"body": body})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        number = server.server_address[1]
        faults = wrong(settings, port=number, worker_metrics_port=None)
        server.shutdown()
        thread.join()
    assert set(faults) == (set() if ok else {"port"})


@pytest.mark.slow
def test_the_exit_code_tells(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAPNET_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("SAPNET_PORT", str(settings.port))
    monkeypatch.setattr(doctor_machine, "LEAST_DISK_GB", 0)
    sound = CliRunner().invoke(cli, ["doctor"])
    assert sound.exit_code == 0, sound.output
    monkeypatch.setenv("SAPNET_DATABASE_URL", "postgresql+psycopg://u:s3cret@127.0.0.1:1/none")
    broken = CliRunner().invoke(cli, ["doctor"])
    assert broken.exit_code == 1
    assert "FAIL  database" in broken.output
    assert "SAPNET_DATABASE_URL" in broken.output
    assert "s3cret" not in broken.output


@pytest.mark.slow
def test_damaged_and_missing_blobs_are_found_and_set_aside(settings: Settings) -> None:
    schema_database = Database(settings.database)
    schema.upgrade(schema_database)
    storage = make_storage(settings)
    shas = [storage.put_bytes(text) for text in (b"whole", b"damaged", b"missing")]
    rows = [
        Dataset(
            name="n",
            status=DatasetStatus.READY,
            images=0,
            annotations=0,
            report={},
            document_sha=sha,
        )
        for sha in shas
    ]
    with schema_database.begin() as session:
        session.add_all(rows)
    schema_database.dispose()
    storage.local_path(shas[1]).write_bytes(b"Damaged")
    storage.delete(shas[2])
    found = {c.name: c for c in doctor.checks(settings, blobs=True) if c.name.startswith("blob")}
    assert set(found) == {f"blob {shas[1]}", f"blob {shas[2]}"}
    assert "damaged" in found[f"blob {shas[1]}"].state
    assert "missing" in found[f"blob {shas[2]}"].state
    assert all(check.ok is False and check.remedy for check in found.values())
    assert storage.put_bytes(b"damaged") == shas[1]  # sent again
    storage.put_bytes(b"missing")
    (check,) = (c for c in doctor.checks(settings, blobs=True) if c.name.startswith("blob"))
    assert check.ok
    assert "3" in check.state
