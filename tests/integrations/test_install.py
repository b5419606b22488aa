"""docs/integrations/install.md and documentation.md, whole."""

import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.distributions import build, copy_clone, repack, required

ROOT = Path(__file__).resolve().parents[2]
RunPage = Callable[..., str]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    folder = tmp_path / "newcomer"
    folder.mkdir(exist_ok=True)
    copy_clone(ROOT, folder)
    return folder


@pytest.mark.slow
@pytest.mark.service
def test_uvx_leads_to_masks_without_torch(run_page: RunPage, clone: Path, tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    build(clone, packages)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for distribution in required(project["dependencies"]).values():
        repack(distribution, packages)
    offline = {"UV_OFFLINE": "1", "UV_NO_INDEX": "1", "UV_NO_CONFIG": "1"}
    offline |= {"UV_FIND_LINKS": str(packages), "UV_PYTHON": sys.executable}
    said = run_page("install.md", UV_CACHE_DIR=str(tmp_path / "cache"), **offline)
    assert (clone / "results" / "masks.json").stat().st_size > 100
    assert "torch: None" in said
    assert f"sapnet-service {project['version']}" in said


@pytest.mark.slow
def test_the_site_is_built_as_its_page_says(run_page: RunPage, clone: Path) -> None:
    said = run_page("documentation.md", NO_MKDOCS_2_WARNING="1")
    assert f"pages: {(clone / 'build/site/index.html').as_uri()}" in said
