"""The `.env` file of the folder: who reads it, what it may not name, and that it is said."""

import sys
from pathlib import Path

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from app.cli.main import app as cli
from app.settings import Settings, named_in_env_file
from worker.runtime.subprocess import Trainer

SHOW = (
    "import json, os; print(json.dumps({'event': 'done', 'port': os.environ.get('SAPNET_PORT')}))"
)


@pytest.fixture
def env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("SAPNET_PORT", "SAPNET_DATA_DIR", "SAPNET_TRAINER_COMMAND"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / ".env"
    path.write_text("# ours\nSAPNET_PORT=8123\nexport SAPNET_DATA_DIR=here\nOTHER=1\n")
    return path


def test_the_service_reads_it_and_the_environment_comes_first(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (Settings().port, Settings().data_dir) == (8123, Path("here"))
    assert named_in_env_file() == ["SAPNET_DATA_DIR", "SAPNET_PORT"]
    monkeypatch.setenv("SAPNET_PORT", "8124")
    assert Settings().port == 8124
    env_file.unlink()
    assert named_in_env_file() == []


def test_it_cannot_name_a_program_to_run(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever starts the service in a folder of somebody else's runs nothing of theirs."""
    env_file.write_text('sapnet_trainer_command=["sh", "-c", "echo mine"]\n')
    with pytest.raises(ValidationError, match="set it in the environment"):
        Settings()
    answer = CliRunner().invoke(cli, ["doctor"])
    assert answer.exit_code == 2
    assert "SAPNET_TRAINER_COMMAND" in answer.output
    assert "mine" not in answer.output
    monkeypatch.setenv("SAPNET_TRAINER_COMMAND", '["python", "x.py"]')
    assert Settings().trainer_command == ("python", "x.py")


@pytest.mark.slow
def test_a_command_says_what_it_takes_from_it(env_file: Path) -> None:
    answer = CliRunner().invoke(cli, ["keys", "list"])
    assert f"Settings from {env_file.resolve()}: SAPNET_DATA_DIR, SAPNET_PORT" in answer.output
    assert "8123" not in answer.output
    env_file.unlink()
    assert "Settings from" not in CliRunner().invoke(cli, ["keys", "list"]).output


@pytest.mark.slow
def test_a_trainer_reads_none(env_file: Path) -> None:
    trainer = Trainer([sys.executable, "-c", SHOW], workdir=env_file.parent)
    assert list(trainer.events()) == [{"event": "done", "port": None}]
    assert trainer.wait() == 0
