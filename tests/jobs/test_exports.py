"""Exports: asked for, made by a worker, fetched in pieces, removed with what they hang on."""

import io
import json
import zipfile
from collections.abc import Callable
from typing import Any, get_args

import pytest
from fastapi.testclient import TestClient

from app.db.models import Category, Image, Job, MaskDecision, MaskStatus, PseudoMask
from app.db.session import Database
from app.exports.schemas import Format
from app.settings import Settings
from sapnet.data.exporters import FORMATS
from worker.jobs import export_masks as exports
from worker.jobs.execute import execute
from worker.runtime.types import Outcome, WorkerContext

pytestmark = pytest.mark.both_stacks

Ask = Callable[..., Any]


@pytest.fixture
def trained(new_job: Callable[..., str], new_worker: Callable[..., WorkerContext]) -> str:
    """A job that has masks: 5×5 squares about the points, or less at the border."""
    job_id = new_job()
    assert execute(job_id, new_worker()) is Outcome.ENDED
    return job_id


@pytest.fixture
def ask(client: TestClient, trained: str) -> Ask:
    def post(format: str = "coco", **values: Any) -> Any:
        return client.post(f"/jobs/{trained}/exports", json={"format": format, **values})

    return post


@pytest.fixture
def made(client: TestClient, ask: Ask, new_worker: Callable[..., WorkerContext]) -> Ask:
    """The export, and its file, once a worker has made it."""

    def make(format: str = "coco", **values: Any) -> tuple[Any, bytes]:
        answer = ask(format, **values)
        assert answer.status_code == 202, answer.text
        assert execute(answer.json()["id"], new_worker()) is Outcome.ENDED
        found = client.get(answer.headers["location"])
        assert found.status_code == 200, found.text
        return found.json(), client.get(f"/exports/{found.json()['id']}/file").content

    return make


@pytest.mark.slow
def test_from_queued_to_a_file(
    client: TestClient, ask: Ask, trained: str, new_worker: Callable[..., WorkerContext]
) -> None:
    answer = ask("coco", min_quality=0.1)
    body = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/exports/{body['id']}"
    assert (body["state"], body["format"], body["job_id"]) == ("queued", "coco", trained)
    assert client.get(f"/exports/{body['id']}/file").status_code == 409
    assert client.delete(f"/exports/{body['id']}").status_code == 409
    assert client.get(f"/jobs/{body['id']}/pseudo-masks").status_code == 409

    assert execute(body["id"], new_worker()) is Outcome.ENDED
    found = client.get(f"/exports/{body['id']}").json()
    assert (found["state"], found["progress"], found["error"]) == ("succeeded", 1.0, None)
    assert found["report"]["masks"] == 3
    assert found["report"]["round_trip"] == {"mean_iou": 1.0, "worst": []}
    assert client.get(f"/jobs/{trained}/exports").json() == {"exports": [found], "next": None}
    events = client.get(f"/jobs/{body['id']}/events", headers={"Accept": "application/json"})
    types = [event["type"] for event in events.json()["events"]]
    assert types[0] == "created"
    assert types[-1] == "end"
    assert {"stage", "progress"} <= set(types)

    file = client.get(f"/exports/{body['id']}/file")
    assert file.headers["content-type"] == "application/json"
    assert file.headers["content-disposition"] == 'attachment; filename="cells-coco.json"'
    assert len(file.content) == found["size"]
    masks = client.get(f"/jobs/{trained}/pseudo-masks").json()["annotations"]
    exported = {a["id"]: a for a in file.json()["annotations"]}
    assert {m["id"]: m["segmentation"] for m in masks} == {
        id_: a["segmentation"] for id_, a in exported.items()
    }
    assert [i["id"] for i in file.json()["images"]] == [12, 99]
    assert exported[501]["point"] == [0.5, 20.5]


@pytest.mark.slow
def test_the_file_by_range_and_by_tag(client: TestClient, made: Ask) -> None:
    found, whole = made("png")
    url = f"/exports/{found['id']}/file"
    head = client.head(url)
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(whole)))
    part = client.get(url, headers={"Range": "bytes=2-9"})
    assert (part.status_code, part.content) == (206, whole[2:10])
    again = {"If-None-Match": head.headers["etag"]}
    assert client.get(url, headers=again).status_code == 304
    beyond = client.get(url, headers={"Range": f"bytes={len(whole)}-"})
    assert beyond.status_code == 416


@pytest.mark.slow
def test_a_format_for_each_name_and_a_file_for_each(made: Ask) -> None:
    assert set(get_args(Format)) == set(FORMATS)
    for format in FORMATS:
        found, data = made(format)
        assert found["state"] == "succeeded", found
        assert found["report"]["masks"] == 3
        assert found["report"]["round_trip"]["mean_iou"] == 1.0
        assert zipfile.is_zipfile(io.BytesIO(data)) == found["filename"].endswith(".zip")


@pytest.mark.slow
def test_with_the_images(made: Ask) -> None:
    _, data = made("coco", images=True)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = [
            "annotations/instances_default.json",
            "images/12.png",
            "images/99.png",
            "report.json",
        ]
        assert sorted(archive.namelist()) == names
        assert archive.read("images/12.png") == b"an image"


@pytest.mark.slow
def test_masks_as_they_stand_after_review(
    made: Ask, database: Database, trained: str, client: TestClient
) -> None:
    masks = client.get(f"/jobs/{trained}/pseudo-masks").json()["annotations"]
    by_id = {mask["id"]: mask["segmentation"] for mask in masks}
    with database.begin() as session:
        for id_, status, mask in (
            (501, MaskStatus.REJECTED, None),
            (502, MaskStatus.CORRECTED, by_id[501]),
        ):
            values = {"annotation_id": id_, "status": status, "segmentation": mask, "revision": 1}
            moment = session.get_one(Job, trained).created_at
            session.add(MaskDecision(job_id=trained, decided_at=moment, **values))
    found, data = made("coco")
    exported = {a["id"]: a["segmentation"] for a in json.loads(data)["annotations"]}
    assert exported == {502: by_id[501], 900: by_id[900]}
    assert (found["report"]["rejected"], found["report"]["left_out"]) == (1, [])


@pytest.mark.slow
def test_only_what_is_good_enough(made: Ask) -> None:
    found, data = made("coco", min_quality=0.5)
    assert [a["id"] for a in json.loads(data)["annotations"]] == [501]
    assert found["report"]["masks"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_a_bad_mask_is_left_out_and_listed(made: Ask, database: Database, format: str) -> None:
    bad = {
        501: {"size": [30, 40], "counts": "~~~ no mask"},
        502: {"size": [3, 4], "counts": "<"},
    }
    with database.begin() as session:
        for id_, mask in bad.items():
            row = session.query(PseudoMask).filter_by(annotation_id=id_).one()
            row.segmentation = mask
    found, _ = made(format)
    assert found["state"] == "succeeded"
    report = found["report"]
    assert (report["masks"], report["left_out_count"]) == (1, 2)
    assert [(m["id"], m["image_id"]) for m in report["left_out"]] == [(501, 12), (502, 12)]
    assert "decoded" in report["left_out"][0]["why"]
    assert "size [3, 4]" in report["left_out"][1]["why"]


@pytest.mark.slow
def test_a_lost_image_is_listed(made: Ask, database: Database) -> None:
    with database.begin() as session:
        session.query(Image).filter_by(image_id=99).one().sha256 = "0" * 64
    found, data = made("yolo-seg", images=True)
    assert found["report"]["masks"] == 3
    lost = {"id": None, "image_id": 99, "why": "the image is missing from storage"}
    assert found["report"]["left_out"] == [lost]
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert "images/train/12.png" in archive.namelist()
        assert "images/train/99.png" not in archive.namelist()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"format": "tiff"}, "/format"),
        ({}, "/format"),
        ({"format": "coco", "min_quality": 2}, "/min_quality"),
        ({"format": "coco", "colour": "red"}, "/colour"),
    ],
)
def test_what_is_refused(client: TestClient, trained: str, body: Any, pointer: str) -> None:
    answer = client.post(f"/jobs/{trained}/exports", json=body)
    assert answer.status_code == 422
    assert [e["pointer"] for e in answer.json()["errors"]] == [pointer]


@pytest.mark.slow
def test_of_what_there_is_nothing_to_export(
    client: TestClient, new_job: Callable[..., str], ask: Ask
) -> None:
    queued = client.post(f"/jobs/{new_job()}/exports", json={"format": "coco"})
    assert (queued.status_code, queued.json()["state"]) == (409, "queued")
    assert client.post("/jobs/nobody/exports", json={"format": "coco"}).status_code == 404
    assert client.get("/jobs/nobody/exports").status_code == 404
    assert client.get("/exports/nothing").status_code == 404
    of_an_export = client.post(f"/jobs/{ask().json()['id']}/exports", json={"format": "coco"})
    assert of_an_export.status_code == 409


@pytest.mark.slow
def test_cancelled_and_deleted(
    client: TestClient,
    ask: Ask,
    stored: Any,
    settings: Settings,
    made: Ask,
    remove_deleted: Callable[[Settings], None],
) -> None:
    export_id = ask().json()["id"]
    assert client.post(f"/jobs/{export_id}/cancel").json()["state"] == "cancelled"
    assert client.get(f"/exports/{export_id}").json()["state"] == "cancelled"
    assert client.delete(f"/exports/{export_id}").status_code == 204
    assert client.get(f"/exports/{export_id}").status_code == 404
    assert client.get(f"/jobs/{export_id}").status_code == 404

    before = stored(settings.storage)
    found, _ = made("voc")
    assert len(stored(settings.storage)) == len(before) + 1
    assert client.delete(f"/exports/{found['id']}").status_code == 204
    remove_deleted(settings)
    assert stored(settings.storage) == before


@pytest.mark.slow
def test_it_goes_with_its_data_set(
    client: TestClient,
    made: Ask,
    stored: Any,
    settings: Settings,
    dataset_id: str,
    remove_deleted: Callable[[Settings], None],
) -> None:
    found, _ = made("coco")
    assert client.delete(f"/datasets/{dataset_id}").status_code == 409
    assert client.delete(f"/datasets/{dataset_id}?force=true").status_code == 204
    assert client.get(f"/exports/{found['id']}").status_code == 404
    remove_deleted(settings)
    assert stored(settings.storage) == set()


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch, until: Any) -> Callable[..., None]:
    """Exports do this first, and go on once their heartbeat has noticed."""

    def arrange(first: Callable[[], Any]) -> None:
        write = exports.writing.write

        def noticing(*args: Any) -> Any:
            first()
            tell = args[-1]

            def noticed() -> bool:
                try:
                    tell(0, 2)
                except Exception:
                    return True
                return False

            until(noticed)
            return write(*args)

        monkeypatch.setattr(exports.writing, "write", noticing)

    return arrange


@pytest.mark.slow
def test_a_cancel_ends_one_at_work(
    ask: Ask, client: TestClient, new_worker: Callable[..., WorkerContext], interrupted: Any
) -> None:
    export_id = ask().json()["id"]
    interrupted(lambda: client.post(f"/jobs/{export_id}/cancel"))
    assert execute(export_id, new_worker()) is Outcome.ENDED
    found = client.get(f"/exports/{export_id}").json()
    assert (found["state"], found["report"], found["size"]) == ("cancelled", None, None)


@pytest.mark.slow
def test_a_worker_that_goes_home_leaves_it_to_the_next(
    ask: Ask,
    new_worker: Callable[..., WorkerContext],
    job_row: Callable[[str], Job],
    interrupted: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    export_id, going = ask().json()["id"], []
    interrupted(lambda: going.append(True))
    assert execute(export_id, new_worker(stopping=lambda: bool(going))) is Outcome.RELEASED
    assert job_row(export_id).state == "queued"
    monkeypatch.undo()
    assert execute(export_id, new_worker()) is Outcome.ENDED
    assert job_row(export_id).state == "succeeded"


@pytest.mark.slow
def test_more_classes_than_the_format_holds(
    client: TestClient,
    ask: Ask,
    database: Database,
    dataset_id: str,
    new_worker: Callable[..., WorkerContext],
) -> None:
    with database.begin() as session:
        session.add_all(
            Category(dataset_id=dataset_id, category_id=1000 + i, name=f"c{i}", annotations=0)
            for i in range(260)
        )
    export_id = ask("voc").json()["id"]
    assert execute(export_id, new_worker()) is Outcome.ENDED
    found = client.get(f"/exports/{export_id}").json()
    assert found["state"] == "failed"
    assert "254 classes, the dataset has 262" in found["error"]
    assert client.get(f"/jobs/{export_id}").json()["reason"] == "unfit"
