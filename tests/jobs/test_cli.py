"""`sapnet-service` without a server: migrate, and settings that are wrong."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli.main import app
from app.db import migrate as schema
from app.db.session import Database


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAPNET_DATA_DIR", str(tmp_path / "data"))


@pytest.mark.slow
def test_migrate_there_and_back(tmp_path: Path) -> None:
    runner = CliRunner()
    assert runner.invoke(app, ["migrate"]).exit_code == 0
    database = Database(f"sqlite:///{tmp_path}/data/sapnet.db")
    assert schema.current(database) == schema.head()
    assert runner.invoke(app, ["migrate", "base", "--down"]).exit_code == 0
    assert schema.current(database) is None
    assert runner.invoke(app, ["migrate", "no-such-revision"]).exit_code == 2
    database.dispose()


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
