"""docker-compose.yml: sound by itself, true to the settings and commands that there are, and to
Docker where a client is."""

import json
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from app.cli.main import app as cli
from app.jobs.kinds import QUEUES, SHARD, TRAIN
from app.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
WORKERS = {"worker-io", "worker-predict", "worker-cpu", "worker-gpu"}
OURS = {"migrate", "api", *WORKERS}
KEYS = {
    "image": str,
    "build": dict,
    "restart": str,
    "environment": dict,
    "command": list,
    "entrypoint": list,
    "healthcheck": dict,
    "depends_on": dict,
    "ports": list,
    "volumes": list,
    "profiles": list,
    "stop_grace_period": str,
    "shm_size": str,
    "deploy": dict,
}
CONDITIONS = {"service_started", "service_healthy", "service_completed_successfully"}


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    document = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    assert set(document) == {"x-service", "services", "volumes"}
    found: dict[str, dict[str, Any]] = document["services"]
    named = {v.split(":")[0] for s in found.values() for v in s.get("volumes", [])}
    assert named == set(document["volumes"])
    return found


def test_services_are_of_the_form_that_compose_knows(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        for key, value in service.items():
            assert isinstance(value, KEYS[key]), (name, key)
        for other, how in service.get("depends_on", {}).items():
            assert other in services, (name, other)
            assert set(how) == {"condition"}
            assert how["condition"] in CONDITIONS
            if how["condition"] == "service_healthy":
                assert "test" in services[other]["healthcheck"], other
        if "build" in service:
            assert set(service["build"]) <= {"context", "dockerfile", "args"}
            assert (ROOT / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        for argument in service.get("command", []) + service.get("entrypoint", []):
            assert isinstance(argument, str), (name, argument)
        for variable, value in service.get("environment", {}).items():
            assert isinstance(value, str), (name, variable)  # true is not "true" to a container


def test_nobody_waits_for_himself(services: dict[str, dict[str, Any]]) -> None:
    def waits_for(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, path
        for other in services[name].get("depends_on", {}):
            waits_for(other, (*path, name))

    for name in services:
        waits_for(name, ())


def test_migrations_run_once_before_api_and_workers(services: dict[str, dict[str, Any]]) -> None:
    assert services["migrate"]["command"] == ["sapnet-service", "migrate"]
    assert services["migrate"]["restart"] == "on-failure"
    for name in OURS - {"migrate"}:
        condition = services[name]["depends_on"]["migrate"]["condition"]
        assert condition == "service_completed_successfully"
        assert {"redis", "bucket"} <= set(services[name]["depends_on"])
    assert services["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}


def test_commands_and_settings_are_those_there_are(services: dict[str, dict[str, Any]]) -> None:
    for name in OURS:
        program, command, *options = services[name]["command"]
        assert program == "sapnet-service"
        helped = CliRunner().invoke(cli, [command, "--help"])
        assert helped.exit_code == 0, (name, command)
        for option in options:
            assert not option.startswith("--") or option in helped.output, (name, option)
        for variable in services[name]["environment"]:
            if variable.startswith("SAPNET_"):
                assert variable.removeprefix("SAPNET_").lower() in Settings.model_fields, variable


def queues_by_worker(services: dict[str, dict[str, Any]], *profiles: str) -> dict[str, list[str]]:
    """Of what `docker compose --profile …` starts."""
    started = {
        name: service["command"]
        for name, service in services.items()
        if "--queues" in service.get("command", [])
        and (not service.get("profiles") or set(service["profiles"]) & set(profiles))
    }
    return {name: c[c.index("--queues") + 1].split(",") for name, c in started.items()}


@pytest.mark.parametrize(("profile", "trainer"), [("cpu", "worker-cpu"), ("gpu", "worker-gpu")])
def test_every_queue_has_one_worker(
    services: dict[str, dict[str, Any]], profile: str, trainer: str
) -> None:
    """No CPU worker takes a training beside a GPU worker, and no queue waits for another."""
    by_worker = queues_by_worker(services, profile)
    assert sorted(q for queues in by_worker.values() for q in queues) == sorted(QUEUES)
    assert by_worker[trainer] == [TRAIN, SHARD]  # who has no training helps with another's
    assert all(len(q) == 1 for name, q in by_worker.items() if name != trainer)


def test_the_gpu_worker_has_all_gpus(services: dict[str, dict[str, Any]]) -> None:
    (device,) = services["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert "gpu" in device["capabilities"]
    assert device["count"] == "all"
    assert all("deploy" not in services[name] for name in WORKERS - {"worker-gpu"})


def test_the_settings_are_good_ones(
    services: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the container reads them, with nothing set outside."""
    for variable, value in services["api"]["environment"].items():
        default = value.split(":-")[1].rstrip("}") if value.startswith("${") else value
        monkeypatch.setenv(variable, default)
    settings = Settings(_env_file=None)  # type: ignore[call-arg]
    assert settings.database.startswith("postgresql+psycopg://")
    assert settings.storage == "s3://sapnet/blobs"
    assert not settings.embedded
    assert settings.otel_endpoint is None


def test_strangers_are_kept_out(services: dict[str, dict[str, Any]]) -> None:
    """Published to this machine alone while no key is asked for; nothing else is published."""
    published = {name: s["ports"] for name, s in services.items() if "ports" in s}
    assert set(published) == {"api"}
    (port,) = published["api"]
    if services["api"]["environment"].get("SAPNET_ALLOW_WITHOUT_KEYS"):
        assert port.startswith("127.0.0.1:")
    for name in OURS - {"api"}:
        assert "SAPNET_ALLOW_WITHOUT_KEYS" not in services[name]["environment"]


def test_each_is_looked_after(services: dict[str, dict[str, Any]]) -> None:
    """A healthcheck, of its own or (the API's) the image's; what runs once needs none."""
    once = {"migrate", "bucket"}
    for name in set(services) - once - {"api"}:
        assert services[name]["healthcheck"]["test"][0] == "CMD", name
    for name in WORKERS:
        port = services[name]["environment"]["SAPNET_WORKER_METRICS_PORT"]
        assert f"127.0.0.1:{port}" in shlex.join(services[name]["healthcheck"]["test"])
        assert int(services[name]["stop_grace_period"].rstrip("s")) > 30


def compose() -> list[str] | None:
    """The client that reads compose files, where there is one; no daemon is needed."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]):
            done = subprocess.run([*command, "version"], capture_output=True)
            if done.returncode == 0:
                return command
    return None


@pytest.mark.slow
@pytest.mark.skipif(compose() is None, reason="no docker client that knows compose is installed")
def test_docker_takes_the_file(services: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    shutil.copy(ROOT / "docker-compose.yml", tmp_path)
    (tmp_path / "docker").mkdir()
    shutil.copy(ROOT / "docker" / "Dockerfile", tmp_path / "docker")
    command = [*(compose() or []), "--profile", "gpu", "--profile", "cpu", "config"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    resolved = yaml.safe_load(done.stdout)
    assert set(resolved["services"]) == set(services)
    api = json.dumps(resolved["services"]["api"])
    assert "postgresql+psycopg://sapnet:sapnet@postgres/sapnet" in api
    assert "127.0.0.1" in api
