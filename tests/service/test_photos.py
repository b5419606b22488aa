"""Photos with an EXIF orientation, and images whose pixels lose something, as data sets."""

import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from sapnet.data.pixels import LEVELS, PAGES

WIDTH, HEIGHT = 96, 64
AT = (35.0, 28.0)
"""The object, in stored pixels."""
UPRIGHT = {
    1: (35.0, 28.0),
    2: (61.0, 28.0),
    3: (61.0, 36.0),
    4: (35.0, 36.0),
    5: (28.0, 35.0),
    6: (36.0, 35.0),
    7: (36.0, 61.0),
    8: (28.0, 61.0),
}
"""The same where a viewer shows the image of each orientation."""


def photo(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT), (9 * orientation, 90, 90)).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def size(orientation: int) -> tuple[int, int]:
    """Width and height as shown."""
    return (HEIGHT, WIDTH) if orientation > 4 else (WIDTH, HEIGHT)


def labelme(orientations: Any) -> dict[str, bytes]:
    files = {}
    for o in orientations:
        shape = {"label": "red", "points": [UPRIGHT[o]], "shape_type": "point"}
        width, height = size(o)
        told = {"shapes": [shape], "imagePath": f"{o}.jpg", "imageData": None}
        told |= {"imageHeight": height, "imageWidth": width}
        files[f"{o}.json"] = json.dumps(told).encode()
    return files


def label_studio(orientations: Any) -> bytes:
    tasks = []
    for o in orientations:
        width, height = size(o)
        x, y = UPRIGHT[o]
        value = {"x": 100 * x / width, "y": 100 * y / height, "keypointlabels": ["red"]}
        result = {"type": "keypointlabels", "value": value}
        result |= {"original_width": width, "original_height": height}
        tasks.append({"data": {"image": f"{o}.jpg"}, "annotations": [{"result": [result]}]})
    return json.dumps(tasks).encode()


def cvat(orientations: Any) -> bytes:
    images = "".join(
        f'<image id="{o}" name="{o}.jpg" width="{size(o)[0]}" height="{size(o)[1]}">'
        f'<points label="red" points="{UPRIGHT[o][0]},{UPRIGHT[o][1]}"/></image>'
        for o in orientations
    )
    labels = "<meta><task><labels><label><name>red</name></label></labels></task></meta>"
    return f"<annotations><version>1.1</version>{labels}{images}</annotations>".encode()


def coco(orientations: Any, *, upright: bool) -> dict[str, Any]:
    images, annotations = [], []
    for o in orientations:
        width, height = size(o) if upright else (WIDTH, HEIGHT)
        images.append({"id": o, "file_name": f"{o}.jpg", "width": width, "height": height})
        point = UPRIGHT[o] if upright else AT
        annotations.append({"id": o, "image_id": o, "category_id": 1, "point": point})
    categories = [{"id": 1, "name": "red"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def points(client: TestClient, made: dict[str, Any]) -> list[list[float]]:
    listed = client.get(f"/datasets/{made['id']}/annotations").json()["annotations"]
    return [[round(v, 4) for v in a["point"]] for a in listed]


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["labelme", "label-studio", "cvat"])
def test_points_of_tools_that_turn(client: TestClient, kit: Any, tool: str) -> None:
    all_ = range(1, 9)
    raw = {"cvat": cvat(all_), "label-studio": label_studio(all_)}.get(
        tool, kit.zipped(labelme(all_))
    )
    answer = kit.upload(client, raw, {f"{o}.jpg": photo(o) for o in all_})
    assert answer.status_code == 201, answer.text
    assert points(client, answer.json()) == [list(AT)] * 8
    images = client.get(f"/datasets/{answer.json()['id']}/images").json()["images"]
    assert {(i["width"], i["height"]) for i in images} == {(WIDTH, HEIGHT)}


@pytest.mark.slow
@pytest.mark.parametrize("orientation", [3, 6])
def test_one_labelme_file(client: TestClient, kit: Any, orientation: int) -> None:
    (raw,) = labelme([orientation]).values()
    answer = kit.upload(client, raw, {f"{orientation}.jpg": photo(orientation)})
    assert answer.status_code == 201, answer.text
    assert points(client, answer.json()) == [list(AT)]


@pytest.mark.slow
@pytest.mark.parametrize("upright", [False, True])
def test_coco_in_either_frame(client: TestClient, kit: Any, upright: bool) -> None:
    images = {f"{o}.jpg": photo(o) for o in (5, 6, 7, 8)}
    answer = kit.upload(client, coco((5, 6, 7, 8), upright=upright), images).json()
    assert points(client, answer) == [list(AT)] * 4
    warnings = answer["report"]["warnings"]
    assert len(warnings) == upright
    if upright:
        assert "were mapped to stored pixels" in warnings[0]["detail"]
        assert "'6.jpg' (orientation 6)" in warnings[0]["detail"]


@pytest.mark.slow
def test_coco_whose_sizes_do_not_tell(client: TestClient, kit: Any) -> None:
    images = {f"{o}.jpg": photo(o) for o in (1, 2, 3, 4)}
    answer = kit.upload(client, coco((1, 2, 3, 4), upright=False), images).json()
    assert points(client, answer) == [list(AT)] * 4
    (warning,) = answer["report"]["warnings"]
    assert "taken to be in stored pixels" in warning["detail"]
    assert "'2.jpg'" in warning["detail"]
    assert "'1.jpg'" not in warning["detail"]


@pytest.mark.slow
def test_truth_of_either_frame(client: TestClient, kit: Any) -> None:
    images = {f"{o}.jpg": photo(o) for o in (6, 8)}
    document = coco((6, 8), upright=False)
    truth = coco((6, 8), upright=True)
    for annotation in truth["annotations"]:
        x, y = annotation.pop("point")
        annotation["segmentation"] = [[x - 5, y - 5, x + 5, y - 5, x + 5, y + 5, x - 5, y + 5]]
    sent = kit.upload(client, document, images, truth=truth)
    assert sent.status_code == 201, sent.text
    (warning,) = sent.json()["report"]["warnings"]
    assert warning["part"] == "truth"
    body = {"dataset_id": sent.json()["id"], "preset": "demo", "truth": truth}
    assert client.post("/jobs/train", json=body).status_code == 202
    truth["images"][0]["width"] = 63
    assert client.post("/jobs/train", json=body).status_code == 422


@pytest.mark.slow
def test_sizes_that_are_neither(client: TestClient, kit: Any) -> None:
    document = coco((6,), upright=True)
    answer = kit.upload(client, document, {"6.jpg": photo(1)})
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert "declared 64×96" in error["detail"]
    assert "EXIF" in error["hint"]


@pytest.mark.slow
def test_what_reading_loses_is_in_the_report(client: TestClient, kit: Any) -> None:
    values = np.random.default_rng(0).integers(400, 2400, (30, 40)).astype(np.uint16)
    first, second = io.BytesIO(), io.BytesIO()
    Image.fromarray(values).save(first, "PNG")
    pages = [Image.new("L", (40, 30), level) for level in (3, 9)]
    pages[0].save(second, "TIFF", save_all=True, append_images=pages[1:])
    document = kit.points()
    document["images"][1]["file_name"] = "2.tif"
    images = {"1.png": first.getvalue(), "2.tif": second.getvalue()}
    report = kit.upload(client, document, images).json()["report"]
    told = {warning["detail"] for warning in report["warnings"]}
    assert told == {f"{LEVELS}: '1.png'", f"{PAGES}: '2.tif'"}


@pytest.mark.slow
def test_a_heic_is_refused_with_a_remedy(client: TestClient, kit: Any) -> None:
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50)
    answer = kit.upload(client, kit.points(1), {"1.png": heic})
    assert answer.status_code == 422
    assert "HEIC of a phone; convert it" in answer.json()["errors"][0]["detail"]
