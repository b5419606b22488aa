"""docs/integrations/notebooks.md, whole."""

from pathlib import Path

import pytest
from PIL import Image


@pytest.mark.slow
@pytest.mark.service
def test_its_commands_lead_to_masks(run_page, tmp_path: Path) -> None:
    said = run_page("notebooks.md")
    drawn = Image.open(tmp_path / "newcomer" / "first.png").convert("RGB")
    name = sorted(p.name for p in (tmp_path / "newcomer" / "photos").iterdir())[0]
    photo = Image.open(tmp_path / "newcomer" / "photos" / name).convert("RGB")
    assert drawn.size == photo.size
    assert "image included" in said
