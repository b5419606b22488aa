"""docs/integrations/formats.md, whole."""

import json
import zipfile
from pathlib import Path

import pytest
import yaml


@pytest.mark.slow
@pytest.mark.service
def test_its_commands_lead_to_masks_with_the_same_split(run_page, tmp_path: Path) -> None:
    said = run_page("formats.md")
    folder = tmp_path / "newcomer"
    assert "{'train': 2, 'val': 1, 'test': 1}" in said
    points = json.loads((folder / "points.json").read_text())["annotations"]
    masks = json.loads((folder / "results" / "masks.json").read_text())
    assert len(masks["annotations"] if isinstance(masks, dict) else masks) == len(points)
    (exported,) = (folder / "out").glob("*yolo*.zip")
    with zipfile.ZipFile(exported) as archive:
        described = yaml.safe_load(archive.read("data.yaml"))
        assert described["test"] == "images/test"
        assert len([n for n in archive.namelist() if n.startswith("images/train/")]) == 2
