"""What is in a data set, and what in it looks wrong."""

from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import func, select
from starlette.testclient import TestClient

from app.datasets import descriptors
from app.datasets.removal import remove_deleted
from app.db.models import Annotation, ImageDescriptor, Job, JobState, PseudoMask
from worker.background.describer import Describer

pytestmark = [pytest.mark.both_stacks, pytest.mark.slow]


@pytest.fixture
def describer(app: FastAPI) -> Describer:
    return Describer(app.state.database, app.state.storage, app.state.settings)


@pytest.fixture
def dataset(client: TestClient, kit: Any) -> str:
    """Four images, the third without points, the fourth a copy of the first, of another split."""
    document = kit.points(images=4, each=0)
    for image in document["images"]:
        image["subset"] = "val" if image["id"] == 4 else "train"
    places = [(1, 5, 5), (1, 5, 5), (1, 6, 5), (1, 0.5, 20), (2, 5, 5), (2, 30, 20), (4, 20, 10)]
    document["annotations"] = [
        {"id": 10 + n, "image_id": i, "category_id": 7 if n == 5 else 0, "point": [x, y]}
        for n, (i, x, y) in enumerate(places)
    ]
    images = kit.images(3) | {"4.png": kit.image(seed=1)}
    answer = kit.upload(client, document, images)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def findings(client: TestClient, dataset: str, **params: Any) -> dict[str, Any]:
    answer = client.get(f"/datasets/{dataset}/statistics", params=params)
    assert answer.status_code == 200, answer.text
    return {finding["kind"]: finding for finding in answer.json()["findings"]}


def ids(finding: dict[str, Any]) -> list[tuple[int | None, int | None]]:
    return [(e["annotation_id"], e["other_annotation_id"]) for e in finding["examples"]]


def test_counts(client: TestClient, dataset: str) -> None:
    told = client.get(f"/datasets/{dataset}/statistics").json()
    assert (told["images"], told["images_without_annotations"], told["annotations"]) == (4, 1, 7)
    assert [(c["id"], c["annotations"], c["images"]) for c in told["classes"]] == [
        (0, 6, 3),
        (7, 1, 1),
    ]
    assert told["image_sizes"] == [{"width": 40, "height": 30, "images": 4}]
    spread = told["objects_per_image"]
    assert (spread["min"], spread["median"], spread["max"], spread["mean"]) == (0, 1.5, 4, 1.75)
    assert sum(group["images"] for group in told["images_by_objects"]) == 4
    assert told["mask_areas"] is None


def test_copies_are_found_once_a_worker_has_described_the_images(
    client: TestClient, dataset: str, describer: Describer
) -> None:
    before = client.get(f"/datasets/{dataset}/statistics").json()
    assert (before["described"], before["complete"]) == (0, False)
    assert "near_duplicates" not in findings(client, dataset)
    assert describer.run_once() == 3  # the copy is the same file
    assert describer.run_once() == 0
    after = client.get(f"/datasets/{dataset}/statistics").json()
    assert (after["described"], after["complete"], after["unreadable"]) == (4, True, 0)
    found = findings(client, dataset)
    (example,) = found["near_duplicates"]["examples"]
    assert (example["image_id"], example["other_image_ids"]) == (1, [4])
    assert found["duplicates_across_subsets"]["count"] == 1


def test_a_version_needs_no_image_described_again_and_what_is_gone_goes(
    app: FastAPI, client: TestClient, dataset: str, describer: Describer
) -> None:
    describer.run_once()
    made = client.post(f"/datasets/{dataset}/versions", json={"remove_images": [3]}).json()["id"]
    assert client.get(f"/datasets/{made}/statistics").json()["complete"]
    assert describer.run_once() == 0
    database = app.state.database
    for id_ in (dataset, made):
        assert client.delete(f"/datasets/{id_}").status_code == 204
    remove_deleted(database)
    descriptors.clean_up(database)
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(ImageDescriptor)) == 0


def test_points_that_lie_oddly(client: TestClient, dataset: str) -> None:
    found = findings(client, dataset)
    assert ids(found["duplicate_points"]) == [(10, 11)]
    assert ids(found["close_points"]) == [(10, 12), (11, 12)]
    assert found["close_points"]["count"] == 2
    assert found["close_points"]["examples"][0]["value"] == 1.0
    assert ids(found["border_points"]) == [(13, None)]
    assert found["images_without_points"]["examples"][0]["file_name"] == "3.png"
    fewer = findings(client, dataset, min_distance=0, examples=0)
    assert "close_points" not in fewer
    assert (fewer["duplicate_points"]["count"], fewer["duplicate_points"]["examples"]) == (1, [])


def test_points_of_which_a_training_made_no_good_mask(
    app: FastAPI, client: TestClient, dataset: str
) -> None:
    extras: dict[int, tuple[float, dict[str, Any]]] = {
        10: (0.3, {"proposal_source": "disc"}),
        11: (0.3, {"proposal_source": "hierarchy", "doubts": {"seen": 0.01}}),
        12: (0.1, {"proposal_source": "hierarchy", "doubts": {"seen": 0.6}}),
        13: (0.3, {"proposal_source": "hierarchy", "doubts": {"seen": None}}),
        14: (0.9, {"proposal_source": "hierarchy", "doubts": {"seen": 0.9}}),
    }
    with app.state.database.begin() as session:
        job = Job(
            dataset_id=dataset,
            method="sapnet",
            preset="cpu",
            seed=0,
            request={},
            state=JobState.SUCCEEDED,
        )
        session.add(job)
        session.flush()
        images = dict(session.execute(select(Annotation.annotation_id, Annotation.image_id)).all())
        box = {"x": 1.0, "y": 1.0, "w": 1.0, "h": 1.0, "area": 1.0}
        session.add_all(
            PseudoMask(
                job_id=job.id,
                annotation_id=id_,
                image_id=images[id_],
                category_id=0,
                segmentation={},
                quality=quality,
                source="selected",
                extra=extra,
                **box,
            )
            for id_, (quality, extra) in extras.items()
        )
        job_id = job.id
    found = findings(client, dataset, job=job_id)
    assert [e["annotation_id"] for e in found["outside_proposals"]["examples"]] == [10]
    assert [e["annotation_id"] for e in found["background_points"]["examples"]] == [11]
    assert [e["annotation_id"] for e in found["low_quality_masks"]["examples"]] == [12]
    made = client.post(f"/datasets/{dataset}/versions", json={"remove_images": [1]}).json()["id"]
    assert "outside_proposals" not in findings(client, made, job=job_id)  # these points are gone


def test_what_is_refused(client: TestClient, kit: Any, dataset: str) -> None:
    assert client.get("/datasets/none/statistics").status_code == 404
    path = f"/datasets/{dataset}/statistics"
    assert client.get(path, params={"job": "none"}).status_code == 404
    assert client.get(path, params={"min_distance": -1}).status_code == 422
