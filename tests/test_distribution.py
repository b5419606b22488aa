"""The wheel and the sdist: what is in them, and that both commands run from the wheel alone."""

import email
import os
import socket
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.distributions import build, copy_clone, repack, required

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGES = ("app", "migrations", "sapnet", "sapnet_client", "worker")
LICENCES = ("LICENSE", "NOTICE")
SDIST_ONLY = {"README.md", "pyproject.toml", "MANIFEST.in", "PKG-INFO", "setup.cfg", *LICENCES}
NEEDED = (
    "app/web/index.html",
    "app/web/main.js",
    "app/web/docs/index.html",
    "migrations/env.py",
    "migrations/script.py.mako",
    "migrations/versions/0001_*.py",
    "sapnet/evaluation/report/templates/report.html.j2",
    "sapnet/proposals/prompter/weights/prompter.safetensors",
    "sapnet/proposals/prompter/weights/prompter.json",
    "sapnet_client/py.typed",
)
pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Built:
    wheel: Path
    sdist: Path
    sources: frozenset[str]
    """Files of the packages in the repository."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Both, from a copy of the repository as a clone has it, with leftovers of an older build."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    folder, out = tmp_path_factory.mktemp("clone"), tmp_path_factory.mktemp("dist")
    files = copy_clone(ROOT, folder)
    leftovers = ["app/__pycache__/main.cpython-311.pyc", "build/lib/app/old.py", "var/sapnet.db"]
    for name in (*leftovers, ".pytest_cache/README.md", "app/web/__pycache__/x.cpython-311.pyc"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    build(folder, out)
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    sources = frozenset(name for name in files if name.startswith(tuple(f"{p}/" for p in PACKAGES)))
    return Built(wheel, sdist, sources)


def test_the_wheel_has_the_packages_and_nothing_else(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        names = archive.namelist()
    info = {name for name in names if ".dist-info/" in name}
    assert set(names) - info == built.sources
    assert {name.rpartition("/licenses/")[2] for name in info if "/licenses/" in name} == {
        *LICENCES
    }
    for pattern in NEEDED:
        assert any(Path(name).match(pattern) for name in names), pattern


def test_the_sdist_builds_the_same_and_has_no_tests(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {m.name.partition("/")[2] for m in archive.getmembers() if m.isfile()}
    info = {name for name in names if name.startswith("sapnet_service.egg-info/")}
    assert names - info == built.sources | SDIST_ONLY


def test_the_metadata_is_whole(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        described = email.message_from_bytes(archive.read(name))
    assert described["License-Expression"] == "Apache-2.0"
    assert set(described.get_all("License-File") or []) == set(LICENCES)
    assert set(described.get_all("Provides-Extra") or []) == set(PROJECT["optional-dependencies"])
    assert str(described.get_payload()).startswith("# sapnet-service")


@dataclass(frozen=True)
class Uvx:
    """`uvx --from WHEEL[extra] COMMAND`, which makes an environment of what the wheel asks for."""

    wheel: Path
    packages: Path
    folder: Path

    def __call__(self, *command: str) -> subprocess.CompletedProcess[str]:
        quiet = {k: v for k, v in os.environ.items() if not k.startswith(("UV_", "PIP_", "SAPNET"))}
        uvx = [str(Path(sys.executable).with_name("uvx")), "--no-config", "--offline", "--no-index"]
        options = ["--find-links", str(self.packages), "--python", sys.executable]
        return subprocess.run(
            [*uvx, *options, "--from", str(self.wheel), *command],
            env={**quiet, "UV_CACHE_DIR": str(self.folder / "cache")},
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def uvx(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Uvx:
    """Nothing can be had but what the base install asks for, as wheels of what is here."""
    packages = tmp_path_factory.mktemp("packages")
    for distribution in required(PROJECT["dependencies"]).values():
        repack(distribution, packages)
    return Uvx(built.wheel, packages, tmp_path_factory.mktemp("uvx"))


def test_both_commands_run_from_the_wheel_alone(uvx: Uvx) -> None:
    helped = uvx("sapnet-service", "--help")
    assert helped.returncode == 0, helped.stderr
    assert "predict" in helped.stdout
    assert uvx("sapnet", "--version").stdout.split() == ["sapnet-service", PROJECT["version"]]


def test_what_it_cannot_do_is_one_line(uvx: Uvx) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        free = listener.getsockname()[1]  # nobody is there once it is closed
    absent = uvx("sapnet-service", "status", "--url", f"http://127.0.0.1:{free}")
    assert absent.returncode == 1
    assert f"127.0.0.1:{free}" in last_line(absent)
    refused = uvx("sapnet", "predict", "model.pt", "a.png")
    assert refused.returncode == 1, refused.stderr
    assert "pip install 'sapnet-service[service]'" in last_line(refused)


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """Of the command's errors; uvx says above it what it installed."""
    said = [line for line in done.stderr.splitlines() if line.strip()]
    assert "Traceback" not in done.stderr, done.stderr
    return said[-1]
