"""A process that sends an app requests which would kill it, or make it grow, were they believed.

Writes a line for each: name, status, problem, seconds, MB that the process grew by.
"""

import io
import json
import math
import resource
import sys
import time
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from PIL import Image

from app.main import create_app
from app.settings import Settings
from tests.data.hostile import HUGE, POLYGONS, RUNS, SIZES, WIDE


def truth(segmentation: Any, size: tuple[Any, Any] = (30, 40), image: int = 12) -> dict[str, Any]:
    return {
        "images": [{"id": image, "file_name": "12.png", "height": size[0], "width": size[1]}],
        "categories": [{"id": 0, "name": "cell"}],
        "annotations": [
            {"id": 501, "image_id": image, "category_id": 0, "segmentation": segmentation}
        ],
    }


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def dumped(value: Any) -> bytes:
    """Deeper than `json.dumps` goes."""
    text = json.dumps(value)
    for levels in (65, 300, 2_000, 10_000, 1_000_000):
        text = text.replace(f'"deep {levels}"', "[" * levels + "]" * levels)
    return text.encode()


def trainings() -> dict[str, dict[str, Any]]:
    polygon = [[0, 0, 5, 0, 5, 5]]
    found: dict[str, dict[str, Any]] = {
        f"truth {n}": {"truth": truth(segmentation)}
        for n, segmentation in enumerate(
            [*POLYGONS, *({"size": [30, 40], "counts": c} for c in RUNS)]
        )
        if segmentation not in ([[0, 0, 40, 0, 40, 40]],)  # which is one of this image
    }
    for n, size in enumerate(s for s in SIZES if isinstance(s, list) and len(s) == 2):
        rle = {"size": size, "counts": [0, 2**62]}
        for name, segmentation in (("wide", WIDE), ("rle", rle), ("good", polygon)):
            for image in (12, 13):
                document = truth(segmentation, (size[0], size[1]), image)
                found[f"declared size {n}, {name}, image {image}"] = {"truth": document}
    found["truth of another size"] = {"truth": truth(polygon, (40, 30))}
    for levels in (65, 300, 2_000, 10_000, 1_000_000):
        deep = f"deep {levels}"
        document = {"501": [{"segmentation": deep}]}
        found |= {
            f"truth, {deep}": {"truth": {"images": deep}},
            f"segmentation, {deep}": {"truth": truth(deep)},
            f"other member of truth, {deep}": {"truth": {**truth(polygon), "info": deep}},
            f"proposals, {deep}": {"proposals": deep},
            f"document, {deep}": {"proposals": {"kind": "given", "document": document}},
            f"overrides, {deep}": {"overrides": {"train.epochs": deep}},
            f"unknown, {deep}": {"colour": deep},
        }
    found["huge override"] = {"overrides": {"train.epochs": 10**400}}
    found["NaN override"] = {"overrides": {"train.lr": math.nan}}
    return found


def make_image() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (12, 10)).save(file, "PNG")
    return file.getvalue()


def datasets() -> dict[str, list[Any]]:
    found = {}
    points = {
        "images": [{"id": 12, "file_name": "a.png"}],
        "categories": [{"id": 0, "name": "cell"}],
        "annotations": [{"id": 501, "image_id": 12, "category_id": 0, "point": [1, 1]}],
    }
    rles = [
        *({"size": [10, 12], "counts": counts} for counts in RUNS if counts is not None),
        {"size": [HUGE, HUGE], "counts": [HUGE * HUGE]},
        {"size": [HUGE, HUGE], "counts": [0, 2**62 - 2**32 + 1]},
        {"size": [30, 40], "counts": [0, 1200]},
    ]
    documents = {f"mask {n}": points | {"annotations": []} for n in range(len(rles))}
    for n, mask in enumerate(rles):
        documents[f"mask {n}"] = points | {
            "annotations": [points["annotations"][0] | {"mask": mask}]
        }
    documents["deep"] = points | {"info": "deep 10000"}
    for name, document in documents.items():
        files = [("annotations", ("points.json", dumped(document)))]
        found[f"data set, {name}"] = [*files, ("images", ("a.png", make_image()))]
    for name, segmentation in {
        **{f"truth {n}": polygons for n, polygons in enumerate(POLYGONS)},
        **{f"truth rle {n}": mask for n, mask in enumerate(rles)},
    }.items():
        sent = dumped(truth(segmentation, (10, 12)))
        found[f"data set, {name}"] = [
            ("annotations", ("points.json", dumped(points))),
            ("images", ("a.png", make_image())),
            ("truth", ("truth.json", sent)),
        ]
    sent = dumped(truth(WIDE, (HUGE, HUGE)))
    found["data set, huge truth"] = [
        ("annotations", ("points.json", dumped(points))),
        ("images", ("a.png", make_image())),
        ("truth", ("truth.json", sent)),
    ]
    return found


def main(data_dir: Path, dataset_id: str, job_id: str) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    settings = Settings(_env_file=None, data_dir=data_dir, sync_document_bytes=2**30)  # type: ignore[call-arg]
    app = create_app(settings)  # no worker is there to check long documents
    json_kind = {"Content-Type": "application/json"}
    mask = f"/masks/{job_id}.501"
    requests: list[tuple[str, str, str, dict[str, Any]]] = []

    def add(name: str, method: str, path: str, body: Any, **headers: str) -> None:
        kwargs = {"content": dumped(body), "headers": {**json_kind, **headers}}
        requests.append((name, method, path, kwargs))

    for name, change in trainings().items():
        add(f"train, {name}", "POST", "/jobs/train", {"dataset_id": dataset_id, **change})
    segmentations = [
        *({"size": [30, 40], "counts": counts} for counts in RUNS),
        *({"size": size, "counts": "0"} for size in SIZES),
        *POLYGONS,
        "deep 10000",
    ]
    for n, segmentation in enumerate(segmentations):
        body: dict[str, Any] = {"segmentation": segmentation}
        add(f"correct {n}", "PATCH", mask, {"decision": "correct", **body}, **{"If-Match": '"0"'})
        if segmentation is not None:  # the mask as it stands
            clicks = [{"x": 1, "y": 1}]
            add(f"suggest {n}", "POST", f"{mask}/suggest", {"points": clicks, **body})
    for levels in (65, 10_000, 1_000_000):
        deep = f"deep {levels}"
        add(f"predict, {deep}", "POST", "/predict", {"model": "m", "image": deep})
        add(f"correct, {deep}", "PATCH", mask, deep, **{"If-Match": '"0"'})
        add(f"corrections, {deep}", "POST", f"/jobs/{job_id}/corrections", {"name": deep})
        key = {"Idempotency-Key": deep.replace(" ", "")}
        add(f"train with a key, {deep}", "POST", "/jobs/train", {"dataset_id": deep}, **key)
    requests += [
        (name, "POST", "/datasets", {"files": files}) for name, files in datasets().items()
    ]
    cursor = "W1tbW1tb" * 2_000  # brackets
    requests.append(("cursor", "GET", "/jobs", {"params": {"cursor": cursor}}))
    with TestClient(app, raise_server_exceptions=False) as client:
        client.get("/jobs")
        for name, method, path, kwargs in requests:
            before, start = _peak(), time.perf_counter()
            answer = client.request(method, path, **kwargs)
            seconds, grown = time.perf_counter() - start, (_peak() - before) >> 10
            line = {"name": name, "status": answer.status_code, "text": answer.text[:300]}
            print(json.dumps({**line, "seconds": round(seconds, 3), "grown_mb": grown}), flush=True)
        print(json.dumps({"name": "the end", "jobs": len(client.get("/jobs").json()["jobs"])}))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
