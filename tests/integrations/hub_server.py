"""A small Hugging Face hub: the requests that its own client makes, answered from memory.

Repositories, branches and commits are as the hub has them: a commit is a list of NDJSON lines, and
large files go by Git LFS before it. Xet, by which the hub takes large files today, is not there:
HF_HUB_DISABLE_XET=1 makes the client go by LFS.
"""

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

TOKEN = "hf_right"
LFS_SUFFIXES = (".safetensors", ".png", ".jpg")


@dataclass
class Repository:
    """What a repository has on its branch main."""

    private: bool = False
    files: dict[str, bytes] = field(default_factory=dict)
    commits: int = 0

    @property
    def sha(self) -> str:
        return hashlib.sha1(str(self.commits).encode()).hexdigest()


class Hub:
    """The hub's HTTP API. `repositories` are by kind and id, such as "models/anna/cells"."""

    def __init__(self) -> None:
        self.url = ""
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        one = "/api/{kind}/{owner}/{name}"
        git = "/{owner}/{name}.git/info/lfs/objects/batch"
        file = "/{owner}/{name}/resolve/{revision}/{path:path}"
        self.app = Starlette(
            routes=[
                Route("/api/whoami-v2", self.whoami),
                Route("/api/validate-yaml", self.validate, methods=["POST"]),
                Route("/api/repos/create", self.create, methods=["POST"]),
                Route(one, self.info),
                Route(f"{one}/revision/{{revision}}", self.info),
                Route(f"{one}/tree/{{revision}}", self.tree),
                Route(f"{one}/tree/{{revision}}/{{path:path}}", self.tree),
                Route(f"{one}/preupload/{{revision}}", self.preupload, methods=["POST"]),
                Route(f"{one}/commit/{{revision}}", self.commit, methods=["POST"]),
                Route(git, self.batch, methods=["POST"]),
                Route(f"/datasets{git}", self.batch, methods=["POST"]),
                Route("/lfs/{oid}", self.put, methods=["PUT"]),
                Route(file, self.resolve),
                Route(f"/datasets{file}", self.resolve),
            ]
        )

    def repository(self, request: Request) -> Repository | None:
        kind = "datasets" if request.url.path.startswith("/datasets/") else "models"
        parts = request.path_params
        return self.repositories.get(f"{parts.get('kind', kind)}/{parts['owner']}/{parts['name']}")

    def refused(self, request: Request, repository: Repository | None) -> Response | None:
        known = request.headers.get("authorization") == f"Bearer {TOKEN}"
        writes = request.method in ("POST", "PUT")
        if not known and (writes or (repository is not None and repository.private)):
            text = "Invalid username or password."
            return JSONResponse({"error": text}, 401, {"X-Error-Message": text})
        if repository is None:
            headers = {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}
            return JSONResponse({"error": "Repository not found"}, 404, headers)
        return None

    async def whoami(self, request: Request) -> Response:
        return JSONResponse({"type": "user", "name": "anna", "orgs": []})

    async def validate(self, request: Request) -> Response:
        """The head of a card, as far as its YAML can be read and has the fields of the hub."""
        body = await request.json()
        parts = body["content"].split("---\n", 2)
        errors = []
        try:
            head = yaml.safe_load(parts[1]) if len(parts) == 3 else {}
            for name in ("tags", "task_categories", "configs", "model-index"):
                if not isinstance(head.get(name, []), list):
                    errors.append({"message": f'"{name}" must be an array'})
        except yaml.YAMLError as error:
            errors.append({"message": str(error)})
        status = 400 if errors else 200
        return JSONResponse({"errors": errors, "warnings": []}, status)

    async def create(self, request: Request) -> Response:
        body = await request.json()
        kind = f"{body.get('type') or 'model'}s"
        id_ = f"{body.get('organization') or 'anna'}/{body['name'].rpartition('/')[2]}"
        if refusal := self.refused(request, Repository()):
            return refusal
        url = f"{self.url}/{'datasets/' if kind == 'datasets' else ''}{id_}"
        if f"{kind}/{id_}" in self.repositories:
            return JSONResponse({"error": "You already created it", "url": url}, 409)
        private = bool(body.get("private")) or body.get("visibility") == "private"
        self.repositories[f"{kind}/{id_}"] = Repository(private)
        return JSONResponse({"url": url, "id": id_, "name": id_})

    async def info(self, request: Request) -> Response:
        repository = self.repository(request)
        if refusal := self.refused(request, repository):
            return refusal
        assert repository is not None
        parts = request.path_params
        return JSONResponse(
            {
                "_id": "0",
                "id": f"{parts['owner']}/{parts['name']}",
                "sha": repository.sha,
                "private": repository.private,
                "tags": [],
                "siblings": [{"rfilename": name} for name in sorted(repository.files)],
            }
        )

    async def tree(self, request: Request) -> Response:
        repository = self.repository(request)
        if refusal := self.refused(request, repository):
            return refusal
        assert repository is not None
        below = request.path_params.get("path", "")
        entries = [
            {"type": "file", "path": name, "size": len(data), "oid": git_oid(data)}
            | ({"lfs": lfs(data)} if name.endswith(LFS_SUFFIXES) else {})
            for name, data in sorted(repository.files.items())
            if not below or name.startswith(f"{below}/")
        ]
        return JSONResponse(entries)

    async def preupload(self, request: Request) -> Response:
        if refusal := self.refused(request, self.repository(request)):
            return refusal
        files = (await request.json())["files"]
        return JSONResponse(
            {
                "files": [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if file["path"].endswith(LFS_SUFFIXES) else "regular",
                        "shouldIgnore": False,
                    }
                    for file in files
                ]
            }
        )

    async def batch(self, request: Request) -> Response:
        if refusal := self.refused(request, self.repository(request)):
            return refusal
        objects = []
        for wanted in (await request.json())["objects"]:
            action = {"upload": {"href": f"{self.url}/lfs/{wanted['oid']}"}}
            there = wanted["oid"] in self.blobs
            objects.append({**wanted, **({} if there else {"actions": action})})
        return JSONResponse({"transfer": "basic", "objects": objects})

    async def put(self, request: Request) -> Response:
        data = await request.body()
        oid = request.path_params["oid"]
        if hashlib.sha256(data).hexdigest() != oid:
            return JSONResponse({"error": "other bytes than announced"}, 400)
        self.blobs[oid] = data
        return Response()

    async def commit(self, request: Request) -> Response:
        repository = self.repository(request)
        if refusal := self.refused(request, repository):
            return refusal
        assert repository is not None
        for line in (await request.body()).splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                if value["oid"] not in self.blobs:
                    return JSONResponse({"error": "the LFS pointer has no object"}, 400)
                repository.files[value["path"]] = self.blobs[value["oid"]]
        repository.commits += 1
        parts = request.path_params
        url = f"{self.url}/{parts['owner']}/{parts['name']}/commit/{repository.sha}"
        return JSONResponse(
            {"success": True, "commitOid": repository.sha, "commitUrl": url, "hookOutput": ""}
        )

    async def resolve(self, request: Request) -> Response:
        repository = self.repository(request)
        if refusal := self.refused(request, repository):
            return refusal
        assert repository is not None
        data = repository.files.get(request.path_params["path"])
        if data is None:
            headers = {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
            return JSONResponse({"error": "Entry not found"}, 404, headers)
        headers = {
            "X-Repo-Commit": repository.sha,
            "ETag": f'"{git_oid(data)}"',
            "Accept-Ranges": "bytes",
        }
        if request.path_params["path"].endswith(LFS_SUFFIXES):
            headers["X-Linked-Etag"] = f'"{hashlib.sha256(data).hexdigest()}"'
            headers["X-Linked-Size"] = str(len(data))
        return Response(data, headers=headers, media_type="application/octet-stream")


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def lfs(data: bytes) -> dict[str, Any]:
    return {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}


@contextmanager
def serve() -> Iterator[Hub]:
    """Serve a hub on loopback from a thread."""
    hub = Hub()
    config = uvicorn.Config(hub.app, port=0, log_config=None, log_level="error")
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        assert thread.is_alive()
        time.sleep(0.01)
    hub.url = f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
    try:
        yield hub
    finally:  # else the process of a test that fails waits for this thread
        running.should_exit = True
        thread.join()
