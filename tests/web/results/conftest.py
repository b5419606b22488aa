"""A training on generated scenes that has ended, for the views of what came of it."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from playwright.sync_api import Page

from sapnet.data.synthetic import make_scenes

TRAINER = Path(__file__).with_name("scene_trainer.py")


@dataclass(frozen=True)
class Trained:
    """A service, a data set of scenes with truth, and a job that has ended."""

    service: Any
    dataset: str
    job: str
    masks: int

    def queue(self, **params: Any) -> list[dict[str, Any]]:
        """The masks, worst first."""
        answer = httpx2.get(
            f"{self.service.url}/jobs/{self.job}/review", params={"limit": 1000, **params}
        )
        return list(answer.raise_for_status().json()["masks"])

    def reject(self, mask: dict[str, Any]) -> None:
        """As somebody else does, elsewhere."""
        answer = httpx2.patch(
            f"{self.service.url}/masks/{mask['mask_id']}",
            json={"decision": "reject"},
            headers={"If-Match": f'"{mask["revision"]}"'},
        )
        assert answer.status_code == 200, answer.text

    def mask(self, mask_id: str) -> dict[str, Any]:
        return dict(self.service.ask(f"/masks/{mask_id}"))


@pytest.fixture(scope="session")
def shared_service(start_service: Callable[..., Any]) -> Any:
    """In place of the other folder's: its trainer knows the truth."""
    return start_service(real=True, trainer_command=json.dumps([sys.executable, str(TRAINER)]))


@pytest.fixture
def service(shared_service: Any) -> Any:
    return shared_service


@pytest.fixture(scope="session")
def scenes(shared_service: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], str]:
    """A new data set of so many scenes; its id."""
    made = make_scenes(tmp_path_factory.mktemp("scenes"), 8, size=(160, 208), seed=3)

    def post(count: int = 8) -> str:
        document, truth = (json.loads(path.read_text()) for path in (made.points, made.truth))
        for part in (document, truth):
            part["images"] = part["images"][:count]
            ids = {image["id"] for image in part["images"]}
            part["annotations"] = [a for a in part["annotations"] if a["image_id"] in ids]
        files = [
            ("annotations", ("points.json", json.dumps(document))),
            ("truth", ("truth.json", json.dumps(truth))),
        ]
        for image in document["images"]:
            path = made.images / image["file_name"]
            files.append(("images", (path.name, path.read_bytes())))
        answer = httpx2.post(
            f"{shared_service.url}/datasets", data={"name": "scenes"}, files=files, timeout=60
        )
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    return post


@pytest.fixture
def trained(service: Any, scenes: Callable[[int], str]) -> Trained:
    """Of the test's own, so that what it decides concerns no other."""
    dataset = scenes(4)
    job = service.job(dataset)
    return Trained(service, dataset, job, service.ask(f"/datasets/{dataset}")["annotations"])


@pytest.fixture
def review(ui: Any, trained: Any) -> Callable[..., Page]:
    def open(query: str = "") -> Page:
        page = ui.open(f"/jobs/{trained.job}/review{query}")
        page.wait_for_selector(".proposal[data-drawn]")
        return page

    return open
