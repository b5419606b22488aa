"""docs/integrations/tracking.md, whole."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.service
def test_its_commands_lead_to_curves(run_page: Callable[..., str], tmp_path: Path) -> None:
    said = run_page("tracking.md")
    folder = tmp_path / "newcomer"
    assert (folder / "results" / "masks.json").stat().st_size > 100
    assert "events.out.tfevents" in said
    assert b"train/" in (folder / "runs" / "events.out.tfevents.1").read_bytes()
    assert "'tensorboard': '/jobs/" in said
