"""Masks go out as COCO and come in again, byte for byte."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image
from pycocotools import mask as coco
from pycocotools.coco import COCO

from app.db.models import Dataset
from worker.jobs.execute import execute
from worker.runtime.types import Outcome, WorkerContext

pytestmark = pytest.mark.both_stacks


def make_image() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def upload(client: TestClient) -> Callable[[Any], str]:
    def send(document: Any) -> str:
        files = [("annotations", ("points.json", json.dumps(document).encode()))]
        files += [("images", (f"{i}.png", make_image())) for i in (1, 2)]
        answer = client.post("/datasets", files=files)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    return send


@pytest.fixture
def exported(
    client: TestClient, upload: Callable[[Any], str], new_worker: Callable[..., WorkerContext]
) -> tuple[bytes, dict[int, str]]:
    """A job's masks as a COCO file; and by id as the service has them."""
    points = [(11, 1, 0.5, 0.5), (12, 1, 20.2, 29.9), (13, 1, 21.5, 27.0), (21, 2, 39.5, 10.0)]
    document = {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in (2, 1)],
        "annotations": [
            {"id": id_, "image_id": image, "category_id": 5, "point": [x, y]}
            for id_, image, x, y in points
        ],
        "categories": [{"id": 5, "name": "cell"}],
    }
    dataset = upload(document)
    job = client.post("/jobs/train", json={"dataset_id": dataset}).json()["id"]
    assert execute(job, new_worker()) is Outcome.ENDED
    export = client.post(f"/jobs/{job}/exports", json={"format": "coco"}).json()["id"]
    assert execute(export, new_worker()) is Outcome.ENDED
    masks = client.get(f"/jobs/{job}/pseudo-masks").json()["annotations"]
    data = client.get(f"/exports/{export}/file").content
    return data, {mask["id"]: mask["segmentation"]["counts"] for mask in masks}


@pytest.mark.slow
def test_pycocotools_loads_it(exported: tuple[bytes, dict[int, str]], tmp_path: Path) -> None:
    data, masks = exported
    (tmp_path / "instances.json").write_bytes(data)
    found = COCO(tmp_path / "instances.json")
    assert {id_: a["segmentation"]["counts"] for id_, a in found.anns.items()} == masks
    for id_, annotation in found.anns.items():
        assert found.annToMask(annotation).sum() == annotation["area"], id_


@pytest.mark.slow
def test_in_again_as_a_data_set_with_truth(
    client: TestClient,
    upload: Any,
    exported: tuple[bytes, dict[int, str]],
    storage: Any,
    database: Any,
) -> None:
    data, masks = exported
    again = upload(json.loads(data))
    assert client.get(f"/datasets/{again}").json()["report"]["truth"] == "annotations"
    with database.read() as session:
        truth = json.loads(storage.read(session.get_one(Dataset, again).truth_sha))
    assert {a["id"]: a["segmentation"]["counts"] for a in truth["annotations"]} == masks


@pytest.mark.slow
def test_in_again_as_confirmed_masks(
    client: TestClient, upload: Any, exported: tuple[bytes, dict[int, str]]
) -> None:
    data, masks = exported
    document = json.loads(data)
    for annotation in document["annotations"]:
        annotation["mask"] = annotation.pop("segmentation")
    again = upload(document)
    listed = client.get(f"/datasets/{again}/annotations").json()["annotations"]
    assert {a["id"]: a["mask"]["counts"] for a in listed} == masks
    assert all(coco.area(a["mask"]) > 0 for a in listed)
