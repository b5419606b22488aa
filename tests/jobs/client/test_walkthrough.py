"""`examples/walkthrough.py`, whole, against a service that trains in earnest, for a moment."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image as PILImage
from pycocotools.coco import COCO

from app.db.session import Database

pytestmark = [
    pytest.mark.service,
    pytest.mark.slow,
]

SCRIPT = Path(__file__).resolve().parents[3] / "examples" / "walkthrough.py"
TRAINER = [sys.executable, "-m", "sapnet.cli", "run"]


def test_all_its_cells(
    start: Callable[..., subprocess.Popen[bytes]],
    service_env: dict[str, str],
    tmp_path: Path,
    until: Callable[..., None],
    database: Database,
) -> None:
    start("app.cli", "serve", "--port", "0", SAPNET_TRAINER_COMMAND=json.dumps(TRAINER))
    said = tmp_path / "output.txt"
    until(lambda: "sapnet-service is at " in said.read_text(), 120)
    url = said.read_text().split("sapnet-service is at ")[1].split()[0]
    out = tmp_path / "walk"
    env = {**service_env, "SAPNET_URL": url, "SHORT": "1", "OUT": str(out)}
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], env=env, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("doubtful.png", "corrected.png", "predicted.png"):
        assert PILImage.open(out / name).size == (112, 96)
    assert (out / "doubtful.png").read_bytes() != (out / "corrected.png").read_bytes()
    assert "it is corrected now" in done.stdout
    points = json.loads((out / "scenes" / "points.json").read_text())["annotations"]
    (coco,) = (out / "exports").glob("*.json")
    assert len(COCO(str(coco)).anns) == len(points)
    assert len(list((out / "exports").glob("*.zip"))) == 2
    assert (out / "model.pt").stat().st_size > 100_000
