"""Runs the commands of a page of docs/integrations/ as they stand, as a newcomer would.

Blocks of ```bash and ```python are run in order, in one shell, in a folder that holds the
newcomer's `photos/` and `points.json`. A command with the comment `# leave it running` is a server:
it goes on beside the others, which wait until it answers. `pip install` installs nothing here, and
checks that what is asked for is there. Ports of a page are replaced by free ones.
"""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sapnet.data.synthetic import make_scenes

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "integrations"
FAKE_TRAINER = ROOT / "tests" / "jobs" / "fake_trainer.py"
SERVER = "# leave it running"
SERVE = 8000
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PRELUDE = r"""
set -euo pipefail
answers() { (exec 3<>/dev/tcp/127.0.0.1/$1) 2>/dev/null; }
wait_for() { until answers "$1"; do kill -0 "$2" || exit 1; sleep 0.1; done; }
pip() { python "$PIP" "$@"; }
"""
PIP = """
import sys
from importlib import metadata
from packaging.requirements import Requirement

assert sys.argv[1] == "install", sys.argv
for text in sys.argv[2:]:
    asked = Requirement(text)
    found = metadata.distribution(asked.name)
    known = set(found.metadata.get_all("Provides-Extra") or [])
    if asked.name != "sapnet-service":
        assert asked.extras <= known, text
    else:
        import tomllib
        project = tomllib.load(open("{pyproject}", "rb"))["project"]
        assert asked.extras <= set(project["optional-dependencies"]), text
"""
PATIENCE = 1800  # seconds for a page: one with a training took 500 at a load of 20
RunPage = Callable[..., str]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def script_of(page: Path, folder: Path, ports: dict[int, int]) -> str:
    """A shell script of all commands of a page."""
    lines = [PRELUDE]
    for number, (language, block) in enumerate(BLOCK.findall(page.read_text())):
        for port, other in ports.items():
            block = re.sub(rf"\b{port}\b", str(other), block)
        if language == "python":
            program = folder / f"block_{number}.py"
            program.write_text(block)
            lines.append(f"python {shlex.quote(program.name)}")
            continue
        for line in block.splitlines():
            command, mark, _ = line.partition(SERVER)
            if not mark:
                lines.append(line)
                continue
            port = next((p for p in ports.values() if str(p) in command), ports[SERVE])
            lines += [f"{command} &", f"wait_for {port} $!"]
    return "\n".join([*lines, "echo all of it ran"])


@pytest.fixture
def run_page(tmp_path: Path) -> Iterator[RunPage]:
    """Run a page's commands; returns what they print. They run in `tmp_path / "newcomer"`.

    Its arguments: name of the page, whether trainings are real (else the stand-in's), further ports
    that the page names, and further environment variables.
    """
    processes: list[subprocess.Popen[str]] = []
    folder = tmp_path / "newcomer"
    folder.mkdir()

    def run(page: str, *, real: bool = False, ports: tuple[int, ...] = (), **env: str) -> str:
        scenes = make_scenes(folder / "drawn", 4, size=(96, 112))
        scenes.images.rename(folder / "photos")
        scenes.points.rename(folder / "points.json")
        (tmp_path / "pip.py").write_text(PIP.replace("{pyproject}", str(ROOT / "pyproject.toml")))
        mapped = {port: free_port() for port in (SERVE, *ports)}
        fake = [sys.executable, str(FAKE_TRAINER), "--steps", "2"]
        settings = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PIP": str(tmp_path / "pip.py"),
            "SAPNET_DATA_DIR": str(tmp_path / "data"),
            "SAPNET_PORT": str(mapped[SERVE]),
            "SAPNET_URL": f"http://127.0.0.1:{mapped[SERVE]}",
            **({} if real else {"SAPNET_TRAINER_COMMAND": json.dumps(fake)}),
        }
        script = folder.with_name("script.sh")
        script.write_text(script_of(PAGES / page, folder, mapped))
        output = folder.with_name("output.txt")
        with output.open("w") as log:
            process = subprocess.Popen(
                ["bash", str(script)],
                cwd=folder,
                env={**os.environ, **settings, **env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        processes.append(process)
        try:
            code: int | None = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            code = None
        said = output.read_text()
        assert (code, said.splitlines()[-1:]) == (0, ["all of it ran"]), said
        return said

    yield run
    for process in processes:
        for ending in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, ending)
                process.wait(20)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                pass
