"""docs/integrations/cvat.md, whole, against a stand-in for CVAT's server; and its functions."""

import base64
import importlib.util
import io
import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from cvat_sdk import masks as sdk_masks
from cvat_sdk.core.client import AccessTokenCredentials, Client, Config
from cvat_sdk.exceptions import ApiException
from PIL import Image
from typer.testing import CliRunner

from app.cli.cvat import command
from app.cli.cvat.folder import TaskState, safe_name
from app.cli.cvat.push import LabelRefused, OtherImages, points_of, push
from sapnet.data.orientation import stored_array
from sapnet_client.types import Segmentation
from tests.integrations.cvat_stand_in import TOKEN, StandIn, serving

ROOT = Path(__file__).resolve().parents[2]
LABELS = {"apple": (5, "any"), "pear": (6, "any")}


def image(orientation: int = 1, seed: int = 0) -> bytes:
    shown = np.full((60, 80, 3), 30 + seed, np.uint8)
    shown[20:40, 30:50] = 220
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    stored = np.ascontiguousarray(stored_array(shown, orientation))
    Image.fromarray(stored).save(buffer, "PNG", exif=exif)
    return buffer.getvalue()


@pytest.fixture
def server() -> Iterator[StandIn]:
    """Three images, of which two have points: the second is stored turned."""
    names = ("a.png", "sub/b.png", "c.png")
    files = {name: image((1, 6, 1)[n], n) for n, name in enumerate(names)}
    server = StandIn(7, files, dict(LABELS))
    server.sizes = dict.fromkeys(names, (80, 60))
    server.draw("points", 0, "apple", [40.5, 30.5])
    server.draw("points", 1, "pear", [40.5, 30.5], group=3)
    server.draw("rectangle", 1, "pear", [29.0, 19.0, 51.0, 41.0], group=3)
    server.draw("rectangle", 0, "apple", [0.0, 0.0, 9.0, 9.0], rotation=30.0)
    server.draw("polygon", 2, "apple", [0.0, 0.0, 9.0, 0.0, 9.0, 9.0])
    with serving(server):
        yield server


@pytest.fixture
def cvat(server: StandIn, tmp_path: Path) -> Iterator[Any]:
    config = Config(cache_dir=tmp_path / "cache")
    with Client(server.url, config=config) as client:
        client.login(AccessTokenCredentials(TOKEN))
        yield client


@pytest.mark.slow
@pytest.mark.service
def test_its_commands_lead_to_masks_in_the_task(
    run_page: Callable[..., str], server: StandIn, tmp_path: Path
) -> None:
    drawn = list(server.shapes)
    said = run_page("cvat.md", CVAT_HOST=server.url, CVAT_ACCESS_TOKEN=TOKEN)
    assert "2 images, 2 objects" in said
    assert "2 masks sent, 0 were there, 0 removed" in said
    masks = [shape for shape in server.shapes if shape["type"] == "mask"]
    assert [shape for shape in server.shapes if shape["type"] != "mask"] == drawn
    assert sorted((m["frame"], m["label_id"], m["source"]) for m in masks) == [
        (0, 5, "auto"),
        (1, 6, "auto"),
    ]
    for mask in masks:
        array = sdk_masks.decode_mask(mask["points"], image_width=80, image_height=60)
        assert array[30, 40], "the stand-in's mask is a square round the point, as it is shown"
        assert array.sum() == 25
    fetched = [path for method, path in server.asked if path.endswith("/data")]
    assert len(fetched) == 2
    xml = (tmp_path / "newcomer" / "cvat-7" / "points.xml").read_text()
    assert 'name="sub/b.png"' in xml
    assert "polygon" not in xml


@dataclass
class Sapnet:
    """A service with one job: a mask of each of its squares, in stored pixels."""

    squares: dict[int, tuple[int, int]]

    def job(self, job: str) -> Any:
        return SimpleNamespace(dataset_id="d")

    def dataset(self, dataset: str) -> Any:
        return SimpleNamespace(categories=[SimpleNamespace(id=1, name="apple")])

    def images(self, dataset: str) -> Any:
        return [SimpleNamespace(id=0, file_name="a.png")]

    def pseudo_masks(self, job: str, min_quality: float | None = None) -> Any:
        for id_, (row, column) in self.squares.items():
            array = np.zeros((60, 80), bool)
            array[row : row + 3, column : column + 4] = True
            status = "rejected" if id_ < 0 else "open"
            yield SimpleNamespace(
                id=id_,
                image_id=0,
                category_id=1,
                status=status,
                segmentation=Segmentation.of(array),
            )


@pytest.fixture
def folder(tmp_path: Path, server: StandIn) -> Path:
    folder = tmp_path / "cvat-7"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "a.png").write_bytes(server.images["a.png"])
    TaskState(server.url, 7, labels={"apple": 5}, frames={"a.png": 0}).write(folder)
    return folder


def pushed(cvat: Any, folder: Path, service: Sapnet) -> tuple[int, int, int]:
    state = TaskState.read(folder)
    done = push(cvat, service, state, folder, "job", lambda done, of: None)  # type: ignore[arg-type]
    return done.created, done.kept, done.removed


def masks(server: StandIn) -> list[dict[str, Any]]:
    return [shape for shape in server.shapes if shape["type"] == "mask"]


@pytest.mark.slow
def test_a_push_is_done_once_and_follows_the_job(server: StandIn, cvat: Any, folder: Path) -> None:
    first = Sapnet({1: (0, 0), 2: (10, 10), 3: (20, 20), -4: (30, 30)})
    assert pushed(cvat, folder, first) == (3, 0, 0)
    assert pushed(cvat, folder, first) == (0, 3, 0)
    assert len(masks(server)) == 3
    server.draw("mask", 0, "apple", [12, 0, 0, 3, 3])  # a person's
    edited = next(m for m in masks(server) if m["points"][-4:-2] == [10, 10])
    edited["points"] = [0, 2, 10, 10, 11, 10]
    second = Sapnet({1: (0, 0), 5: (40, 40)})
    assert pushed(cvat, folder, second) == (1, 1, 1)
    corners = sorted(m["points"][-4:-2] for m in masks(server))
    assert corners == [[0, 0], [0, 0], [10, 10], [40, 40]]
    assert pushed(cvat, folder, second) == (0, 2, 0)
    (folder / "task.json").unlink()
    TaskState(server.url, 7, labels={"apple": 5}, frames={"a.png": 0}).write(folder)
    assert pushed(cvat, folder, second) == (0, 2, 0), "on another machine, without the state"


@pytest.mark.slow
def test_a_push_that_breaks_off_goes_on(
    server: StandIn, cvat: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cli.cvat.push.AT_ONCE", 2)
    service = Sapnet({n: (5 * n, 5 * n) for n in range(5)})
    server.fail_after = 1
    with pytest.raises(ApiException):
        pushed(cvat, folder, service)
    assert len(masks(server)) == 2
    server.fail_after = None
    assert pushed(cvat, folder, service) == (3, 2, 0)
    assert pushed(cvat, folder, Sapnet({0: (0, 0)})) == (0, 1, 4)
    assert len(masks(server)) == 1


@pytest.mark.slow
def test_a_job_of_other_images(server: StandIn, cvat: Any, folder: Path) -> None:
    """Frames that are gone are passed over; a job of another data set is refused."""
    service, state = Sapnet({1: (0, 0)}), TaskState.read(folder)
    state.frames = {"gone.png": 0}
    state.write(folder)
    with pytest.raises(OtherImages, match="none of its images is a frame of task 7"):
        pushed(cvat, folder, service)
    assert masks(server) == []


@pytest.mark.slow
def test_labels_that_cannot_hold_masks(server: StandIn, cvat: Any, folder: Path) -> None:
    server.labels["apple"] = (5, "points")
    with pytest.raises(LabelRefused, match="'any'"):
        pushed(cvat, folder, Sapnet({1: (0, 0)}))
    del server.labels["apple"]
    with pytest.raises(LabelRefused, match="no label 'apple'"):
        pushed(cvat, folder, Sapnet({1: (0, 0)}))
    assert masks(server) == []


def test_points_are_as_the_sdk_has_them() -> None:
    generator = np.random.default_rng(3)
    for _ in range(20):
        mask = np.zeros((9, 11), bool)
        mask[2:7, 3:9] = generator.random((5, 6)) > 0.5
        if mask.any():
            assert list(points_of(mask)) == sdk_masks.encode_mask(mask)
    whole = np.ones((3, 4), bool)
    assert list(points_of(whole)) == sdk_masks.encode_mask(whole)


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("a.png", "a.png"),
        ("x\\y.jpg", "x/y.jpg"),
        ("../../etc/passwd.png", "frame_000002.png"),
        ("/etc/a.png", "frame_000002.png"),
        ("C:/a.png", "frame_000002.png"),
        ("taken.png", "frame_000002.png"),
        ("film", "frame_000002.png"),
    ],
)
def test_names_of_files(name: str, safe: str) -> None:
    assert safe_name(name, 2, {"taken.png"}) == safe


def test_no_two_frames_have_a_name() -> None:
    """Also where a file is called as one without a usable name would be."""
    taken: set[str] = set()
    names = ["frame_000002.png", "A.png", "a.PNG", "film", "frame_000003.PNG"]
    for frame, name in enumerate(names):
        taken.add(safe_name(name, frame, taken).casefold())
    assert len(taken) == 5


class Model:
    """The client of a service with one model: what is bright, twice."""

    def model(self, name: str) -> Any:
        categories = [SimpleNamespace(id=9, name="pear"), SimpleNamespace(id=4, name="apple")]
        return SimpleNamespace(id=f"id of {name}", categories=categories)

    def predict(self, model: str, image: Any, score: float | None = None) -> Any:
        if isinstance(image, bytes):
            image = np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))
        bright = Segmentation.of(image[..., 0] > 128)
        empty = Segmentation.of(np.zeros((60, 80)))
        found = [(9, 0.9, bright), (4, 0.5, bright), (4, 0.8, empty)]
        return [
            SimpleNamespace(category_id=c, score=s, segmentation=m)
            for c, s, m in found
            if s >= (score or 0)
        ]


@pytest.mark.slow
def test_the_function_annotates_a_task_by_the_sdks_own_driver(server: StandIn, cvat: Any) -> None:
    from cvat_sdk.auto_annotation import annotate_task

    from app.cli.cvat.function import Function

    server.images = {"a.png": server.images["a.png"], "c.png": server.images["c.png"]}
    server.shapes = []
    annotate_task(cvat, 7, Function(Model(), "best"))  # type: ignore[arg-type]
    assert [(s["frame"], s["label_id"], s["type"]) for s in server.shapes] == [
        (frame, label, "mask") for frame in (0, 1) for label in (6, 5)
    ]
    array = sdk_masks.decode_mask(server.shapes[0]["points"], image_width=80, image_height=60)
    assert array.sum() == 400
    assert array[20:40, 30:50].all()
    server.shapes = []
    function = Function(Model(), "best")  # type: ignore[arg-type]
    annotate_task(cvat, 7, function, conf_threshold=0.7, conv_mask_to_poly=True)
    assert [(s["label_id"], s["type"]) for s in server.shapes] == [(6, "polygon")] * 2
    corners = np.array(server.shapes[0]["points"]).reshape(-1, 2)
    assert (corners.min(0).tolist(), corners.max(0).tolist()) == ([30, 20], [50, 40])


@pytest.mark.slow
def test_cvats_command_line_calls_the_function(
    server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page's command, from its arguments on: CVAT's own program loads the module."""
    from cvat_cli.__main__ import main

    from app.cli.cvat import function

    page = (ROOT / "docs/integrations/cvat.md").read_text()
    (block,) = re.findall(r"^```sh\n[^`]*^(cvat-cli [^`]*)^```", page, re.MULTILINE)
    for written, here in (("\\\n", ""), ("$CVAT_HOST", server.url), ("annotate 8", "annotate 7")):
        block = block.replace(written, here)
    asked = shlex.split(block)
    monkeypatch.setenv("CVAT_ACCESS_TOKEN", TOKEN)
    monkeypatch.setattr(function, "Client", lambda url, key, progress: Model())
    server.shapes = []
    assert not main(asked[1:])
    assert {(s["label_id"], s["type"]) for s in server.shapes} == {(6, "mask"), (5, "mask")}


def test_the_nuclio_function(monkeypatch: pytest.MonkeyPatch) -> None:
    definition = yaml.safe_load((ROOT / "docker/cvat/function.yaml").read_text())
    module, _, handler = definition["spec"]["handler"].partition(":")
    source = ROOT / "docker" / "cvat" / f"{module}.py"
    spec = importlib.util.spec_from_file_location("nuclio_main", source)
    assert spec is not None
    assert spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    assert json.loads(definition["metadata"]["annotations"]["spec"])[0]["type"] == "mask"
    for variable in definition["spec"]["env"]:
        monkeypatch.setenv(variable["name"], variable["value"])
    monkeypatch.setattr(program, "Client", lambda progress: Model())
    context = SimpleNamespace(user_data=SimpleNamespace(), Response=SimpleNamespace)
    program.init_context(context)
    body = {"image": base64.b64encode(image()).decode(), "threshold": 0.6}
    answer = getattr(program, handler)(context, SimpleNamespace(body=json.dumps(body)))
    (found,) = json.loads(answer.body)
    assert (found["label"], found["type"], found["confidence"]) == ("pear", "mask", "0.9")
    *pixels, left, top, right, bottom = found["mask"]
    assert (left, top, right, bottom) == (30, 20, 49, 39)
    assert pixels == [1] * 400


@pytest.mark.slow
def test_what_goes_wrong_is_said_in_a_line(
    server: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("CVAT_HOST", "CVAT_ACCESS_TOKEN", "CVAT_USER", "CVAT_PASSWORD"):
        monkeypatch.delenv(name, raising=False)

    def said(*arguments: str) -> str:
        result = CliRunner().invoke(command.app, [*arguments], catch_exceptions=False)
        assert result.exit_code == 1
        assert result.stderr.count("\n") == 1, result.stderr
        return result.stderr

    assert "cvat pull TASK first" in said("push", "7")
    assert "CVAT_ACCESS_TOKEN" in said("pull", "7", "--host", server.url)
    assert "401" in said("pull", "7", "--host", server.url, "--token", "wrong")
    assert "404" in said("pull", "8", "--host", server.url, "--token", TOKEN)
    server.shapes = []
    assert "no points" in said("pull", "7", "--host", server.url, "--token", TOKEN)
    monkeypatch.setitem(sys.modules, "cvat_sdk", None)
    assert said("pull", "7") == f"{command.MISSING}\n"
