"""Bodies that schemathesis makes, nested too deeply, with long members, or larger than allowed.

Each is refused, or does what it says: none is a 500, and what is refused says so as a problem.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.settings import Settings

from .test_openapi import HOOKS, config

LARGEST = 1 << 20
DAMAGE = f"""
import zlib

LARGEST = {LARGEST}


def nested(levels):
    value = 0
    for _ in range(levels):
        value = [value] if levels % 2 else {{"a": value}}
    return value


BAD = (
    lambda: nested(70),
    lambda: nested(301),
    lambda: "x" * (LARGEST // 2),
    lambda: [0] * 100_000,
    lambda: {{str(number): None for number in range(20_000)}},
    lambda: "x" * (2 * LARGEST),
)


@schemathesis.hook
def map_body(context, body):
    number = zlib.crc32(repr(body).encode("utf-8", "replace"))
    bad = BAD[number % len(BAD)]()
    with open("damaged.txt", "a") as file:
        file.write(f"{{number % len(BAD)}}\\n")
    if not isinstance(body, dict) or number % 7 == 0:
        return bad
    names = sorted(body, key=str) + ["colour"]
    return {{**body, names[number // 7 % len(names)]: bad}}
"""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A limit that a test can reach."""
    return settings.model_copy(update={"max_json_bytes": LARGEST})


@pytest.mark.slow
def test_nested_and_oversized_bodies(service: Any, tmp_path: Path) -> None:
    (tmp_path / "schemathesis.toml").write_text(config(service))
    (tmp_path / "hooks.py").write_text(HOOKS + DAMAGE)
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", "schemathesis.toml"]
    checks = "not_a_server_error,content_type_conformance,status_code_conformance"
    options = ["--checks", checks, "--seed", "0", "--max-examples", "15", "--no-color"]
    options += ["--phases", "fuzzing", "--mode", "positive", "--no-shrink"]
    for method in ("POST", "PUT", "PATCH"):
        options += ["--include-method", method]
    options += ["--exclude-path-regex", "^/(datasets|uploads)", "--suppress-health-check", "all"]
    options += ["--header", f"Authorization: Bearer {service.key}"]
    done = subprocess.run(
        [*command, "run", f"{service.url}/openapi.json", *options],
        cwd=tmp_path,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[done.stdout.find("= FAILURES =") :] + done.stderr
    kinds = (tmp_path / "damaged.txt").read_text().split()
    assert set(kinds) == set("012345")
    cases = re.search(r"(\d[\d,]*) generated", done.stdout)
    assert cases is not None, done.stdout
    assert int(cases[1].replace(",", "")) > 50
