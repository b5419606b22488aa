"""What is installed: the lock file, the licences, the versions, the commands' own options."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import sapnet

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
HEAVY = {"torch", "torchvision", "numba", "scipy", "fastapi", "sqlalchemy", "celery", "pydantic"}


def locked() -> dict[str, list[Requirement]]:
    """The lock's pins by name: one each, or one for each platform."""
    found: dict[str, list[Requirement]] = {}
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            requirement = Requirement(line)
            found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


def pinned(requirement: Requirement) -> list[Version]:
    return [Version(specifier.version) for specifier in requirement.specifier]


@pytest.mark.parametrize("extra", [None, *EXTRAS])
def test_the_lock_pins_what_the_project_asks_for(extra: str | None) -> None:
    lock = locked()
    for text in PROJECT["dependencies"] if extra is None else EXTRAS[extra]:
        asked = Requirement(text)
        if asked.name == PROJECT["name"]:
            assert asked.extras <= set(EXTRAS)
            continue
        pins = lock.get(canonicalize_name(asked.name))
        assert pins, f"{asked.name} is not in requirements.lock: make lock"
        for pin in pins:
            assert all(asked.specifier.contains(version) for version in pinned(pin)), text


def test_the_lock_is_exact_and_names_no_address() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    assert "--" not in re.sub(r"#.*", "", text)
    for pins in locked().values():
        for pin in pins:
            assert [specifier.operator for specifier in pin.specifier] == ["=="], pin


def test_the_base_install_is_light() -> None:
    names = {canonicalize_name(Requirement(text).name) for text in PROJECT["dependencies"]}
    assert not names & HEAVY
    assert {canonicalize_name(Requirement(text).name) for text in EXTRAS["service"]} >= HEAVY


@pytest.mark.parametrize("library", ["starlette", "httpx2", "httpcore2"])
def test_private_parts_of_a_library_bound_it(library: str) -> None:
    (asked,) = [r for r in map(Requirement, EXTRAS["service"]) if r.name == library]
    assert any(specifier.operator == "<" for specifier in asked.specifier)


def test_third_party_has_the_versions_of_the_lock_and_no_licence_to_avoid() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (ROOT / "THIRD_PARTY.md").read_text().splitlines()
        if line.startswith("| ") and not line.startswith("| distribution")
    ]
    listed = {canonicalize_name(name): (version, licence) for name, version, licence in rows}
    lock = locked()
    for name, (version, licence) in listed.items():
        assert Version(version) in [v for pin in lock[name] for v in pinned(pin)], (
            f"{name}: make licences"
        )
        assert not re.search(r"\bA?GPL|non-?commercial|see its own", licence, re.IGNORECASE), name
    for extra in ("service", "otel", "onnx"):
        for text in EXTRAS[extra]:
            assert canonicalize_name(Requirement(text).name) in listed, f"{text}: make licences"


def test_images_of_others_have_a_version() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    others = {s["image"] for s in services.values() if "build" not in s}
    assert others
    for image in others:
        assert re.search(r":(\d+\.\d+|RELEASE\.\d{4}-\d\d-\d\dT)", image), image


def test_pre_commit_runs_the_linter_of_the_lock() -> None:
    repos = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    (ruff,) = [repo for repo in repos if "ruff" in repo["repo"]]
    (pin,) = locked()["ruff"]
    assert ruff["rev"] == f"v{pinned(pin)[0]}"


def test_the_version_is_said_once() -> None:
    assert sapnet.__version__ == PROJECT["version"] == metadata.version(PROJECT["name"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "command", "typed", "offered"),
    [
        ("app.cli", "sapnet-service", "sapnet-service sta", "status"),
        ("app.cli", "sapnet-service", "sapnet-service keys rev", "revoke"),
        ("sapnet", "sapnet", "sapnet eva", "evaluate"),
        ("sapnet", "sapnet", "sapnet mmdet imp", "import"),
        ("sapnet", "sapnet", "sapnet train --pre", "--preset"),
    ],
)
def test_completion(module: str, command: str, typed: str, offered: str) -> None:
    variable = f"_{command.replace('-', '_').upper()}_COMPLETE"
    code = f"from {module}.{'main' if module == 'app.cli' else 'cli.main'} import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv[0] = '{command}'; {code}"],
        env={
            **os.environ,
            variable: "complete_bash",
            "COMP_WORDS": typed,
            "COMP_CWORD": str(len(typed.split()) - 1),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert offered in done.stdout.split(), done.stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize("module", ["app.cli", "sapnet"])
def test_completion_is_shown_and_installed(module: str, tmp_path: Path) -> None:
    def call(option: str) -> str:
        script = (
            f"'{sys.executable}' -m {module} {option}; exit $?"  # `exit`: bash stays the parent
        )
        done = subprocess.run(
            ["bash", "-c", script],
            env={**os.environ, "HOME": str(tmp_path), "SHELL": "/bin/bash"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "complete " in call("--show-completion")
    call("--install-completion")
    assert (tmp_path / ".bashrc").read_text().strip()
