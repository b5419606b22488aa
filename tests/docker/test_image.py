"""The Dockerfile, followed step by step as a script in a clean folder, then its command.

Every ENV, COPY and RUN is done as written, with `/opt`, `/src`, `/data` and `/home` moved below
that folder, and nothing fetched: what pip is asked for must be among the packages of this
environment (torch alone is gigabytes). Shown is that the copied files build, that the installed
service has all that it needs (migrations too), that it starts, is healthy and keeps to its folders.
Not shown: that the base image, torch's index and the package registry are there, nor the user's
creation.
"""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILES = sorted((ROOT / "docker").glob("*Dockerfile*"))
PATIENCE = 240  # seconds, of a machine that does other things as well
MOVED = re.compile(r"(?<![\w/.])/(?=(?:opt|src|data|home)\b)")


@dataclass
class Container:
    """What the steps left: folders below `root`, the environment, who runs what."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: str = "root"
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)

    def moved(self, text: str) -> str:
        return MOVED.sub(f"{self.root}/", text)

    def environment(self) -> dict[str, str]:
        base = {"HOME": str(self.root), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
        offline = {
            "PIP_NO_INDEX": "1",
            "PIP_NO_BUILD_ISOLATION": "0",
            "PIP_CONFIG_FILE": os.devnull,
        }
        return {**base, **offline, **self.env}

    def here(self) -> Path:
        path = Path(self.moved(self.folder)) if self.folder != "/" else self.root
        path.mkdir(parents=True, exist_ok=True)
        return path


def steps(dockerfile: Path) -> list[tuple[str, str]]:
    text = re.sub(r"^\s*#.*\n", "", dockerfile.read_text(), flags=re.M).replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines]


def context(into: Path) -> Path:
    """The build's context: what .dockerignore lets through."""
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line[0] == "!"]
    for name in kept:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, into / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            into.mkdir(exist_ok=True)
            shutil.copy(source, into / name)
    return into


def build(dockerfile: Path, folder: Path) -> Container:
    """Follow the steps. Stages share one root: what is copied from another stage is there."""
    files, box = context(folder / "context"), Container(folder / "root")
    box.root.mkdir()
    arguments: dict[str, str] = {}
    for step, rest in steps(dockerfile):
        match step:
            case "FROM":
                assert rest.startswith("python:3"), rest
                box = Container(box.root)
            case "ARG":
                name, _, value = rest.partition("=")
                arguments[name] = value
            case "ENV":
                for pair in shlex.split(rest):
                    name, _, value = pair.partition("=")
                    path = box.environment()["PATH"]
                    box.env[name] = box.moved(value.replace("$PATH", path))
            case "WORKDIR":
                box.folder = rest
                box.here()
            case "COPY" if rest.startswith("--from="):
                _, source, target = rest.split()
                assert source == target, "stages share one root here"
                assert Path(box.moved(source)).is_dir()
            case "COPY":
                *sources, target = rest.split()
                copy([files / s for s in sources], box.here() / target)
            case "RUN":
                run(box, rest, arguments)
            case "USER":
                box.user = rest
            case "CMD":
                box.command = json.loads(rest)
            case "HEALTHCHECK":
                box.health = json.loads(rest[rest.index("CMD") + 3 :])
            case "VOLUME" | "EXPOSE":
                pass
            case _:
                raise AssertionError(f"the test does not know {step}")
    return box


def copy(sources: list[Path], target: Path) -> None:
    for source in sources:
        assert source.exists(), f"{source.name} is not in the context: see .dockerignore"
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)


def run(box: Container, command: str, arguments: dict[str, str]) -> None:
    if "useradd" in command:  # this machine's users are not ours to change; its folders are made
        for folder in re.findall(r"install -d -o \w+ -g \w+ (\S+)", command):
            Path(box.moved(folder)).mkdir(parents=True)
        return
    script = re.sub(r"^python ", f"{sys.executable} ", box.moved(command))
    env = {**box.environment(), **arguments}
    done = subprocess.run(
        ["sh", "-ec", script], cwd=box.here(), env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, f"RUN {command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    if "-m venv" in command:  # the packages of this environment, as if they had been fetched
        site = next(Path(box.moved("/opt/venv")).glob("lib/python*/site-packages"))
        for old in [*site.glob("setuptools*"), site / "pkg_resources", site / "_distutils_hack"]:
            shutil.rmtree(old, ignore_errors=True)  # Python 3.12 puts none there
        (site / "distutils-precedence.pth").unlink(missing_ok=True)
        (site / "fetched.pth").write_text(sysconfig.get_path("purelib") + "\n")


@pytest.fixture(params=DOCKERFILES, ids=lambda path: path.name)
def container(request: pytest.FixtureRequest, tmp_path: Path) -> Container:
    return build(request.param, tmp_path)


def started(box: Container, *command: str, port: int) -> subprocess.Popen[str]:
    env = {**box.environment(), "SAPNET_PORT": str(port)}
    env = {name: value for name, value in env.items() if not name.startswith("PIP_")}
    program = shutil.which(command[0], path=env["PATH"])
    assert program is not None
    assert program.startswith(str(box.root)), f"{program} is not the image's"
    return subprocess.Popen(
        [program, *command[1:]],
        cwd=box.here(),
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_the_steps_make_a_service_that_works(container: Container) -> None:
    assert container.user not in ("root", "0", "")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    installed = Path(container.moved("/opt/venv"))
    (package,) = installed.glob("lib/python*/site-packages/app")
    assert (package.parent / "migrations" / "env.py").is_file()
    (licences,) = package.parent.glob("sapnet_service-*.dist-info/licenses")
    assert {path.name for path in licences.iterdir()} == {"LICENSE", "NOTICE"}
    shutil.rmtree(container.moved("/src"))  # the last stage does not have it

    refused = started(container, *container.command, port=port)
    said, _ = refused.communicate(timeout=PATIENCE)
    assert refused.returncode == 2  # open to strangers and without a key
    assert "keys create" in said
    key = started(container, "sapnet-service", "keys", "create", "me", port=port)
    assert key.communicate(timeout=PATIENCE)[0]
    assert key.returncode == 0

    serving = started(container, *container.command, port=port)
    try:
        program, *rest = container.health
        check = [str(installed / "bin" / program), *(a.replace("8000", str(port)) for a in rest)]
        deadline = time.monotonic() + PATIENCE
        while subprocess.run(check, capture_output=True).returncode:
            assert serving.poll() is None, serving.stdout and serving.stdout.read()
            assert time.monotonic() < deadline, "never healthy"
            time.sleep(0.5)
    finally:
        serving.send_signal(signal.SIGTERM)
        output, _ = serving.communicate(timeout=PATIENCE)
    assert serving.returncode == 0, output
    assert Path(container.moved("/data"), "sapnet.db").is_file()
    assert list(container.here().iterdir()) == []  # nothing is written where it stands


def test_there_is_a_dockerfile() -> None:
    assert DOCKERFILES
    for path in DOCKERFILES:
        found = steps(path)
        last = max(i for i, (step, _) in enumerate(found) if step == "FROM")
        names = [step for step, _ in found[last:]]
        assert {"USER", "HEALTHCHECK", "CMD", "VOLUME"} <= set(names)
        assert not [rest for step, rest in found[last:] if step == "RUN" and "pip" in rest]
