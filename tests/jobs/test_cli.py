"""`sapnet-service` without a server: migrate and doctor."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from app import schema
from app.cli import app
from app.db import Database
from app.doctor import Check, checks
from app.settings import Settings


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAPNET_DATA_DIR", str(tmp_path / "data"))


def by_name(settings: Settings) -> dict[str, Check]:
    return {check.name: check for check in checks(settings)}


def test_migrate_there_and_back(tmp_path: Path) -> None:
    runner = CliRunner()
    assert runner.invoke(app, ["migrate"]).exit_code == 0
    database = Database(f"sqlite:///{tmp_path}/data/sapnet.db")
    assert schema.current(database) == schema.head()
    assert runner.invoke(app, ["migrate", "base", "--down"]).exit_code == 0
    assert schema.current(database) is None
    assert runner.invoke(app, ["migrate", "no-such-revision"]).exit_code == 1
    database.dispose()


@pytest.mark.service  # torch is imported in a process of its own
def test_doctor_finds_a_sound_service_sound(settings: Settings, database: Database) -> None:
    found = by_name(settings)
    assert {n: c.ok for n, c in found.items() if n not in ("torch", "disk")} == {
        "database": True,
        "schema": True,
        "storage": True,
        "broker": True,
        "backbone weights": None,
        "SAM checkpoint": None,
    }
    assert found["torch"].ok is not False


@pytest.mark.service  # torch is imported in a process of its own
def test_doctor_says_what_is_wrong_and_how_to_mend_it(
    settings: Settings, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SAPNET_SAM_CHECKPOINT", str(tmp_path / "no.pth"))
    schema.downgrade(database, "base")
    found = by_name(
        settings.model_copy(
            update={
                "broker_url": "redis://:secret@127.0.0.1:1/0",
                "backbone_weights": tmp_path / "no.pt",
            }
        )
    )
    wrong = {name for name, check in found.items() if check.ok is False}
    assert wrong - {"disk"} == {"schema", "broker", "backbone weights", "SAM checkpoint"}
    assert all(found[name].mend for name in wrong)
    assert "secret" not in found["broker"].found


@pytest.mark.service  # torch is imported in a process of its own
def test_doctor_ends_with_1_where_something_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAPNET_DATABASE_URL", "postgresql+psycopg://u:secret@127.0.0.1:1/none")
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "FAIL  database" in result.output
    assert "SAPNET_DATABASE_URL" in result.output
    assert "secret" not in result.output


@pytest.mark.parametrize("command", ["serve", "worker", "migrate", "doctor"])
def test_wrong_settings_are_said_in_words(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAPNET_PORT", "s3cret")
    monkeypatch.setenv("SAPNET_DATABASE_URL", "s3cret")
    result = CliRunner().invoke(app, [command])
    assert result.exit_code == 2
    assert "SAPNET_PORT: Input should be a valid integer" in result.stderr
    assert "SAPNET_DATABASE_URL: Value error, it is no URL" in result.stderr
    assert "s3cret" not in result.output
    assert "Traceback" not in result.output
