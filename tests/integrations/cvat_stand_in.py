"""A stand-in for CVAT's server, in the layouts of its API 2.80, as far as this project asks it.

No CVAT server can be started from PyPI. Requests and answers are the SDK's own models on the other
side, which check types and required members, so what is wrong with a layout fails there.
"""

import io
import json
import re
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "a-token"
_ABOUT = ("description", "subtitle", "logo_url")


class StandIn:
    """One task.

    Attributes:
        images: name and file of each frame.
        labels: name -> (id, type).
        shapes: as they are stored, with ids.
        asked: method and path of each request.
        fail_after: how many more writes are done before they are answered with 502.
    """

    def __init__(self, task: int, images: dict[str, bytes], labels: dict[str, tuple[int, str]]):
        self.task, self.images, self.labels = task, images, labels
        self.shapes: list[dict[str, Any]] = []
        self.asked: list[tuple[str, str]] = []
        self.fail_after: int | None = None
        self.sizes: dict[str, tuple[int, int]] = {}
        self.url = ""
        self._ids = count(100)

    def draw(self, kind: str, frame: int, label: str, points: list[float], **more: Any) -> None:
        """What a person draws."""
        shape = {"type": kind, "frame": frame, "label_id": self.labels[label][0], "points": points}
        self.shapes.append(self._stored({**shape, "source": "manual", **more}))

    def _stored(self, shape: dict[str, Any]) -> dict[str, Any]:
        defaults = {
            "occluded": False,
            "outside": False,
            "z_order": 0,
            "rotation": 0.0,
            "group": 0,
            "score": 1.0,
            "attributes": [],
            "elements": [],
        }
        return {**defaults, **shape, "id": next(self._ids)}

    def get(self, path: str, query: dict[str, list[str]]) -> Any:
        """An answer: a document, bytes, or None for what there is not."""
        own = f"/api/tasks/{self.task}"
        if path == "/api/server/about":
            return {"name": "CVAT", "version": "2.80.0", **dict.fromkeys(_ABOUT, "")}
        if path == own:
            return self._task()
        if path == "/api/labels":
            labels = [
                {
                    "id": i,
                    "name": n,
                    "type": t,
                    "color": "#fff",
                    "task_id": self.task,
                    "attributes": [],
                    "sublabels": [],
                    "has_parent": False,
                }
                for n, (i, t) in self.labels.items()
            ]
            return {"count": len(labels), "next": None, "previous": None, "results": labels}
        if path == f"{own}/data/meta":
            return self._meta()
        if path == f"{own}/annotations":
            return {"version": 3, "tags": [], "shapes": self.shapes, "tracks": []}
        if path == f"{own}/data" and query["type"] == ["frame"]:
            return list(self.images.values())[int(query["number"][0])]
        if path == f"{own}/data" and query["type"] == ["chunk"]:
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w") as archive:
                for number, data in enumerate(self.images.values()):
                    archive.writestr(f"{number:06d}.png", data)
            return buffer.getvalue()
        return None

    def patch(self, action: str, shapes: list[dict[str, Any]]) -> Any:
        """Create or delete shapes; the answer has the ids."""
        if action == "create":
            made = [self._stored(shape) for shape in shapes]
            self.shapes += made
            return {"version": 4, "tags": [], "shapes": made, "tracks": []}
        assert action == "delete", action
        gone = {shape["id"] for shape in shapes}
        self.shapes = [shape for shape in self.shapes if shape["id"] not in gone]
        return {"version": 4, "tags": [], "shapes": shapes, "tracks": []}

    def _task(self) -> dict[str, Any]:
        link = {"url": f"{self.url}/api/x?task_id={self.task}", "count": 1}
        person = {"url": f"{self.url}/api/users/1", "id": 1, "username": "ann", "first_name": "A"}
        return {
            "url": f"{self.url}/api/tasks/{self.task}",
            "id": self.task,
            "name": "apples",
            "project_id": None,
            "mode": "annotation",
            "owner": {**person, "last_name": "B"},
            "assignee": None,
            "bug_tracker": "",
            "created_date": "2026-11-30T15:00:00Z",
            "updated_date": "2026-11-30T15:00:00Z",
            "status": "annotation",
            "overlap": 0,
            "segment_size": len(self.images),
            "data_chunk_size": 72,
            "data_compressed_chunk_type": "imageset",
            "data_original_chunk_type": "imageset",
            "size": len(self.images),
            "image_quality": 70,
            "data": 1,
            "dimension": "2d",
            "subset": "",
            "organization": None,
            "organization_id": None,
            "jobs": {**link, "completed": 0, "validation": 0},
            "labels": {"url": f"{self.url}/api/labels?task_id={self.task}"},
            "guide_id": None,
            "source_storage": None,
            "target_storage": None,
            "assignee_updated_date": None,
            "data_cloud_storage_id": None,
            "project_name": None,
            "validation_mode": None,
            "media_type": "images",
        }

    def _meta(self) -> dict[str, Any]:
        frames = [
            {
                "name": name,
                "width": self.sizes[name][0],
                "height": self.sizes[name][1],
                "related_files": 0,
                "has_related_context": False,
            }
            for name in self.images
        ]
        return {
            "chunks_updated_date": "2026-11-30T15:00:00Z",
            "chunk_size": 72,
            "size": len(frames),
            "image_quality": 70,
            "start_frame": 0,
            "stop_frame": len(frames) - 1,
            "frame_filter": "",
            "frames": frames,
            "deleted_frames": [],
            "included_frames": None,
            "chapters": None,
            "storage": "local",
            "cloud_storage_id": None,
        }


@contextmanager
def serving(server: StandIn) -> Iterator[str]:
    """Behind a real HTTP server; its URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self, status: int, document: Any) -> None:
            binary = isinstance(document, bytes)
            data = document if binary else json.dumps(document).encode()
            self.send_response(status)
            kind = "application/octet-stream" if binary else "application/vnd.cvat+json"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _admitted(self) -> bool:
            parts = urlsplit(self.path)
            server.asked.append((self.command, parts.path.rstrip("/")))
            known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
            if known or parts.path == "/api/server/about":
                return True
            self._answer(401, {"detail": "Authentication credentials were not provided."})
            return False

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            if self._admitted():
                found = server.get(parts.path.rstrip("/"), parse_qs(parts.query))
                self._answer(404 if found is None else 200, found or {"detail": "Not found."})

        def do_PATCH(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not self._admitted():
                return
            if server.fail_after is not None:
                server.fail_after -= 1
                if server.fail_after < 0:
                    self._answer(502, {"detail": "Bad gateway"})
                    return
            action = parse_qs(urlsplit(self.path).query)["action"][0]
            assert re.fullmatch(
                rf"/api/tasks/{server.task}/annotations/?", urlsplit(self.path).path
            )
            self._answer(200, server.patch(action, body["shapes"]))

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.url
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
