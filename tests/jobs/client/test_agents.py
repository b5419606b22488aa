"""`sapnet-service mcp`, asked by the client of the protocol's own SDK, about a real service."""

import base64
import io
import json
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import httpx2
import numpy as np
import pytest
from mcp import Client as AgentClient
from mcp import StdioServerParameters
from mcp.types import CallToolResult, ImageContent, TextContent
from PIL import Image
from starlette.testclient import TestClient

from app.cli.agents.drawing import drawn, window_around
from app.cli.agents.folders import Folders, NotAllowed
from app.cli.agents.server import make_server
from app.predict.model_cache import Runtime
from sapnet_client import AsyncClient

Photos = tuple[Path, Path]
Steps = Callable[[AgentClient], Awaitable[None]]
DELETING = {"delete_dataset", "delete_model"}


def server_of(url: str, folders: Folders, **options: Any) -> Any:
    return make_server(
        lambda show: AsyncClient(url, progress=show or False, patience=1), folders, **options
    )


def ask(server: Any, steps: Steps) -> None:
    async def run() -> None:
        async with AgentClient(server) as client:
            await steps(client)

    anyio.run(run)


def texts(result: CallToolResult) -> str:
    return "\n".join(c.text for c in result.content if isinstance(c, TextContent))


def value(result: CallToolResult) -> Any:
    assert not result.is_error, texts(result)
    content = result.structured_content or {}
    return content.get("result", content)


def images_in(result: CallToolResult) -> list[Image.Image]:
    assert not result.is_error, texts(result)
    images = [c for c in result.content if isinstance(c, ImageContent)]
    assert all(c.mime_type == "image/jpeg" for c in images)
    return [Image.open(io.BytesIO(base64.b64decode(c.data))) for c in images]


@pytest.fixture
def folders(photos: Photos, tmp_path: Path) -> Folders:
    return Folders.of([photos[0].parent], tmp_path / "taken")


def test_only_folders_that_were_named_are_read(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "a.png").write_bytes(b"")
    folders = Folders.of([inside])
    assert folders.existing("a.png") == folders.existing(str(inside / "a.png")) == inside / "a.png"
    for path in ("../out/a.png", str(outside / "a.png"), "/etc/passwd", "..", "nothing.png", "~"):
        with pytest.raises(NotAllowed, match="folders"):
            folders.existing(path)
    assert set(folders.tree(".")) == {"a.png"}
    (inside / "link.png").symlink_to(outside / "a.png")
    with pytest.raises(NotAllowed, match="folders"):
        folders.existing("link.png")
    with pytest.raises(NotAllowed, match=r"link\.png"):
        folders.tree(".")
    (inside / "link.png").unlink()
    (inside / "deep").symlink_to(outside)
    with pytest.raises(NotAllowed, match=r"deep/a\.png"):
        folders.tree(str(inside))
    with pytest.raises(NotAllowed, match="--out"):
        folders.writable()
    with pytest.raises(NotAllowed, match="none was named"):
        Folders(()).existing(str(inside))


def test_an_image_shows_the_part_and_the_mask() -> None:
    image = np.zeros((200, 100, 3), np.uint8)
    mask = np.zeros((200, 100), np.bool_)
    mask[150:180, 40:60] = True
    assert window_around([40, 150, 20, 30], 200, 100) == (22, 132, 78, 198)
    pixels = np.asarray(Image.open(io.BytesIO(drawn(image, (22, 132, 78, 198), [mask]))))
    height, width = pixels.shape[0] - 16, pixels.shape[1] - 40  # without its scale
    scale = height / 66
    assert scale == pytest.approx(8, abs=0.1)
    assert width == pytest.approx(56 * scale, abs=1)
    y, x = (int(v) for v in ((165 - 132) * scale, (50 - 22) * scale + 40))
    assert pixels[y, x].sum() > 100, "painted"
    assert pixels[int((140 - 132) * scale), x].sum() < 60, "and black elsewhere"


def test_what_a_server_offers(tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    async def steps(client: AgentClient) -> None:
        seen.update({tool.name: tool for tool in (await client.list_tools()).tools})

    ask(server_of("http://127.0.0.1:9", Folders.of([tmp_path])), steps)
    assert not DELETING & set(seen), "no deletion unless it was allowed"
    assert {"create_dataset", "train", "wait_for_job", "worst_masks", "export_masks"} <= set(seen)
    assert all(tool.description and tool.annotations for tool in seen.values())
    reading = {name for name, tool in seen.items() if tool.annotations.read_only_hint}
    assert {"list_files", "worst_masks", "estimate_training"} <= reading
    assert not {"train", "decide_masks", "create_dataset", "export_masks"} & reading
    ask(server_of("http://127.0.0.1:9", Folders.of([tmp_path]), allow_delete=True), steps)
    assert set(seen) >= DELETING
    assert all(seen[name].annotations.destructive_hint for name in DELETING)


@pytest.mark.slow
def test_errors_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    outside = {"images": "/", "points_file": "p.json"}
    cases = [
        ("show_image", {"path": "/etc/hostname"}, "may be read"),
        ("show_image", {"path": "a.png"}, "image"),
        ("create_dataset", outside, "may be read"),
        ("create_dataset", {"images": "."}, "points_file or points"),
        ("export_masks", {"job_id": "x"}, "--out"),
        ("predict", {"model": "m"}, "give image"),
        ("predict", {"model": "m", "image": "../b.png"}, "may be read"),
        ("job_status", {"job_id": "../datasets"}, "pattern"),
        ("cancel_job", {"job_id": "x/../y"}, "pattern"),
        ("delete_dataset", {"dataset_id": "x"}, "Unknown tool"),
        ("list_jobs", {}, "sapnet-service serve"),  # nobody is at the address
    ]

    async def steps(client: AgentClient) -> None:
        for name, arguments, said in cases:
            result = await client.call_tool(name, arguments)
            assert result.is_error, name
            assert said in texts(result), (name, texts(result))

    ask(server_of("http://127.0.0.1:9", Folders.of([tmp_path])), steps)


@pytest.mark.slow
def test_from_a_folder_to_corrected_masks(
    worked: str,
    photos: Photos,
    folders: Folders,
    serve_also: Callable[[Runtime], str],
) -> None:
    reports: list[tuple[float, float | None, str | None]] = []

    async def progressed(done: float, of: float | None, message: str | None) -> None:
        reports.append((done, of, message))

    async def steps(client: AgentClient) -> None:
        async def call(name: str, **arguments: Any) -> Any:
            return value(await client.call_tool(name, arguments))

        files = await call("list_files", folder="photos")
        assert files["images"] == ["a.png", "b.png", "deep/c.png", "other.png"]
        (shown,) = images_in(await client.call_tool("show_image", {"path": "photos/a.png"}))
        assert shown.width > shown.height
        dataset = await call("create_dataset", images="photos", points_file="points.json")
        assert (dataset["images"], dataset["annotations"]) == (3, 6)
        plan = await call("estimate_training", dataset_id=dataset["id"], preset="demo")
        assert plan["estimate"]["total"] > 0
        job = await call("train", dataset_id=dataset["id"], preset="demo")
        waiting = {"job_id": job["id"], "seconds": 60}
        result = await client.call_tool("wait_for_job", waiting, progress_callback=progressed)
        over = value(result)
        assert over["succeeded"], result
        assert (await call("list_datasets"))[0]["id"] == dataset["id"]
        listed = await call("list_jobs", state=over["state"], dataset_id=dataset["id"])
        assert listed[0]["id"] == job["id"]
        assert (await call("list_models"))[0]["job_id"] == job["id"]

        worst = await client.call_tool("worst_masks", {"job_id": job["id"], "count": 2})
        assert len(images_in(worst)) == 2
        assert '"quality": 0.25' in texts(worst)
        first, second = (f"{job['id']}.{number}" for number in (10, 20))
        assert first in texts(worst)
        candidates = await client.call_tool("show_candidates", {"mask_id": first})
        assert len(images_in(candidates)) == 3, "the mask and two candidates"
        click = {"mask_id": first, "revision": 0, "clicks": [{"x": 8.5, "y": 10.5}]}
        tried = await client.call_tool("correct_mask", click)
        assert len(images_in(tried)) == 1
        assert '"saved": false' in texts(tried)
        saved = await client.call_tool("correct_mask", {**click, "save": True})
        assert '"status": "corrected"' in texts(saved)
        again = await client.call_tool("correct_mask", {**click, "save": True})
        assert again.is_error, "another revision than the one that was shown"
        assert "revision 1, not 0" in texts(again)
        decided = await call(
            "decide_masks",
            decisions=[
                {"mask_id": second, "revision": 0, "decision": "choose", "candidate": 0},
                {"mask_id": f"{job['id']}.30", "revision": 0, "decision": "reject"},
                {"mask_id": f"{job['id']}.31", "revision": 0, "decision": "accept"},
            ],
        )
        assert [one["status"] for one in decided] == ["corrected", "rejected", "accepted"]
        better = await call("make_corrected_dataset", job_id=job["id"])
        assert better["annotations"] == 5
        exported = await call("export_masks", job_id=job["id"], format="coco")
        path = Path(exported["file"])
        assert path.is_relative_to(folders.writable())
        assert len(json.loads(path.read_text())["annotations"]) == 5
        another = await call("export_masks", job_id=job["id"], format="coco")
        assert another["file"] != exported["file"], "nothing is written over"
        model = value(await client.call_tool("job_status", {"job_id": job["id"]}))["model_id"]
        taken = await call("download_model", model=model)
        assert Path(taken["file"]).read_bytes().startswith(b"weights of seed")

    ask(server_of(worked, folders), steps)
    done = [share for share, _, _ in reports]
    assert done == sorted(done)
    assert done[-1] == 1.0
    assert any("train" in (message or "") for _, _, message in reports)

    async def prediction(client: AgentClient) -> None:
        (model, *_) = value(await client.call_tool("list_models", {}))
        for source in ({"image": "photos/a.png"}, {"image_id": 1}):
            found = await client.call_tool("predict", {"model": model["id"], **source})
            assert len(images_in(found)) == 1, texts(found)
            assert '"score": 0.9' in texts(found)

    url = serve_also(Runtime(2, loader=lambda path: Square()))  # type: ignore[arg-type,return-value]
    ask(server_of(url, folders), prediction)


@pytest.mark.slow
def test_points_that_an_agent_has_read_off(worked: str, folders: Folders) -> None:
    points = [
        {"file_name": "a.png", "category": "cell", "x": 5, "y": 6},
        {"file_name": "b.png", "category": "dust", "x": 7.5, "y": 8},
        {"file_name": "b.png", "category": "cell", "x": 999, "y": 8},
    ]

    async def steps(client: AgentClient) -> None:
        made = await client.call_tool("create_dataset", {"images": "photos", "points": points})
        assert made.is_error
        assert "/annotations/2/point" in texts(made), "what is wrong, and where"
        given = {"images": "photos", "points": points[:2], "name": "mine"}
        dataset = value(await client.call_tool("create_dataset", given))
        assert (dataset["name"], dataset["images"], dataset["annotations"]) == ("mine", 2, 2)
        assert {c["name"] for c in dataset["categories"]} == {"cell", "dust"}

    ask(server_of(worked, folders), steps)


@pytest.mark.slow
@pytest.mark.parametrize("trainer", [("--fail",)])
def test_a_failed_training_says_why(worked: str, folders: Folders) -> None:
    async def steps(client: AgentClient) -> None:
        given = {"images": "photos", "points_file": "points.json"}
        dataset = value(await client.call_tool("create_dataset", given))
        job = value(await client.call_tool("train", {"dataset_id": dataset["id"]}))
        over = value(await client.call_tool("wait_for_job", {"job_id": job["id"], "seconds": 60}))
        assert (over["over"], over["succeeded"]) == (True, False)
        assert "became nan" in over["error"]
        assert "a log line of the trainer" in over["log"]

    ask(server_of(worked, folders), steps)


@pytest.mark.slow
@pytest.mark.parametrize("trainer", [("--steps", "9999", "--sleep", "0.05")])
def test_waiting_ends_before_the_job(worked: str, folders: Folders) -> None:
    async def steps(client: AgentClient) -> None:
        given = {"images": "photos", "points_file": "points.json"}
        dataset = value(await client.call_tool("create_dataset", given))
        job = value(await client.call_tool("train", {"dataset_id": dataset["id"]}))
        waited = await client.call_tool("wait_for_job", {"job_id": job["id"], "seconds": 0.3})
        assert value(waited)["over"] is False
        await client.call_tool("cancel_job", {"job_id": job["id"]})
        over = value(await client.call_tool("wait_for_job", {"job_id": job["id"], "seconds": 60}))
        assert over["state"] == "cancelled"

    ask(server_of(worked, folders), steps)


@pytest.mark.slow
@pytest.mark.service
def test_the_command_over_stdin(worked: str, photos: Photos) -> None:
    command = ["-m", "app.cli", "mcp", "--folder", str(photos[0].parent)]
    env = {**os.environ, "SAPNET_URL": worked}
    seen: list[str] = []

    async def steps(client: AgentClient) -> None:
        seen.extend(tool.name for tool in (await client.list_tools()).tools)
        given = {"images": "photos", "points_file": "points.json"}
        dataset = value(await client.call_tool("create_dataset", given))
        seen.append(dataset["id"])
        refused = await client.call_tool("show_image", {"path": "/etc/hostname"})
        assert refused.is_error

    ask(StdioServerParameters(command=sys.executable, args=command, env=env), steps)
    assert "train" in seen
    assert not DELETING & set(seen)


@pytest.mark.slow
@pytest.mark.service
def test_the_command_over_http_answers_this_machine_alone(
    worked: str, photos: Photos, start: Callable[..., Any], until: Callable[..., None]
) -> None:
    port = free_port()
    folder = str(photos[0].parent)
    start("app.cli", "mcp", "--http", "--port", str(port), "--folder", folder, SAPNET_URL=worked)
    url = f"http://127.0.0.1:{port}/mcp"

    def answers() -> bool:
        try:
            httpx2.get(url)
        except httpx2.TransportError:
            return False
        return True

    until(answers, 120)

    async def steps(client: AgentClient) -> None:
        assert value(await client.call_tool("list_datasets", {})) == []

    ask(url, steps)
    hello = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    accept = {"Accept": "application/json, text/event-stream"}
    for foreign in ({"Host": "example.org"}, {"Origin": "https://example.org"}):
        refused = httpx2.post(url, json=hello, headers={**accept, **foreign})
        assert refused.status_code in (403, 421), foreign


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "status"), [("Bearer s3cret", 200), ("Bearer x", 401), (None, 401)]
)
def test_a_token_that_requests_over_http_must_bring(
    sent: str | None, status: int, tmp_path: Path
) -> None:
    server = server_of("http://127.0.0.1:9", Folders.of([tmp_path]), token="s3cret")
    hello = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    headers = {"Accept": "application/json, text/event-stream"}
    headers |= {"Authorization": sent} if sent else {}
    app = server.streamable_http_app(host="127.0.0.1", stateless_http=True, json_response=True)
    with TestClient(app, base_url="http://127.0.0.1:8765") as http:
        assert http.post("/mcp", json=hello, headers=headers).status_code == status


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Square:
    """A model that sees the same square in every image."""

    categories = ()

    def predict(self, image: np.ndarray, score_threshold: float = 0.1) -> list[dict[str, Any]]:
        from sapnet.data.masks import encode

        mask = np.zeros(image.shape[:2], np.bool_)
        mask[:4, :4] = True
        box = [0.0, 0.0, 4.0, 4.0]
        found = {"category_id": 7, "segmentation": encode(mask), "bbox": box, "score": 0.9}
        return [found]
