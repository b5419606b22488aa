"""Decoded images of all requests share a budget; answers say their frame."""

import io
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from app.errors import Unavailable
from app.storage import decode_budget
from app.storage.decode_budget import DecodeBudget

ROOT = Path(__file__).parents[2]


def photo(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30)).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("accept", ["application/json", "image/png"])
def test_predictions_say_their_frame(
    client: TestClient, model_id: str, orientation: int, accept: str
) -> None:
    answer = client.post(
        "/predict",
        data={"model": model_id},
        files={"file": photo(orientation)},
        headers={"Accept": accept},
    )
    assert answer.status_code == 200, answer.text
    turned = f";exif-orientation={orientation}" if orientation > 1 else ""
    assert answer.headers["Coordinate-Frame"] == f"stored{turned}"
    if accept == "image/png":
        assert Image.open(io.BytesIO(answer.content)).size == (40, 30)
    else:
        assert answer.json()[0]["segmentation"]["size"] == [30, 40]


@pytest.mark.slow
def test_lists_of_predictions_say_their_frame(client: TestClient, model_id: str) -> None:
    dataset = client.get("/datasets").json()["datasets"][0]["id"]
    image = client.get(f"/datasets/{dataset}/images").json()["images"][0]["id"]
    known = client.get("/predict", params={"model": model_id, "image": image})
    many = client.post("/predict", json={"model": model_id, "images": [image]})
    for answer in (known, many):
        assert answer.headers.get("Coordinate-Frame") == "stored", answer.text


def test_room_is_shared_in_the_order_of_asking() -> None:
    budget, order = DecodeBudget(100), []

    def ask(name: str, pixels: int, asked: threading.Event) -> None:
        asked.set()
        with budget.room(pixels, 60):
            order.append(name)

    with budget.room(60):
        with budget.room(40):
            pass
        threads = []
        for name, pixels in (("large", 90), ("small", 20)):  # the small one would fit at once
            asked = threading.Event()
            thread = threading.Thread(target=ask, args=(name, pixels, asked))
            thread.start()
            asked.wait(30)
            while len(budget._waiting) <= len(threads):
                pass
            threads.append(thread)
        assert order == []
    for thread in threads:
        thread.join(60)
    assert order == ["large", "small"]


def test_who_waits_too_long_is_told_to_come_again() -> None:
    budget = DecodeBudget(100)
    with budget.room(60), pytest.raises(Unavailable) as told, budget.room(50, 0.01):
        pass
    assert int(told.value.headers["Retry-After"]) > 0
    with budget.room(100, 0.01):  # nothing of the refused one is left
        pass


def test_an_image_larger_than_the_budget_is_decoded_alone() -> None:
    budget = DecodeBudget(100)
    with budget.room(500, 0.01), pytest.raises(Unavailable), budget.room(1, 0.01):
        pass


@pytest.mark.slow
def test_without_room_the_answer_is_503(
    client: TestClient, model_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_budget, "REQUEST_PATIENCE", 0.01)
    sent: dict[str, Any] = {"data": {"model": model_id}, "files": {"file": photo(1)}}
    with decode_budget.DECODING.room(decode_budget.CAPACITY):
        answer = client.post("/predict", **sent)
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
        assert int(answer.headers["Retry-After"]) > 0
    assert client.post("/predict", **sent).status_code == 200


MEASURED = """
import io, os, resource, sys, tempfile, threading
from pathlib import Path
import numpy as np
from PIL import Image
import torch
from app.predict.model_cache import overlay_png
from app.storage.images import decoded_image
from sapnet.data.samples import to_tensor
from sapnet.types import Category

def resident():
    text = Path("/proc/self/status").read_text()
    return {line.split(":")[0]: int(line.split()[1]) >> 10
            for line in text.splitlines() if line.startswith(("VmRSS", "VmHWM"))}

path = Path(sys.argv[1])
small = np.zeros((64, 64, 3), np.uint8)
to_tensor(small, (64, 64)); overlay_png(small, [], [])
idle = resident()["VmRSS"]

def ask():
    with decoded_image(path, 100_000_000) as image:
        to_tensor(image, (512, 512))

threads = [threading.Thread(target=ask) for _ in range(3)]
[t.start() for t in threads]; [t.join() for t in threads]
print(resident()["VmHWM"] - idle)
"""


@pytest.mark.slow
def test_three_large_images_at_once_take_the_memory_of_one(tmp_path: Path) -> None:
    """A PNG of a few hundred KB, of 100 million pixels with transparency."""
    path = tmp_path / "large.png"
    Image.new("RGBA", (10_000, 10_000), (10, 20, 30, 200)).save(path)
    assert path.stat().st_size < 1 << 20
    command = [sys.executable, "-c", MEASURED, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) < 1500  # MB
