"""docs/integrations/hub.md, whole: a real training, and a hub that speaks its HTTP API."""

import json
import sys
from pathlib import Path

import pytest

from tests.integrations.hub_server import TOKEN, serve


@pytest.mark.slow
@pytest.mark.service
def test_its_commands_lead_up_and_down_again(run_page, tmp_path: Path) -> None:
    with serve() as hub:
        environment = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
        trainer = [sys.executable, str(Path(__file__).with_name("short_trainer.py"))]
        environment |= {"SAPNET_TRAINER_COMMAND": json.dumps(trainer)}
        run_page("hub.md", HF_HOME=str(tmp_path / "hf"), **environment)
        model = hub.repositories["models/anna/apples-solov2"]
        dataset = hub.repositories["datasets/anna/apples"]
    assert model.private
    assert sorted(model.files) == ["README.md", "config.json", "model.safetensors"]
    assert any(name.startswith("train/masks/") for name in dataset.files)
    predictions = tmp_path / "newcomer" / "predictions" / "predictions.json"
    assert isinstance(json.loads(predictions.read_text()), list)
