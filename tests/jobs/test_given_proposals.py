"""Masks in a request as proposals: what the trainer would refuse is refused with the request."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from .answers import pointers

SQUARE = [[1, 1, 9, 1, 9, 9, 1, 9]]
BAD: list[tuple[Any, set[str]]] = [
    ({"501": [{"segmentation": [[1, 2, 3, 4]]}]}, {"/501/0/segmentation"}),
    ({"501": [{"segmentation": []}]}, {"/501/0/segmentation"}),
    ({"501": [{}]}, {"/501/0/segmentation"}),
    ({"501": [{"segmentation": SQUARE}, 3]}, {"/501/1"}),
    ({"501": {"segmentation": SQUARE}}, {"/501"}),
    ({"501": [{"segmentation": SQUARE, "score": 2}]}, {"/501/0/score"}),
    ({"501": [{"segmentation": SQUARE, "score": None}]}, {"/501/0/score"}),
    ({"501": [{"segmentation": {"size": [40, 30], "counts": [1200]}}]}, {"/501/0/segmentation"}),
    ({"501": [{"segmentation": {"size": [30, 40], "counts": "~"}}]}, {"/501/0/segmentation"}),
    ({"501": [{"segmentation": [[1, 1, 9, 1, 9, 2e9]]}]}, {"/501/0/segmentation"}),
    ({"9": [{"segmentation": SQUARE}]}, {"/9/0"}),
    ({"9" * 400: [{"segmentation": SQUARE}]}, {f"/{'9' * 400}/0"}),
    ({"a/b": [{"segmentation": SQUARE}]}, {"/a~1b/0"}),
    ([{"annotation_id": 501}], {"/0/segmentation"}),
    ([{"segmentation": SQUARE}], {"/0"}),
    ([{"annotation_id": 501, "segmentation": SQUARE}, None, "x"], {"/1", "/2"}),
    ([{"annotation_id": True, "segmentation": SQUARE}], {"/0"}),
]


def post(client: TestClient, dataset_id: str, document: Any) -> Any:
    proposals = {"kind": "given", "document": document}
    return client.post("/jobs/train", json={"dataset_id": dataset_id, "proposals": proposals})


@pytest.mark.parametrize(("document", "places"), BAD)
def test_bad_ones_are_refused_where_they_stand(
    client: TestClient, dataset_id: str, document: Any, places: set[str]
) -> None:
    answer = post(client, dataset_id, document)
    assert set(pointers(answer)) == {f"/proposals/document{place}" for place in places}
    assert all(error["hint"] for error in answer.json()["errors"])
    assert client.get("/jobs").json()["jobs"] == []


@pytest.mark.parametrize(
    "document",
    [
        {},
        [],
        {"501": []},
        {"501": [{"segmentation": SQUARE, "score": 0.5}]},
        [{"annotation_id": 501, "segmentation": {"size": [30, 40], "counts": [1100, 100]}}],
    ],
)
def test_good_ones_become_a_job(client: TestClient, dataset_id: str, document: Any) -> None:
    assert post(client, dataset_id, document).status_code == 202


def test_of_many_bad_ones_the_first_are_listed(client: TestClient, dataset_id: str) -> None:
    answer = post(client, dataset_id, [None] * 5_000)
    assert answer.status_code == 422
    errors = answer.json()["errors"]
    assert len(errors) < 1_100
    assert "more" in errors[-1]["detail"]
