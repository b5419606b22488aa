"""Every extra of pyproject.toml: without its packages, what needs them names it in one line.

`tests/jobs/client/test_light_install.py` has the same of an environment that has no extra at all.
"""

import os
import subprocess
import sys
import tomllib
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from sapnet.utils.extras import missing_extra

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
NOT_IMPORTED = {"dev", "docs"}  # make and mkdocs use them
PARTS = {"opentelemetry": ["opentelemetry.sdk", "opentelemetry.exporter"]}
"""Of a package that FastAPI brings a part of, what the extra adds."""

RUN = """
import runpy, sys
sys.argv = [{module!r}, *{arguments!r}]
runpy.run_module({module!r}, run_name="__main__")
"""
TRACK = """
from pathlib import Path
from sapnet.utils.tracking.base import RunInfo, error_in_words
from sapnet.utils.tracking.session import open_tracker
try:
    open_tracker({kind!r}, RunInfo(key="a", name="a", folder=Path("runs")))
except ModuleNotFoundError as error:
    raise SystemExit(error_in_words(error))
"""
LOOK = """
from sapnet_client import MissingPackage, views
try:
    {use}
except MissingPackage as error:
    raise SystemExit(str(error))
"""
SAM2 = """
from sapnet.errors import InvalidConfig
from sapnet.proposals.sam.sam2 import load_sam2
try:
    load_sam2()
except InvalidConfig as error:
    raise SystemExit(str(error))
"""


def run(module: str, *arguments: str) -> str:
    return RUN.format(module=module, arguments=arguments)


USES = {
    "service": [run("app.cli", "serve"), run("sapnet", "run", "job.json")],
    "sam2": [SAM2],
    "onnx": [run("sapnet", "predict", "model.onnx", "a.png")],
    "cvat": [run("app.cli", "cvat", "pull", "3")],
    "hub": [run("app.cli", "hub", "push-model", "best", "anna/cells")],
    "mcp": [run("app.cli", "mcp")],
    "notebook": [LOOK.format(use=f"views.{use}([])") for use in ("to_pandas", "to_supervision")],
    "oidc": [run("app.cli", "serve", "--port", "0")],
    "tracking": [TRACK.format(kind=kind) for kind in ("tensorboard", "mlflow", "wandb")],
    "otel": [run("app.cli", "serve", "--port", "0")],
}
SETTINGS = {
    "oidc": {
        "SAPNET_OIDC_ISSUER": "http://127.0.0.1:9",
        "SAPNET_OIDC_CLIENT_ID": "sapnet",
        "SAPNET_OIDC_DEFAULT_SCOPE": "read",
    },
    "otel": {"SAPNET_OTEL_ENDPOINT": "http://127.0.0.1:9"},
}


_distributions = cache(metadata.packages_distributions)


def packages_of(extra: str) -> list[str]:
    """Top-level packages that an extra brings and the base install does not."""
    named = {canonicalize_name(Requirement(text).name) for text in EXTRAS[extra]}
    named -= {canonicalize_name(Requirement(text).name) for text in PROJECT["dependencies"]}
    brought = _distributions().items()
    there = [top for top, by in brought if named & {canonicalize_name(name) for name in by}]
    return sorted(top for top in there if top.isidentifier() and not top.startswith("_"))


def test_every_extra_is_tested() -> None:
    assert set(USES) == set(EXTRAS) - NOT_IMPORTED


@pytest.mark.slow  # looks through all that is installed
@pytest.mark.parametrize("extra", sorted(set(EXTRAS) - NOT_IMPORTED))
def test_a_package_that_is_missing_is_of_its_extra(extra: str) -> None:
    packages = packages_of(extra)
    assert packages
    for package in packages:
        said = missing_extra(ModuleNotFoundError(name=package)) or ""
        assert said.endswith(f"pip install 'sapnet-service[{extra}]'"), package


@pytest.mark.slow
@pytest.mark.parametrize(
    ("extra", "use"),
    [(extra, use) for extra, uses in USES.items() for use in uses],
    ids=[f"{extra}-{number}" for extra, uses in USES.items() for number, _ in enumerate(uses)],
)
def test_what_needs_it_says_so_in_one_line(extra: str, use: str, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()
    (tmp_path / "a.png").touch()
    (tmp_path / "job.json").write_text("{}")
    blocked = [part for name in packages_of(extra) for part in PARTS.get(name, [name])]
    block = f"import sys\nsys.modules.update(dict.fromkeys({blocked!r}))\n"
    quiet = {k: v for k, v in os.environ.items() if not k.startswith("SAPNET")}
    ours = {"PYTHONPATH": str(ROOT), "SAPNET_DATA_DIR": str(tmp_path / "data")}
    done = subprocess.run(
        [sys.executable, "-c", block + use],
        cwd=tmp_path,
        env={**quiet, **ours, **SETTINGS.get(extra, {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    (said,) = [line for line in done.stderr.splitlines() if line.strip()]
    assert f"pip install 'sapnet-service[{extra}]'" in said
