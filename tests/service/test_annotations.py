"""GET /datasets/{id}/annotations: what a data set says of its objects."""

from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import update
from starlette.testclient import TestClient

from app.db.models import Annotation

pytestmark = pytest.mark.both_stacks


@pytest.mark.slow
def test_all_of_them_in_pages(client: TestClient, app: FastAPI, kit: Any) -> None:
    document = kit.points(images=2, each=3)
    dataset = kit.upload(client, document, kit.images()).json()
    url = f"/datasets/{dataset['id']}/annotations"
    whole = client.get(url).json()
    wanted = [
        {k: a[k] for k in ("id", "image_id", "category_id", "point")}
        | {"mask": None, "bbox": None, "pointed": True}
        for a in document["annotations"]
    ]
    assert whole == {"annotations": wanted, "next": None}
    seen: list[Any] = []
    cursor = None
    while True:
        page = client.get(url, params={"limit": 4} | ({"cursor": cursor} if cursor else {})).json()
        assert len(page["annotations"]) <= 4
        seen += page["annotations"]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == wanted
    of_two = client.get(url, params={"image_id": 2}).json()["annotations"]
    assert of_two == wanted[3:]
    assert client.get(url, params={"image_id": 3}).json()["annotations"] == []
    mask = {"size": [30, 40], "counts": "o00"}
    with app.state.database.begin() as session:
        session.execute(
            update(Annotation).where(Annotation.annotation_id == 101).values(segmentation=mask)
        )
    assert [a["mask"] for a in client.get(url).json()["annotations"]][:3] == [None, mask, None]


@pytest.mark.slow
def test_of_no_data_set(client: TestClient) -> None:
    assert client.get("/datasets/none/annotations").status_code == 404
    assert client.get("/datasets/none/annotations", params={"limit": 0}).status_code == 422


@pytest.mark.slow
def test_a_mask_that_is_sent_is_kept(client: TestClient, kit: Any) -> None:
    document = kit.points(images=1, each=2)
    mask = {"size": [30, 40], "counts": "Pf02O001M3O"}
    document["annotations"][1]["mask"] = {"size": [30, 40], "counts": [10, 5, 1185]}
    dataset = kit.upload(client, document, kit.images(1)).json()
    listed = client.get(f"/datasets/{dataset['id']}/annotations").json()["annotations"]
    assert listed[0]["mask"] is None
    assert listed[1]["mask"]["size"] == [30, 40]
    document["annotations"][0]["mask"] = mask
    answer = kit.upload(client, document, kit.images(1))
    assert [e["pointer"] for e in answer.json()["errors"]] == ["/annotations/0/mask"]


@pytest.mark.slow
def test_points_boxes_and_masks_of_one_image(client: TestClient, kit: Any) -> None:
    document, boxes = kit.points(images=1, each=4), ([1, 2, 7.5, 6], [9, 9, 40, 2])
    first, second, third, _ = document["annotations"]
    first |= {"point": [3, 4], "bbox": boxes[0]}
    second |= {"bbox": boxes[1], "point": None}
    third |= {"mask": {"size": [30, 40], "counts": [10, 5, 1185]}, "bbox": [1, 1, 0, 0]}

    def sent(**fields: str) -> tuple[Any, list[Any]]:
        answer = kit.upload(client, document, kit.images(1), **fields)
        assert answer.status_code == 201, answer.text
        url = f"/datasets/{answer.json()['id']}/annotations"
        return answer.json(), client.get(url).json()["annotations"]

    dataset, listed = sent()
    assert dataset["annotations"] == 4
    counts = {name: dataset["report"][name] for name in ("points", "boxes", "masks")}
    assert counts == {"points": 3, "boxes": 2, "masks": 1}
    known = [(a["point"], a["bbox"], a["pointed"]) for a in listed]
    assert known[:2] == [([3, 4], boxes[0], True), ([24.5, 10], [9, 9, 31, 2], False)]
    assert [more for _, *more in known[2:]] == [[None, True]] * 2
    (warning,) = dataset["report"]["warnings"]
    assert (warning["pointer"], "cut" in warning["detail"]) == ("/annotations/1/bbox", True)

    dataset, listed = sent(boxes="ignore")
    assert (dataset["annotations"], dataset["report"]["boxes"]) == (3, 0)
    assert [a["bbox"] for a in listed] == [None] * 3

    first["point"] = [12, 4]
    refused = kit.upload(client, document, kit.images(1), boxes="maybe").json()["errors"]
    assert [(e["part"], e["pointer"]) for e in refused] == [
        ("boxes", ""),
        ("annotations", "/annotations/0/bbox"),
    ]
