"""Masks, polygons and nested JSON that would kill the API, sent to one that may die alone."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.settings import Settings

from .answers import pointers

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_every_one_is_refused(settings: Settings, dataset_id: str, done: str) -> None:
    command = [sys.executable, "-m", "tests.jobs.hostile_requests"]
    sent = subprocess.run(
        [*command, str(settings.data_dir), dataset_id, done],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert sent.returncode == 0, sent.stdout[-1000:] + sent.stderr[-3000:]
    *answers, end = (line for line in map(json.loads, sent.stdout.splitlines()) if "name" in line)
    assert len(answers) > 300
    assert end == {"name": "the end", "jobs": 1}, "the one that was there before"
    assert [a for a in answers if a["status"] not in (400, 422)] == []
    assert [a for a in answers if "nested" not in a["text"] and "deep" in a["name"]] == []
    small = [a for a in answers if a["grown_mb"] > 300]
    assert small == []


def truth(image: dict[str, Any], segmentation: Any) -> dict[str, Any]:
    return {
        "images": [{"file_name": "a.png", **image}],
        "categories": [{"id": 0, "name": "cell"}],
        "annotations": [
            {"id": 501, "image_id": image["id"], "category_id": 0, "segmentation": segmentation}
        ],
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("image", "pointer"),
    [
        ({"id": 12, "width": 40, "height": 31}, "/truth/images/0"),
        ({"id": 12, "width": 30, "height": 40}, "/truth/images/0"),
        ({"id": 99, "width": 4000, "height": 3000}, "/truth/images/0"),
        ({"id": 12, "width": True, "height": 30}, "/truth/images/0/width"),
        ({"id": 12, "width": 40, "height": 0}, "/truth/images/0/height"),
    ],
)
def test_truth_is_of_the_images_that_were_sent(
    client: TestClient, dataset_id: str, image: dict[str, Any], pointer: str
) -> None:
    body = {"dataset_id": dataset_id, "truth": truth(image, [[0, 0, 5, 0, 5, 5]])}
    answer = client.post("/jobs/train", json=body)
    assert pointers(answer) == [pointer]
    if pointer.endswith("/0"):
        error = answer.json()["errors"][0]
        assert f"the dataset's image {image['id']} has 40×30" in error["detail"]
        assert error["hint"]


@pytest.mark.slow
def test_truth_may_be_of_more_images(client: TestClient, dataset_id: str) -> None:
    """A whole split's, say, of which the data set has some images."""
    image = {"id": 5, "width": 640, "height": 480}
    body = {"dataset_id": dataset_id, "truth": truth(image, [[0, 0, 500, 0, 500, 400]])}
    assert client.post("/jobs/train", json=body).status_code == 202
