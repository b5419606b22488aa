"""docs/integrations/agents.md, whole."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "integrations" / "agents.md"


@pytest.mark.slow
@pytest.mark.service
def test_its_commands_lead_to_masks(run_page, tmp_path: Path) -> None:
    said = run_page("agents.md", ports=(8765,))
    folder = tmp_path / "newcomer"
    assert Image.open(folder / "worst.jpg").width > 100
    (exported,) = (folder / "masks").rglob("*.json")
    points = json.loads((folder / "points.json").read_text())["annotations"]
    assert len(json.loads(exported.read_text())["annotations"]) == len(points)
    assert "train" in said, "its progress"


def test_it_names_every_tool(tmp_path: Path) -> None:
    from app.cli.agents.folders import Folders
    from app.cli.agents.server import make_server

    server = make_server(lambda show: None, Folders.of([tmp_path]), allow_delete=True)  # type: ignore[arg-type,return-value]
    named = set(re.findall(r"^\| `(\w+)`", PAGE.read_text(), re.MULTILINE))
    assert named == {tool.name for tool in server._tool_manager.list_tools()}
