"""What comes after a training: the review, exports, models and their names."""

import asyncio
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from sapnet_client import (
    AsyncClient,
    ChangedMeanwhile,
    Client,
    Conflict,
    Invalid,
    NotFound,
    Segmentation,
)
from sapnet_client.types import DatasetStatistics, Job, NextImage

Photos = tuple[Path, Path]


@pytest.fixture
def job(client: Client, photos: Photos) -> Job:
    return client.wait(client.train(client.create_dataset(*photos)))


@pytest.mark.slow
def test_the_review(client: Client, job: Job) -> None:
    queue = list(client.review(job))
    assert [m.quality for m in queue] == sorted(m.quality for m in queue)
    assert {m.id for m in queue} == {10, 11, 20, 21, 30, 31}
    assert all(m.candidates and m.point for m in queue)
    accepted = client.accept(queue[0])
    assert (accepted.status, accepted.revision) == ("accepted", queue[0].revision + 1)
    with pytest.raises(ChangedMeanwhile):
        client.reject(queue[0])
    assert client.reject(queue[1]).status == "rejected"
    chosen = client.choose(queue[2], 1)
    assert queue[2].candidates is not None
    assert chosen.segmentation == queue[2].candidates[1].segmentation
    whole = np.ones((30, 40), bool)
    corrected = client.correct(queue[3], whole)
    assert (corrected.status, corrected.area) == ("corrected", 1200)
    assert corrected.delivered == queue[3].segmentation
    assert client.mask(corrected) == corrected
    again = client.reopen(corrected)
    assert (again.status, again.segmentation) == ("open", queue[3].segmentation)
    assert client.correct(again, Segmentation.of(whole)).area == 1200
    counts = client.review_counts(job)
    assert counts == {"open": 2, "accepted": 1, "corrected": 2, "rejected": 1}
    assert [m.id for m in client.review(job, status="rejected")] == [queue[1].id]
    assert len(list(client.review(job, status=None))) == 6
    assert len(list(client.review(job, max_quality=0.3))) < len(list(client.review(job)))


@pytest.mark.slow
def test_training_again_from_what_was_decided(client: Client, job: Job) -> None:
    gone, whole, right, *_ = client.review(job)
    client.reject(gone)
    client.correct(whole, np.ones((30, 40), bool))
    client.accept(right)
    second = client.corrections(job, name="second")
    assert (second.name, second.parent_id, second.annotations) == ("second", job.dataset_id, 5)
    confirmed = {a.id: a.mask for a in client.annotations(second)}
    assert gone.id not in confirmed
    assert confirmed[whole.id] == Segmentation.of(np.ones((30, 40), bool))
    assert confirmed[right.id] == right.segmentation
    with pytest.raises(Invalid, match="architecture"):  # the stand-in's weights are none
        client.train(second, from_model=job.model_id)
    again = client.wait(client.train(second))
    compared = client.compare(job, again)
    assert {pair.id for pair in compared.masks} == confirmed.keys()
    assert (compared.quality.before.masks, compared.quality.after.masks) == (6, 5)
    assert compared.metrics.after.keys() == compared.metrics.before.keys()


@pytest.mark.slow
def test_a_data_set_with_its_parents_images(client: Client, photos: Photos) -> None:
    parent = client.create_dataset(*photos)
    child = client.create_dataset(None, photos[1], parent=parent, name="child")
    assert (child.name, child.parent_id, child.images) == ("child", parent.id, 3)
    assert client.image_bytes(child, 3) == client.image_bytes(parent, 3)


@pytest.mark.slow
def test_suggestions(client: Client, job: Job) -> None:
    mask = next(client.review(job))
    before = mask.segmentation.array()
    suggested = client.suggest(mask, [(30.5, 20.5), (2.5, 2.5, False)])
    array = suggested.segmentation.array()
    assert (array[20, 30], array[2, 2], before[20, 30]) == (True, False, False)
    assert array.sum() == suggested.area
    anew = client.suggest(mask.mask_id, [(30.5, 20.5)], np.zeros((30, 40), bool))
    assert anew.segmentation.array()[20, 30]
    assert client.mask(mask) == mask, "nothing is kept"


@pytest.mark.slow
def test_exports(client: Client, job: Job, tmp_path: Path) -> None:
    path = client.export(job, "coco", tmp_path / "out")
    coco = COCO(str(path))
    assert sorted(coco.anns) == [10, 11, 20, 21, 30, 31]
    assert coco.annToMask(coco.anns[10]).sum() == coco.anns[10]["area"]
    made = client.wait_for_export(client.create_export(job, "yolo-seg", images=True))
    assert made.report is not None
    assert made.report["masks"] == 6
    with zipfile.ZipFile(client.download_export(made, tmp_path / "yolo.zip")) as archive:
        assert any(name.endswith(".txt") for name in archive.namelist())
    assert [e.format for e in client.exports(job)] == ["yolo-seg", "coco"]
    client.delete_export(made)
    with pytest.raises(NotFound):
        client.get_export(made)


@pytest.mark.slow
def test_names_of_models(client: Client, job: Job, tmp_path: Path) -> None:
    assert job.model_id is not None
    made = client.set_alias("best", job.model_id)
    assert (made.name, made.model_id) == ("best", job.model_id)
    moved = client.set_alias("best", job.model_id)
    assert moved.revision == made.revision + 1
    with pytest.raises(ChangedMeanwhile):
        client.set_alias("best", job.model_id, expected=made)
    assert client.set_alias("best", job.model_id, expected=moved).revision == moved.revision + 1
    assert [a.name for a in client.aliases()] == ["best"]
    assert client.model("best").id == job.model_id
    assert client.download_model("best", tmp_path / "model.pt").stat().st_size > 0
    client.delete_alias("best")
    with pytest.raises(NotFound):
        client.alias("best")
    with pytest.raises(ValueError, match="safetensors"):
        client.download_model(job.model_id, format="h5")


@pytest.mark.slow
def test_points_and_confirmed_masks_of_a_data_set(client: Client, photos: Photos) -> None:
    dataset = client.create_dataset(*photos)
    points = json.loads(photos[1].read_text())["annotations"]
    found = list(client.annotations(dataset))
    assert [(a.id, a.point, a.mask) for a in found] == [(p["id"], p["point"], None) for p in points]
    assert [a.id for a in client.annotations(dataset, image_id=2)] == [20, 21]


@pytest.mark.slow
def test_a_version_with_other_images_and_classes(client: Client, photos: Photos) -> None:
    parent = client.create_dataset(*photos)
    version = client.create_version(
        parent, name="less", remove_images=[3], rename_classes={7: "nucleus"}, add_classes=["rod"]
    )
    assert (version.name, version.parent_id, version.images) == ("less", parent.id, 2)
    assert [(c.id, c.name, c.annotations) for c in version.categories] == [
        (7, "nucleus", 4),
        (8, "rod", 0),
    ]
    merged = client.create_version(version, merge_classes={8: 7})
    assert [c.id for c in merged.categories] == [7]


@pytest.mark.slow
def test_statistics_by_both_clients(client: Client, job: Job) -> None:
    assert job.dataset_id is not None
    told = client.statistics(job.dataset_id, job=job, min_distance=100.0, examples=1)
    assert (told.images, told.annotations, told.job_id) == (3, 6, job.id)
    assert [(c.id, c.annotations, c.images) for c in told.classes] == [(7, 6, 3)]
    close = next(f for f in told.findings if f.kind == "close_points")
    assert (close.count, len(close.examples)) == (3, 1)

    async def ask() -> DatasetStatistics:
        async with AsyncClient(client.url) as other:
            return await other.statistics(str(job.dataset_id), job=job, min_distance=100.0)

    assert asyncio.run(ask()).classes == told.classes
    labelled = client.create_version(job.dataset_id, remove_images=[1])
    with pytest.raises(Conflict):
        client.statistics(job.dataset_id, job=client.train(labelled))


@pytest.mark.slow
def test_next_images_by_both_clients(client: Client, job: Job) -> None:
    assert job.dataset_id is not None
    assert list(client.next_images(job.dataset_id)) == []  # all have points
    ranked = list(client.next_images(job.dataset_id, job=job, images="open"))
    assert sorted(image.image_id for image in ranked) == [1, 2, 3]
    assert all(image.reasons["uncertainty"] is not None for image in ranked)
    assert [i.score for i in ranked] == sorted((i.score for i in ranked), reverse=True)

    async def ask() -> list[NextImage]:
        async with AsyncClient(client.url) as other:
            return [i async for i in other.next_images(str(job.dataset_id), images="open")]

    assert asyncio.run(ask()) == ranked
    with pytest.raises(NotFound):
        next(iter(client.next_images("none")))


@pytest.mark.slow
def test_labelling_the_other_images(client: Client, photos: Photos) -> None:
    document = json.loads(photos[1].read_text())
    last = document["images"][-1]["id"]
    document["annotations"] = [a for a in document["annotations"] if a["image_id"] != last]
    photos[1].write_text(json.dumps(document))
    job = client.wait(client.train(client.create_dataset(*photos)))
    with pytest.raises(Invalid, match="no image 77"):
        client.label(job.model_id, images=[77])
    labelled = client.wait(client.label(job.model_id))
    (mask,) = client.review(labelled)
    assert (mask.image_id, mask.source, mask.category_id) == (last, "predicted", 7)
    rule = client.accept_from(labelled, 0.5)
    assert (rule.accepted, client.rules(labelled)) == (1, [rule])
    client.take_rule_back(labelled, rule)
    assert client.review_counts(labelled)["open"] == 1
    client.accept(client.mask(mask), category_id=7)
    (right, *_) = client.review(job)
    client.accept(right)
    second = client.corrections(job, also=[labelled], accepted_as="points")
    assert second.annotations == len(document["annotations"]) + 1
    assert all(a.mask is None for a in client.annotations(second))
