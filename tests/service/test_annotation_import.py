"""Data sets from CVAT, Label Studio and Labelme, and masks that go out and come in again."""

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from worker.jobs.execute import execute
from worker.runtime.types import Outcome, WorkerContext

LATER = {"Prefer": "respond-async"}
CVAT = """<annotations><version>1.1</version><meta><job><labels><label><name>cat</name></label>
</labels></job></meta><image id="7" name="1.png" width="40" height="30">
<points label="cat" points="1.50,2.50"/><points label="cat" points="{}"/></image></annotations>"""


def labelme(image: str, x: float) -> bytes:
    shape = {"label": "cat", "points": [[x, 2.5]], "shape_type": "point"}
    document = {"version": "5", "shapes": [shape], "imagePath": image, "imageData": None}
    return json.dumps(document | {"imageHeight": 30, "imageWidth": 40}).encode()


def label_studio(x: float) -> bytes:
    value = {"x": x, "y": 50, "keypointlabels": ["cat"]}
    size = {"original_width": 40, "original_height": 30}
    result = {"type": "keypointlabels", "value": value, **size}
    address = "/data/upload/1/0123abcd-1.png"
    tasks = [{"id": 5, "data": {"image": address}, "annotations": [{"result": [result]}]}]
    return json.dumps(tasks).encode()


def sources(kit: Any) -> dict[str, tuple[bytes, list[list[float]]]]:
    in_zip = kit.zipped({"annotations.xml": CVAT.format("3,4").encode(), "images/1.png": b"x"})
    labelmes = {"a/1.json": labelme("1.png", 1.5), "a/2.json": labelme("..\\2.png", 3)}
    return {
        "cvat": (CVAT.format("3.00,4.00").encode(), [[1.5, 2.5], [3.0, 4.0]]),
        "cvat-zip": (in_zip, [[1.5, 2.5], [3.0, 4.0]]),
        "label-studio": (label_studio(25), [[10.0, 15.0]]),
        "labelme": (labelme("1.png", 1.5), [[1.5, 2.5]]),
        "labelme-zip": (kit.zipped(labelmes), [[1.5, 2.5], [3.0, 2.5]]),
    }


@pytest.mark.slow
@pytest.mark.parametrize("source", ["cvat", "cvat-zip", "label-studio", "labelme", "labelme-zip"])
@pytest.mark.parametrize("later", [False, True])
def test_a_data_set_of_each(
    client: TestClient, app: Any, settings: Any, kit: Any, source: str, later: bool
) -> None:
    raw, points = sources(kit)[source]
    files = [("annotations", ("p.bin", raw)), ("images", ("i.zip", kit.zipped(kit.images())))]
    answer = client.post("/datasets", files=files, headers=LATER if later else {})
    assert answer.status_code == (202 if later else 201), answer.text
    body = answer.json()
    if later:
        job = body["report"]["progress"]["job_id"]
        worker = WorkerContext(settings, app.state.database, app.state.storage)
        assert execute(job, worker) is Outcome.ENDED
    url = f"/datasets/{body['id']}"
    found = client.get(url).json()
    assert found["status"] == "ready"
    assert [c["name"] for c in found["categories"]] == ["cat"]
    listed = client.get(f"{url}/annotations").json()["annotations"]
    assert [a["point"] for a in listed] == points
    assert found["report"]["truth"] is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("raw", "pointer", "detail"),
    [
        (CVAT.format("99,4").encode(), "/annotations/image[1]/points[2]", "outside its image"),
        (label_studio(120), "/0/annotations/0/result/0", "outside its image"),
        (labelme("3.png", 1), "p.bin#", "there is no image '3.png'"),
    ],
)
def test_what_is_wrong_is_said_in_its_own_terms(
    client: TestClient, kit: Any, raw: bytes, pointer: str, detail: str
) -> None:
    files = [("annotations", ("p.bin", raw)), ("images", ("i.zip", kit.zipped(kit.images())))]
    answer = client.post("/datasets", files=files)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert (error["part"], error["pointer"]) == ("annotations", pointer)
    assert detail in error["detail"]


@pytest.mark.slow
def test_archives_that_hold_no_points(client: TestClient, kit: Any) -> None:
    answer = kit.upload(client, kit.zipped({"a.txt": b"a"}), kit.images())
    assert answer.status_code == 422
    assert "Labelme's JSON files" in answer.json()["errors"][0]["hint"]


def warnings_of(
    client: TestClient, kit: Any, document: Any, truth: Any = None
) -> tuple[Any, list[tuple[str, str]]]:
    """The data set that a document becomes, and the places and words of its warnings."""
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    answer = kit.upload(client, raw, kit.images(1), truth=truth)
    assert answer.status_code == 201, answer.text
    body = answer.json()
    return body, [(w["pointer"], w["detail"]) for w in body["report"]["warnings"]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("raw", "pointer"),
    [
        (CVAT.format(""), "/annotations/image[1]/points[2]"),
        (CVAT.format("x"), "/annotations/image[1]/points[2]"),
        (CVAT.format("3.00,4.00;3.50,4.50"), "/annotations/image[1]/points[2]"),
    ],
)
def test_what_was_left_out_is_reported_where_it_is(
    client: TestClient, kit: Any, raw: str, pointer: str
) -> None:
    body, warnings = warnings_of(client, kit, raw.encode())
    assert body["annotations"] == (2 if ";" in raw else 1)
    ((place, words),) = warnings
    assert place == pointer
    assert "left out" in words or "most central" in words


SQUARE = [[1, 1, 9, 1, 9, 9, 1, 9]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("second", "pointer", "words"),
    [
        (None, "/annotations/1/segmentation", "1 annotation without a segmentation"),
        ([], "/annotations/1/segmentation", "1 annotation without a segmentation"),
        ([[1, 2, 3, 4]], "/annotations/1/segmentation", "three points"),
        ([*SQUARE, [1, 2, 3, 4]], "/annotations/1/segmentation/1", "covers nothing"),
        ([[1, 2, 3, 4, 5]], "/annotations/1/segmentation", "three points"),
        ([[1, 1, 9, 1, 9, 1e6]], "/annotations/1/segmentation", "far outside"),
        ({"size": [40, 30], "counts": [1200]}, "/annotations/1/segmentation", "size"),
        ("none", "/annotations/1/segmentation", "should be polygons"),
    ],
)
@pytest.mark.parametrize("part", ["annotations", "truth"])
def test_truth_of_some_objects(
    client: TestClient, kit: Any, part: str, second: Any, pointer: str, words: str
) -> None:
    """The masks of the others are kept, and the report says which are not, in either file."""
    document = kit.points(1)
    document["annotations"][0]["segmentation"] = SQUARE
    if second is not None:
        document["annotations"][1]["segmentation"] = second
    sent = (document,) if part == "annotations" else (kit.points(1), document)
    body, warnings = warnings_of(client, kit, *sent)
    assert body["report"]["truth"] == part
    assert body["annotations"] == 2
    ((place, detail),) = warnings
    assert place == pointer
    assert "left out" in detail
    assert words in detail
