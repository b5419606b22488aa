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


@pytest.mark.slow
@pytest.mark.parametrize(("document", "places"), BAD)
def test_bad_ones_are_refused_where_they_stand(
    client: TestClient, dataset_id: str, document: Any, places: set[str]
) -> None:
    answer = post(client, dataset_id, document)
    assert set(pointers(answer)) == {f"/proposals/document{place}" for place in places}
    assert all(error["hint"] for error in answer.json()["errors"])
    assert client.get("/jobs").json()["jobs"] == []


@pytest.mark.slow
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


@pytest.mark.slow
def test_of_many_bad_ones_the_first_are_listed(client: TestClient, dataset_id: str) -> None:
    answer = post(client, dataset_id, [None] * 5_000)
    assert answer.status_code == 422
    errors = answer.json()["errors"]
    assert len(errors) < 1_100
    assert "more" in errors[-1]["detail"]


GOOD = {"segmentation": SQUARE, "score": 0.5}
MANY = 2_000
"""So many make a body whose documents are read in pieces."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("document", "places"),
    [
        ({"501": [GOOD] * MANY}, []),
        ([GOOD | {"annotation_id": 501}] * MANY, []),
        ({"501": [GOOD] * MANY + [3], "502": [GOOD, {}]}, ["/501/2000", "/502/1/segmentation"]),
        ([GOOD | {"annotation_id": 501}] * MANY + [None, GOOD], ["/2000", "/2001"]),
        ({"501": GOOD, "900": [GOOD] * MANY, "9": [GOOD]}, ["/501", "/9/0"]),
        ({"501": "x" * (1 << 17)}, ["/501"]),
    ],
)
def test_large_documents(
    client: TestClient, dataset_id: str, document: Any, places: list[str]
) -> None:
    answer = post(client, dataset_id, document)
    if places:
        assert pointers(answer) == [f"/proposals/document{place}" for place in places]
    else:
        assert answer.status_code == 202


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "places"),
    [
        ({"truth": [0] * 50_000}, ["/truth"]),
        ({"proposals": {"kind": "given", "document": "x" * 100_000}}, ["/proposals"]),
        ({"proposals": ["x" * 100_000]}, ["/proposals"]),
        ({"overrides": dict.fromkeys(map(str, range(9_000)), 1)}, ["/overrides"]),
        ({"truth": {"images": [], "info": "x" * 100_000}}, ["/truth/images", "/truth"]),
        ([0] * 50_000, [""]),
    ],
)
def test_what_else_a_large_body_may_be(
    client: TestClient, dataset_id: str, body: Any, places: list[str]
) -> None:
    if isinstance(body, dict):
        body["dataset_id"] = dataset_id
    found = pointers(client.post("/jobs/train", json=body))
    assert found
    assert all(any(f.startswith(place) for place in places) for f in found)


@pytest.mark.slow
@pytest.mark.parametrize("many", [1, MANY])
def test_null_is_no_document_however_large_the_body_is(
    client: TestClient, dataset_id: str, many: int
) -> None:
    given: dict[str, Any] = {"kind": "given", "document": {"501": [GOOD] * many}}
    body: dict[str, Any] = {"dataset_id": dataset_id, "truth": None, "proposals": given}
    assert client.post("/jobs/train", json=body).status_code == 202
    body = {"dataset_id": dataset_id, "truth": {"info": "x" * 100 * many}}
    body["proposals"] = {"kind": "given", "document": None}
    found = pointers(client.post("/jobs/train", json=body))
    assert any(place.endswith("/document") for place in found), found


@pytest.mark.slow
@pytest.mark.parametrize("cut", [b"", b"}}", b", NaN]}", b"\xff"])
def test_a_large_body_that_is_no_json(client: TestClient, dataset_id: str, cut: bytes) -> None:
    body = b'{"dataset_id": "%s", "truth": {"images": [' % dataset_id.encode() + b"0, " * 40_000
    headers = {"content-type": "application/json"}
    answer = client.post("/jobs/train", content=body + cut, headers=headers)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
