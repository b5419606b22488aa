"""A job's masks of images and classes with hard names, through the service to a reader's hands."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import supervision
from fastapi.testclient import TestClient
from PIL import Image

from worker.jobs.execute import execute
from worker.runtime.types import Outcome, WorkerContext


def image(colour: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), (colour, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("format", ["yolo-seg", "coco"])
def test_names_of_images_and_classes(
    client: TestClient,
    new_worker: Callable[..., WorkerContext],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    format: str,
) -> None:
    names = ["images/a.png", "images\\b.png", "frame_000000"]
    sent = {"images/a.png": image(10), "images/b.png": image(20), "frame_000000.PNG": image(30)}
    document = {
        "images": [{"id": n, "file_name": name} for n, name in enumerate(names, 1)],
        "annotations": [
            {"id": n, "image_id": n, "category_id": n % 2 + 1, "point": [10, 10]} for n in (1, 2, 3)
        ],
        "categories": [{"id": 1, "name": "apple"}, {"id": 2, "name": "apple"}],
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in sent.items():
            archive.writestr(name, data)
    files = [
        ("annotations", ("points.json", json.dumps(document).encode())),
        ("images", ("images.zip", buffer.getvalue())),
    ]
    answer = client.post("/datasets", files=files)
    assert answer.status_code == 201, answer.text
    job = client.post("/jobs/train", json={"dataset_id": answer.json()["id"]}).json()["id"]
    assert execute(job, new_worker()) is Outcome.ENDED
    body = {"format": format, "images": True}
    export = client.post(f"/jobs/{job}/exports", json=body).json()["id"]
    assert execute(export, new_worker()) is Outcome.ENDED

    report = client.get(f"/exports/{export}").json()["report"]
    assert report["round_trip"]["mean_iou"] > 0.9
    assert report["left_out"] == []
    assert any("'apple' (id 2) is 'apple_2'" in note for note in report["notes"])
    root = tmp_path / "unpacked"
    with zipfile.ZipFile(io.BytesIO(client.get(f"/exports/{export}/file").content)) as packed:
        packed.extractall(root)
    monkeypatch.chdir(tmp_path)
    if format == "coco":
        found = supervision.DetectionDataset.from_coco(
            str(root / "images"), str(root / "annotations/instances_default.json")
        )
    else:
        found = supervision.DetectionDataset.from_yolo(
            str(root / "images/train"), str(root / "labels/train"), str(root / "data.yaml")
        )
    assert found.classes == ["apple", "apple_2"]
    # OpenCV has blue first.
    seen = {int(pixels[0, 0, 2]): objects.class_id.tolist() for _, pixels, objects in found}
    assert seen == {10: [1], 20: [0], 30: [1]}
