"""The machine learning backend that Label Studio sees, with a stand-in for Label Studio's API."""

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image as PILImage
from sqlalchemy import update

from app.auth import keys
from app.auth.scope import Scope
from app.db.models import Dataset, Job, JobKind, JobState, LabelStudioProject, Model
from app.db.session import Database
from app.integrations.label_studio.images import TaskImage, TaskImages
from app.integrations.label_studio.interactive import read_drawn
from app.integrations.label_studio.interface import read_interface
from app.integrations.label_studio.training import train_what_is_ready
from app.main import create_app
from app.settings import Settings
from sapnet.data.orientation import stored_array, upright_array
from worker.jobs.execute import execute
from worker.runtime.types import Outcome

INTERFACE = """<View><Image name="image" value="$photo"/>
<BrushLabels name="mask" toName="image"><Label value="cell"/><Label value="dust"/></BrushLabels>
<KeyPointLabels name="point" toName="image" smart="true"><Label value="cell"/></KeyPointLabels>
</View>"""
POLYGONS = INTERFACE.replace("BrushLabels", "PolygonLabels")
BOXES = """<View><Image name="i" value="$photo"/>
<RectangleLabels name="r" toName="i"><Label value="dust"/></RectangleLabels></View>"""
JWT = ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (b"{}", b"{}", b"x"))
PROJECT = {"id": 3, "title": "Cells", "created_at": "2026-11-30T15:00:00.5Z"}
UID = "3.1796050800"


class Host:
    """Answers by path, and what it was asked with which Authorization."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.url = ""

    def has(self, path: str, data: bytes, status: int = 200, **headers: str) -> None:
        self.answers[path] = (status, headers, data)


@pytest.fixture
def new_host() -> Iterator[Callable[[], Host]]:
    servers: list[tuple[ThreadingHTTPServer, threading.Thread]] = []

    def start() -> Host:
        host = Host()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                host.asked.append((self.path, self.headers.get("Authorization")))
                status, headers, data = host.answers.get(self.path, (404, {}, b""))
                self.send_response(status)
                for name, value in {"Content-Length": str(len(data)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.do_GET()

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        host.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        servers.append((server, thread))
        return host

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def host(new_host: Callable[[], Host]) -> Host:
    host = new_host()
    host.has("/data/upload/3/a1-1.png", square(), **{"Content-Type": "image/png"})
    return host


@pytest.fixture
def settings(settings: Settings, host: Host) -> Settings:
    return settings.model_copy(
        update={"label_studio_url": host.url, "click_method": "edges", "key_cache_seconds": 0}
    )


def square(orientation: int = 1) -> bytes:
    """A bright square at the left of 40×30 pixels as shown, stored as its EXIF says."""
    shown = np.full((30, 40, 3), 30, np.uint8)
    shown[8:22, 4:18] = 220
    exif = PILImage.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    stored = np.ascontiguousarray(stored_array(shown, orientation))
    PILImage.fromarray(stored).save(buffer, "PNG", exif=exif)
    return buffer.getvalue()


def point(x: float, y: float, label: str = "cell", **more: Any) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": 0.5, "keypointlabels": [label]}
    return {"type": "keypointlabels", "to_name": "image", "value": value, **more}


def rectangle(x: float, y: float, width: float, height: float) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": width, "height": height, "rectanglelabels": ["dust"]}
    return {"type": "rectanglelabels", "to_name": "image", "value": value}


def connect(client: TestClient, config: str = INTERFACE, path: str = "/ls", **more: Any) -> Any:
    body = {
        "project": UID,
        "schema": config,
        "hostname": "http://localhost:8080",
        "access_token": "abc123",
        "extra_params": None,
        **more,
    }
    return client.post(f"{path}/setup", json=body)


def ask(
    client: TestClient,
    context: list[dict[str, Any]] | None = None,
    images: tuple[str, ...] = ("/data/upload/3/a1-1.png",),
    config: str = INTERFACE,
    **options: Any,
) -> Any:
    body = {
        "tasks": [{"id": n, "data": {"photo": image}} for n, image in enumerate(images)],
        "project": UID,
        "label_config": config,
        "params": {"login": None, "password": None, "context": context and {"result": context}},
    }
    return client.post("/ls/predict", json=body, **options)


def shown_mask(result: dict[str, Any]) -> np.ndarray[Any, Any]:
    """rle-pack's decoder, of the four channels the last."""
    data = "".join(f"{byte:08b}" for byte in result["value"]["rle"])
    place = 0

    def take(bits: int) -> int:
        nonlocal place
        place += bits
        return int(data[place - bits : place], 2)

    count, word = take(32), take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < count:
        run, length = take(1), take(sizes[take(2)]) + 1
        values += [take(word)] * length if run else [take(word) for _ in range(length)]
    size = result["original_height"], result["original_width"], 4
    return np.array(values, np.uint8).reshape(size)[..., 3] > 0


@pytest.mark.slow
@pytest.mark.parametrize("orientation", [1, 3, 6, 8, 5])
def test_a_click_gives_the_mask_of_the_image_as_it_is_shown(
    client: TestClient, host: Host, orientation: int
) -> None:
    host.has("/data/upload/3/a1-1.png", square(orientation), **{"Content-Type": "image/png"})
    assert connect(client).json() == {"model_version": "clicks"}
    answer = ask(client, [point(25, 50, is_positive=True)])
    assert answer.status_code == 200, answer.text
    (result,) = answer.json()["results"][0]["result"]
    assert (result["from_name"], result["to_name"], result["type"]) == (
        "mask",
        "image",
        "brushlabels",
    )
    assert result["value"]["brushlabels"] == ["cell"]
    mask = shown_mask(result)
    assert mask.shape == (30, 40)
    truth = np.zeros((30, 40), bool)
    truth[8:22, 4:18] = True
    assert (mask & truth).sum() / (mask | truth).sum() > 0.8
    assert host.asked == [("/data/upload/3/a1-1.png", "Token abc123")]


@pytest.mark.slow
def test_negative_clicks_and_rectangles(client: TestClient, host: Host) -> None:
    connect(client)
    off = point(80, 50, is_positive=False)
    (result,) = ask(client, [point(25, 50), off]).json()["results"][0]["result"]
    mask = shown_mask(result)
    assert (mask[15, 10], mask[15, 32]) == (True, False)
    (result,) = ask(client, [rectangle(10, 25, 35, 50)]).json()["results"][0]["result"]
    assert result["value"]["brushlabels"] == ["dust"]
    boxed = shown_mask(result)
    assert boxed.any()
    rows, columns = np.nonzero(boxed)
    assert columns.min() >= 2
    assert columns.max() <= 20
    assert rows.min() >= 5
    assert rows.max() <= 25
    assert len(host.asked) == 1, "the image is kept between clicks"
    polygons = ask(client, [point(25, 50)], config=POLYGONS).json()["results"][0]["result"]
    assert polygons[0]["type"] == "polygonlabels"
    assert all(0 <= v <= 100 for place in polygons[0]["value"]["points"] for v in place)
    refused = ask(client, [off])
    assert (refused.status_code, "positive" in refused.text) == (422, True)
    assert ask(client, [point(25, 50)], config="<View/>").status_code == 422


@pytest.mark.slow
def test_who_waits_for_label_studio_holds_up_nobody_else(
    client: TestClient, host: Host, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No click while its image is fetched; and only so many trainings at once."""
    connect(client)
    state = client.app.state  # type: ignore[attr-defined]
    fetch = TaskImages.get

    def fetched(*arguments: Any) -> TaskImage:
        with ExitStack() as clicks:
            for _ in range(settings.predict_slots):
                clicks.enter_context(state.clicks.slot())
            return fetch(*arguments)

    monkeypatch.setattr(TaskImages, "get", fetched)
    assert ask(client, [point(25, 50)]).status_code == 200
    asked = len(host.asked)
    with ExitStack() as trainings:
        for _ in range(settings.predict_slots):
            trainings.enter_context(state.label_studio_trainings.slot())
        webhook = client.post("/ls/webhook", json={"action": "START_TRAINING", "project": PROJECT})
        train = client.post("/ls/train", json={"project": UID, "annotations": []})
        assert (webhook.status_code, train.status_code) == (503, 503)
        assert webhook.headers["Retry-After"]
        other = client.post("/ls/webhook", json={"action": "PROJECT_UPDATED", "project": PROJECT})
        assert other.status_code == 201, "what trains nothing is not held up"
        assert ask(client, [point(25, 50)]).status_code == 200
    assert len(host.asked) == asked


def test_which_keypoints_are_against_the_object() -> None:
    control = read_interface(INTERFACE).for_masks()

    def signs(*results: dict[str, Any]) -> list[bool]:
        return [c.positive for c in read_drawn(list(results), control, (30, 40), 1).clicks]

    assert signs(point(1, 1), point(2, 2, is_positive=0)) == [True, False]
    assert signs(point(1, 1), point(2, 2, "background")) == [True, False]
    assert signs(point(2, 2, "something")) == [True], "a label of its own names, but nothing else"
    assert signs(rectangle(0, 0, 9, 9), point(2, 2, "background")) == [False]
    assert signs({"type": "brushlabels", "value": {}}, {"type": "keypoint", "value": None}) == []
    (click,) = read_drawn([point(100, 100)], control, (30, 40), 1).clicks
    assert (click.x, click.y) == (39.5, 29.5)


@pytest.mark.parametrize(
    "config", ["<View", '<!DOCTYPE a [<!ENTITY b "c">]><View name="&b;"/>', "no xml", ""]
)
def test_interfaces_that_are_none(client: TestClient, config: str) -> None:
    answer = ask(client, [point(1, 1)], config=config)
    assert answer.status_code == 422
    assert "labelling interface" in answer.json()["detail"]


def test_arrays_are_turned_there_and_back() -> None:
    array = np.arange(12).reshape(3, 4)
    for orientation in range(1, 9):
        assert (upright_array(stored_array(array, orientation), orientation) == array).all()


@pytest.mark.slow
def test_credentials_go_to_label_studio_alone(
    settings: Settings, database: Database, host: Host, new_host: Callable[[], Host]
) -> None:
    other = new_host()
    other.has("/b.png", square(), **{"Content-Type": "image/png"})
    host.has("/moved.png", b"", 302, Location=f"{other.url}/b.png")
    with TestClient(create_app(settings)) as client:
        connect(client)
        for address in (f"{other.url}/b.png", "/moved.png", "http://127.0.0.1:9/x.png"):
            refused = ask(client, [point(25, 50)], images=(address,))
            assert (refused.status_code, "public" in refused.text) == (422, True), address
    assert other.asked == []
    open_to_all = settings.model_copy(update={"import_private_addresses": True})
    with TestClient(create_app(open_to_all)) as client:
        for address in (f"{other.url}/b.png", "/moved.png", f"{host.url}/data/upload/3/a1-1.png"):
            assert ask(client, [point(25, 50)], images=(address,)).status_code == 200
    assert {sent for _, sent in other.asked} == {None}
    assert {sent for _, sent in host.asked} == {"Token abc123"}


@pytest.mark.slow
def test_without_the_setting_no_private_label_studio_is_asked(
    settings: Settings, database: Database, host: Host
) -> None:
    unset = settings.model_copy(update={"label_studio_url": None})
    with TestClient(create_app(unset)) as client:
        connect(client, hostname=host.url)
        assert ask(client, [point(25, 50)]).status_code == 422
        started = client.post("/ls/webhook", json={"action": "START_TRAINING", "project": PROJECT})
        assert started.status_code == 503
        assert "SAPNET_LABEL_STUDIO_URL" in started.json()["detail"]
    assert host.asked == []


@pytest.mark.slow
def test_a_personal_access_token_is_exchanged(
    settings: Settings, database: Database, host: Host
) -> None:
    host.has("/api/token/refresh/", b'{"access": "fresh"}')
    personal = settings.model_copy(update={"label_studio_token": JWT})
    with TestClient(create_app(personal)) as client:
        connect(client)
        assert ask(client, [point(25, 50)]).status_code == 200
        host.has("/2.png", square(), **{"Content-Type": "image/png"})
        assert ask(client, [point(25, 50)], images=("/2.png",)).status_code == 200
    exchanged, *images = host.asked
    assert exchanged == ("/api/token/refresh/", None)
    assert [sent for _, sent in images] == ["Bearer fresh"] * 2


@pytest.mark.slow
def test_the_key_is_a_password_at_ls_alone(client: TestClient, database: Database) -> None:
    with database.begin() as session:
        ann, ben = (keys.create(session, name, Scope.WRITE)[0] for name in ("ann", "ben"))
    assert client.get("/ls/health").status_code == 401
    assert client.get("/ls/health", auth=("any", ann)).json()["status"] == "UP"
    assert client.get("/ls/health", auth=("any", ann + "x")).status_code == 401
    assert client.get("/ls/health", headers={"Authorization": "Basic ?"}).status_code == 401
    assert client.get("/jobs", auth=("any", ann)).status_code == 401
    body = {"project": UID, "schema": INTERFACE, "hostname": "", "access_token": ""}
    assert client.post("/ls/setup", json=body, auth=("a", ann)).status_code == 200
    event = {"action": "START_TRAINING", "project": PROJECT}
    other = client.post("/ls/webhook", json=event, auth=("b", ben))
    assert (other.status_code, "not connected" in other.text) == (409, True)
    with database.read() as session:
        assert [row.owner for row in session.query(LabelStudioProject)] == ["ann"]


@pytest.mark.slow
def test_predictions_of_a_trained_model(client: TestClient, model_id: str, host: Host) -> None:
    host.has("/2.png", square(6), **{"Content-Type": "image/png"})
    named = {"extra_params": json.dumps({"model": model_id, "score": 0.5})}
    assert connect(client, **named).json() == {"model_version": model_id}
    images = ("/data/upload/3/a1-1.png", "/none.png", "/2.png")
    answer = ask(client, images=images).json()
    assert answer["model_version"] == model_id
    first, missing, turned = answer["results"]
    assert missing == []
    assert (first["score"], first["model_version"]) == (0.9, model_id)
    (region,) = first["result"]
    assert region["value"]["brushlabels"] == ["dust"]
    assert shown_mask(region)[:4, :4].all()
    assert shown_mask(region).sum() == 16
    assert shown_mask(turned["result"][0])[:4, -4:].all(), "at the upper left as it is stored"
    (box,) = ask(client, config=BOXES).json()["results"][0]["result"]
    value = {name: box["value"][name] for name in ("x", "y", "width", "height")}
    assert (box["type"], value) == (
        "rectanglelabels",
        {"x": 0, "y": 0, "width": 10, "height": pytest.approx(13.3333)},
    )


@pytest.mark.slow
def test_which_model_predicts(client: TestClient, model_id: str, settings: Settings) -> None:
    assert connect(client, path=f"/ls/{model_id}").json() == {"model_version": model_id}
    answer = client.put(
        "/models/aliases/best", json={"model": model_id}, headers={"If-None-Match": "*"}
    )
    assert answer.status_code in (200, 201), answer.text
    assert connect(client, path="/ls/best").json() == {"model_version": model_id}
    assert client.get("/ls/best/health").status_code == 200
    assert connect(client, path="/ls/none").status_code == 404
    foreign = INTERFACE.replace("cell", "tree").replace("dust", "bush")
    refused = connect(client, foreign, path="/ls/best")
    assert (refused.status_code, "cell, dust" in refused.text) == (422, True)
    deep = '{"training":' * 100_000
    unfit = [{"modl": "best"}, {"training": {"preset": 3}}, {"training": {"nothing": 1}}, 7, deep]
    for wrong in unfit:
        assert connect(client, extra_params=wrong).status_code == 422
    assert connect(client).json() == {"model_version": "clicks"}
    assert ask(client, images=("/a", "/b")).json()["results"] == [[], []]


@pytest.mark.slow
def test_no_more_tasks_are_predicted_than_there_is_time_for(
    settings: Settings, client: TestClient, model_id: str, host: Host
) -> None:
    client.app.state.settings = settings.model_copy(update={"label_studio_seconds": 1e-9})  # type: ignore[attr-defined]
    connect(client, path=f"/ls/{model_id}")
    body = {"tasks": [{"id": n, "data": {"photo": "/data/upload/3/a1-1.png"}} for n in (1, 2)]}
    sent = {"project": UID, "label_config": INTERFACE, **body}
    first, second = client.post(f"/ls/{model_id}/predict", json=sent).json()["results"]
    assert (len(first["result"]), second) == (2, [])


def exported() -> list[dict[str, Any]]:
    size = {"original_width": 40, "original_height": 30, "from_name": "point", "image_rotation": 0}
    results = [{**point(25, 50), **size, "id": "x"}]
    return [
        {
            "id": 11,
            "data": {"photo": "/data/upload/3/a1-1.png"},
            "annotations": [{"id": 1, "result": results, "was_cancelled": False}],
        }
    ]


@pytest.mark.slow
def test_training_on_request(
    client: TestClient, host: Host, database: Database, new_worker: Any, settings: Settings
) -> None:
    path = "/api/projects/3/export?exportType=JSON"
    event = {"action": "START_TRAINING", "project": PROJECT}
    assert client.post("/ls/webhook", json=event).status_code == 409
    connect(client, extra_params={"training": {"preset": "demo", "seed": 5}})
    refused = client.post("/ls/webhook", json=event)
    assert (refused.status_code, "answers 404" in refused.text) == (503, True)
    host.has(path, json.dumps(exported()).encode())
    other = client.post("/ls/webhook", json={"action": "ANNOTATION_CREATED", "project": PROJECT})
    assert (other.status_code, other.json()) == (201, {"job": None})
    answer = client.post("/ls/webhook", json=event)
    assert answer.status_code == 201, answer.text
    job_id = answer.json()["job"]

    def status() -> str:
        return str(client.post("/ls/job_status", json={"job": job_id}).json()["job_status"])

    assert status() == "queued"
    worker = new_worker(label_studio_url=host.url)
    assert execute(job_id, worker) is Outcome.ENDED
    assert status() == "queued"
    assert ("/data/upload/3/a1-1.png", "Token abc123") in host.asked
    (listed,) = client.get("/datasets").json()["datasets"]
    assert (listed["name"], listed["status"], listed["annotations"]) == (
        "Label Studio 3: Cells",
        "ready",
        1,
    )
    (trained,) = [j for j in client.get("/jobs").json()["jobs"] if j["kind"] == "train"]
    assert (trained["preset"], trained["seed"]) == ("demo", 5)
    assert connect(client).json() == {"model_version": "clicks"}
    assert len(client.get("/jobs").json()["jobs"]) == 2, "it is trained once"
    assert execute(trained["id"], worker) is Outcome.ENDED
    assert status() == "finished"
    model = client.get(f"/jobs/{trained['id']}").json()["model_id"]
    assert connect(client).json() == {"model_version": model}
    assert client.get("/ls/versions").json() == {"versions": [model]}
    assert client.post("/ls/job_status", json={"job": trained["id"]}).status_code == 404


@pytest.mark.slow
def test_a_training_is_made_with_the_eyes_of_its_owner(
    client: TestClient,
    database: Database,
    storage: Any,
    settings: Settings,
    dataset_id: str,
) -> None:
    """The worker that makes it sees the data of all."""
    connect(client)
    with database.begin() as session:
        (row,) = session.query(LabelStudioProject)
        row.owner, row.to_train = "bert", dataset_id
        session.execute(update(Dataset).values(owner="anna"))
    assert train_what_is_ready(database, storage, settings, row.pk) is None
    with database.begin() as session:
        assert not session.query(Job).all(), "of data that are anna's"
        (row,) = session.query(LabelStudioProject)
        row.owner, row.to_train = "anna", dataset_id
    job = train_what_is_ready(database, storage, settings, row.pk)
    assert job is not None
    assert job.dataset_id == dataset_id


@pytest.mark.slow
@pytest.mark.parametrize(
    "value",
    [
        {"x": 10**400, "y": 1},
        {"x": float("inf"), "y": 1},
        {"x": 1, "y": 1, "keypointlabels": 5},
        {"x": 1, "y": 1, "keypointlabels": ["cell"] * 100_000},
        {"x": "1", "y": None},
    ],
)
def test_contexts_that_no_label_studio_sends(client: TestClient, host: Host, value: Any) -> None:
    connect(client)
    drawn = {"type": "keypointlabels", "to_name": "image", "value": value}
    body = {
        "tasks": [{"id": 11, "data": {"photo": "/data/upload/3/a1-1.png"}}],
        "project": UID,
        "label_config": INTERFACE,
        "params": {"context": {"result": [drawn]}},
    }
    content = json.dumps(body).replace("Infinity", "1e999")
    answer = client.post(
        "/ls/predict", content=content, headers={"content-type": "application/json"}
    )
    assert answer.status_code < 500, answer.text


@pytest.mark.slow
def test_a_training_that_was_left_when_a_worker_died_is_made_up_for(
    client: TestClient, database: Database, storage: Any, settings: Settings, dataset_id: str
) -> None:
    connect(client)
    with database.begin() as session:
        (row,) = session.query(LabelStudioProject)
        row.datasets, row.to_train = [dataset_id], dataset_id
    assert connect(client).status_code == 200
    assert train_what_is_ready(database, storage, settings, row.pk) is None
    with database.read() as session:
        (job,) = session.query(Job)
    assert (job.kind, job.dataset_id, job.state) == (JobKind.TRAIN, dataset_id, JobState.QUEUED)


@pytest.mark.slow
def test_the_tasks_that_old_releases_send(
    client: TestClient, database: Database, host: Host, new_worker: Any
) -> None:
    connect(client)
    sent = {"annotations": exported(), "project": UID, "label_config": INTERFACE, "params": {}}
    answer = client.post("/ls/train", json=sent)
    assert answer.status_code == 201, answer.text
    execute(answer.json()["job"], new_worker(label_studio_url=host.url))
    assert {j["kind"] for j in client.get("/jobs").json()["jobs"]} == {"import", "train"}
    with database.read() as session:
        assert session.query(Model).count() == 0
