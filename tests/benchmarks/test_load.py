"""benchmarks/load.py: a run of a second is sound, and its section is written in place."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "load.py"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("load", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_section_is_put_between_its_marks(load: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "reliability.md"
    load.write_section(path, "first")
    path.write_text(f"{path.read_text()}\n## What others wrote\n")
    load.write_section(path, "second")
    text = path.read_text()
    assert "first" not in text
    assert text.index(load.BEGIN) < text.index("second") < text.index(load.END)
    assert text.startswith("# Reliability\n")
    assert text.endswith("## What others wrote\n")


def test_figures(load: ModuleType) -> None:
    assert load.figures([], 1.0)["p99_ms"] == 0
    found = load.figures([i / 1000 for i in range(1, 1001)], 2.0)
    assert found["requests"] == 1000
    assert found["per_second"] == 500
    assert found["p50_ms"] == pytest.approx(500.5)
    assert found["p99_ms"] == pytest.approx(990.01)
    assert load.figures([0.001, 0.002], 1.0)["p99_ms"] <= 2  # never above the worst
    assert found["max_ms"] == 1000


@pytest.mark.service
def test_a_second_of_it(tmp_path: Path) -> None:
    options = ["--seconds", "1", "--clients", "8", "--images", "2", "--fake"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *options, "--json", str(tmp_path / "load.json")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "load.json").read_text())
    assert found["errors"] == 0
    assert found["job"]["after"] == "running"
    assert {"/jobs/{job}/pseudo-masks?limit=100", "/metrics"} <= set(found["endpoints"])
    assert found["empty"]["requests"] > 0
    assert found["held_up_ms"] >= 0
