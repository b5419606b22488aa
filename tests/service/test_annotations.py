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
        {**{k: a[k] for k in ("id", "image_id", "category_id", "point")}, "mask": None}
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
