"""A process that sends an app documents with seeded damage, to all endpoints that take one.

Writes a line for each: seed, path, status, the answer's kind, seconds; and what was raised.
"""

import io
import json
import random
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from PIL import Image

from app.main import create_app
from app.settings import Settings
from sapnet.data.annotations.coco import read_points, read_truth
from sapnet.errors import InvalidDataset
from tests.mutations import Random, damaged, written

SQUARE = [[1, 1, 20, 1, 20, 20, 1, 20]]
RLE = {"size": [30, 40], "counts": [100, 20, 1080]}


def coco(segmentation: Any = None) -> dict[str, Any]:
    annotations = [
        {"id": 501, "image_id": 12, "category_id": 0, "point": [3.5, 4.5], "group_id": 1},
        {"id": 502, "image_id": 12, "category_id": 0, "keypoints": [9, 9, 2, 8, 8, 1], "mask": RLE},
        {"id": 900, "image_id": 99, "category_id": 7, "points": [[5, 5], [6, 6]], "iscrowd": 0},
    ]
    if segmentation is not None:
        annotations = [a | {"segmentation": segmentation, "area": 100.5} for a in annotations]
    return {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 40, "height": 30} for n in (12, 99)],
        "annotations": annotations,
        "categories": [{"id": 0, "name": "cell"}, {"id": 7, "name": "dust", "supercategory": "x"}],
    }


def label_studio() -> Any:
    def region(id_: str, kind: str, **more: Any) -> dict[str, Any]:
        value = {"x": 20, "y": 30, "width": 1, kind: ["cell"]}
        size = {"original_width": 40, "original_height": 30, "image_rotation": 0}
        return {"id": id_, "type": kind, "value": value, **size, **more}

    results = [
        region("a", "keypointlabels", parentID="c"),
        region("b", "keypointlabels", parentID="a"),
        region("c", "rectanglelabels"),
        region("d", "labels"),
        region("d", "keypoint"),
    ]
    data = {"image": "/data/upload/1/0123abcd-12.png"}
    return [{"id": 1, "data": data, "annotations": [{"result": results, "was_cancelled": False}]}]


def labelme() -> Any:
    shapes = [
        {"label": "cell", "points": [[3, 4]], "shape_type": "point", "group_id": n} for n in (1, 1)
    ]
    shapes.append({"label": "cell", "points": [[3, 4], [9, 9]], "shape_type": "points"})
    return {"shapes": shapes, "imagePath": "12.png", "imageHeight": 30, "imageWidth": 40}


CVAT = (
    "<annotations><meta><job><labels><label><name>cell</name></label></labels></job></meta>"
    '<image id="0" name="12.png" width="40" height="30"><points label="cell" group_id="1" '
    'points="3.5,4.5"/><points label="cell" points="1,2;3,4;5,6" group_id="1"/></image>'
    "</annotations>"
)
PARTS = (
    "12.png",
    "40",
    "30",
    "3.5,4.5",
    "1,2;3,4;5,6",
    "cell",
    "points",
    "image",
    "<",
    ">",
    '"',
    "0",
)


def cvat(r: Random) -> bytes:
    text = CVAT
    for _ in range(r.choice((1, 2, 3))):
        others = ("", "-1", "1e999", "nan", "9" * 400, "&a;", "\x01", "a" * 5_000, ";;", "<a>" * 90)
        text = text.replace(r.choice(PARTS), r.choice(others), r.choice((1, -1)))
    return text.encode("utf-8", "replace")


def image() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), (9, 90, 200)).save(file, "PNG")
    return file.getvalue()


IMAGE = image()


def data_set(r: Random) -> tuple[str, str, dict[str, Any]]:
    make = r.randrange(6)
    if make == 0:
        raw = cvat(r)
    elif make == 1:
        raw = written(damaged(label_studio(), r), r)
    elif make == 2:
        raw = written(damaged(labelme(), r), r)
    else:
        raw = written(damaged(coco(r.choice((None, SQUARE, RLE))), r), r)
    files = [("annotations", (r.choice(("a.json", "A.JSON", "b", "c.zip")), raw))]
    if make == 5:
        files[0] = ("annotations", ("a.json", json.dumps(coco()).encode()))
        files.append(("truth", ("t.json", written(damaged(coco(SQUARE), r), r))))
    files += [("images", (f"{number}.png", IMAGE)) for number in (12, 99)]
    return "POST", "/datasets", {"files": files}


def training(dataset_id: str, r: Random) -> tuple[str, str, dict[str, Any]]:
    given = {"501": [{"segmentation": SQUARE, "score": 0.5}], "502": [{"segmentation": RLE}]}
    body = {
        "dataset_id": dataset_id,
        "method": "sapnet",
        "overrides": {"train.epochs": 3, "data.short_sides": [64]},
        "seed": 3,
    }
    part = r.choice(("truth", "proposals", "all"))
    if part != "proposals":
        body["truth"] = damaged(coco(r.choice((SQUARE, RLE))), r)
    if part != "truth":
        document = given if r.random() < 0.5 else [{"annotation_id": 501, "segmentation": SQUARE}]
        body["proposals"] = {"kind": "given", "document": damaged(document, r)}
    body = damaged(body, r) if part == "all" else body
    return _json("POST", "/jobs/train", body, r)


def review(job_id: str, r: Random) -> tuple[str, str, dict[str, Any]]:
    mask = f"/masks/{job_id}.501"
    clicks = {"points": [{"x": 3, "y": 4}, {"x": 5, "y": 6, "label": 0}], "segmentation": RLE}
    correct = {"decision": "correct", "segmentation": r.choice((SQUARE, RLE))}
    method, path, body = r.choice(
        (
            ("PATCH", mask, correct),
            ("POST", f"{mask}/suggest", clicks),
            ("POST", f"/jobs/{job_id}/corrections", {"name": "better"}),
            ("POST", f"/jobs/{job_id}/exports", {"format": "coco", "min_quality": 0.5}),
            ("POST", "/predict", {"model": job_id, "images": [12], "dataset": "x", "score": 0.3}),
        )
    )
    return _json(method, path, damaged(body, r), r, **{"If-Match": '"0"'})


def _json(
    method: str, path: str, body: Any, r: Random, **headers: str
) -> tuple[str, str, dict[str, Any]]:
    kind = {"Content-Type": "application/json"}
    return method, path, {"content": written(body, r), "headers": kind | headers}


def read_by_a_trainer(raw: bytes) -> None:
    """The library alone: a document is read, or refused as one."""
    read_points(raw)
    with suppress(InvalidDataset):
        read_truth(raw, {12: (30, 40), 99: (30, 40)}, warn=lambda issue: None)


def main(data_dir: Path, dataset_id: str, job_id: str, count: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    app = create_app(Settings(_env_file=None, data_dir=data_dir))  # type: ignore[call-arg]
    with TestClient(app, raise_server_exceptions=False) as client:
        for seed in range(count):
            r = random.Random(seed)
            method, path, kwargs = r.choice(
                (data_set, data_set, lambda r: training(dataset_id, r), lambda r: review(job_id, r))
            )(r)
            if "files" in kwargs:
                read_by_a_trainer(kwargs["files"][0][1][1])
            start = time.perf_counter()
            answer = client.request(method, path, **kwargs)
            line = {"seed": seed, "path": path, "status": answer.status_code}
            line |= {"kind": answer.headers.get("content-type", ""), "text": answer.text[:2_000]}
            line["seconds"] = round(time.perf_counter() - start, 3)
            if answer.status_code == 201 and path == "/datasets":
                url = answer.headers["location"]
                line["read"] = [client.get(u).status_code for u in (url, f"{url}/annotations")]
            print(json.dumps(line), flush=True)
        print(json.dumps({"healthy": client.get("/healthz").status_code == 200}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
