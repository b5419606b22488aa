"""docs/integrations/single-sign-on.md, whole, with a real OpenID provider."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.service
def test_its_commands_lead_to_masks(run_page: Callable[..., str], tmp_path: Path) -> None:
    said = run_page("single-sign-on.md", ports=(9400,))
    assert (tmp_path / "newcomer" / "results" / "masks.json").stat().st_size > 100
    assert "['photos']" in said, "the user sees what the key of that name has made"
