"""Images that fail in a stage are left out, and batches that do not fit are halved."""

import errno
import json
from dataclasses import replace

import pytest
import torch
from PIL import Image, ImageFile

from sapnet.data.images import ImageProblem, read_rgb
from sapnet.errors import InvalidConfig, OutOfMemory
from sapnet.pipeline import stages as pipeline
from sapnet.pipeline.contract import ExitCode
from sapnet.pipeline.execute import execute
from sapnet.pipeline.failed_images import FailedImages, TooManyBadImages
from sapnet.training import loop as engine
from sapnet.types import ImageInfo, PointAnnotation, PointSet

SIZES = [(48, 64)] * 4
POINTS = [(image, 4, 20.0 + image, 20.0) for image in range(4)]
TWO = {"train.epochs": 1, "train.batch_size": 2}


def messages(outcome, event="warning"):
    return [e.get("message") for e in outcome.events if e["event"] == event]


def masks_of(spec):
    lines = (spec.workdir / "result" / "pseudo_masks.ndjson").read_text().splitlines()
    return [json.loads(line)["image_id"] for line in lines]


def spoiler(spec):
    """Empties the file of image 0 once its proposals are there."""

    def spoil(event):
        if event.get("stage") == "proposals" and event["step"] == 3:
            spec.image_paths[0].write_bytes(b"")
        return False

    return spoil


def must(outcome):
    if outcome.error:
        raise outcome.error
    return outcome


@pytest.mark.slow
def test_an_unreadable_image_is_set_aside_and_the_run_goes_on(small_world, go):
    spec = small_world(SIZES, POINTS, overrides=TWO)
    spec.image_paths[2].write_bytes(b"no image")
    outcome = must(go(spec))
    (entry,) = outcome.report["set_aside"]
    assert (entry["image_id"], entry["file_name"], entry["stage"]) == (2, "2.png", "proposals")
    assert "no image of a known format" in entry["error"]
    assert outcome.report["images"] == 3
    assert masks_of(spec) == [0, 1, 3]
    assert messages(outcome, "image_set_aside") == [None]
    (words,) = [m for m in messages(outcome) if "left out" in m]
    assert words.startswith("1 of 4 images failed and were left out: image 2 (2.png) in proposals")
    again = must(go(spec))  # which trains no more, and does without the same image
    assert again.steps == {}
    assert again.report["set_aside"] == outcome.report["set_aside"]


@pytest.mark.slow
def test_a_generator_that_fails_on_one_image(small_world, go, monkeypatch):
    make = pipeline.CachedProposals.make

    def failing(self, info, annotations):
        if info.id == 1:
            raise IndexError("list index out of range")
        return make(self, info, annotations)

    monkeypatch.setattr(pipeline.CachedProposals, "make", failing)
    outcome = must(go(small_world(SIZES, POINTS, overrides=TWO)))
    (entry,) = outcome.report["set_aside"]
    assert (entry["image_id"], entry["error"]) == (1, "IndexError: list index out of range")


@pytest.mark.slow
def test_an_image_that_is_gone_when_training_wants_it(small_world, go):
    """Its place is taken by the next one, so the batches stay full; no masks are made for it."""
    spec = small_world(SIZES, POINTS, overrides={"train.epochs": 2, "train.batch_size": 2})
    outcome = must(go(spec, spoiler(spec)))
    (entry,) = outcome.report["set_aside"]
    assert (entry["image_id"], entry["stage"]) == (0, "train")
    assert len(outcome.steps) == 4
    assert masks_of(spec) == [1, 2, 3]


@pytest.mark.slow
def test_an_image_that_the_teacher_cannot_read(small_world, go):
    overrides = {**TWO, "teacher.enabled": True, "teacher.epochs": 1, "teacher.min_steps": 1}
    spec = small_world(SIZES, POINTS, overrides=overrides)

    outcome = must(go(spec, spoiler(spec)))
    (entry,) = outcome.report["set_aside"]
    assert (entry["image_id"], entry["stage"]) == (0, "teacher")
    assert masks_of(spec) == [1, 2, 3]


@pytest.mark.slow
def test_a_pseudo_mask_that_fails(small_world, go, monkeypatch):
    make = pipeline.label_image

    def failing(model, record, wanted):
        if record.info.id == 2:
            raise ValueError("no tree")
        return make(model, record, wanted)

    monkeypatch.setattr(pipeline, "label_image", failing)
    spec = small_world(SIZES, POINTS, overrides=TWO)
    outcome = must(go(spec))
    (entry,) = outcome.report["set_aside"]
    assert (entry["image_id"], entry["stage"]) == (2, "pseudo-masks")
    assert masks_of(spec) == [0, 1, 3]


@pytest.mark.slow
def test_no_image_is_at_fault_for_a_full_gpu(small_world, go, monkeypatch):
    """The run ends, none is left out, and started again it goes on."""
    make, full = pipeline.label_image, [True]

    def failing(model, record, wanted):
        if record.info.id == 2 and full:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return make(model, record, wanted)

    monkeypatch.setattr(pipeline, "label_image", failing)
    spec = small_world(SIZES, POINTS, overrides=TWO)
    assert isinstance(go(spec).error, torch.OutOfMemoryError)
    full.clear()
    assert must(go(spec)).report["set_aside"] == []
    assert masks_of(spec) == [0, 1, 2, 3]


REFUSALS = [
    MemoryError(),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] can't allocate memory: you tried to"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=range(len(REFUSALS)))
def test_refused_memory_is_told_as_a_failed_attempt(refusal, monkeypatch, tmp_path):
    found, events = FailedImages(tmp_path / "q.json", 9, 0.5, lambda _: None), []

    def work():
        with found.catch(ImageInfo(3, "3.png", 4, 4), "proposals"):
            try:
                raise refusal
            except type(refusal) as error:
                raise ValueError("a library's own words") from error

    assert execute(work, events.append) == ExitCode.FAILED
    assert found.entries == []
    assert [e.to_dict()["reason"] for e in events] == ["attempt_failed"]
    assert "out of memory" in events[0].message


@pytest.mark.parametrize("refusal", [MemoryError(), OSError(errno.ENOMEM, "no memory")])
def test_an_image_whose_decoding_is_refused_memory_is_no_damaged_one(
    refusal, monkeypatch, tmp_path
):
    Image.new("RGB", (4, 3)).save(tmp_path / "a.png")

    def load(_image):
        raise refusal

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(type(refusal)):
        read_rgb(tmp_path / "a.png")


@pytest.mark.slow
def test_too_many_fail_and_a_repaired_run_looks_anew(small_world, go):
    spec = small_world(SIZES, POINTS, overrides=TWO)
    whole = [spec.image_paths[i].read_bytes() for i in range(4)]
    for index in (1, 2):
        spec.image_paths[index].write_bytes(b"")
    outcome = go(spec)
    assert isinstance(outcome.error, TooManyBadImages)
    assert "2 of 4 images failed" in str(outcome.error)
    assert "no more than 1 may fail" in str(outcome.error)
    assert must(go(replace(spec, max_bad_images=0.5))).report["images"] == 2
    for index in (1, 2):
        spec.image_paths[index].write_bytes(whole[index])
    fresh = replace(spec, workdir=spec.workdir.with_name("fresh"), max_bad_images=0.0)
    assert must(go(fresh)).report["set_aside"] == []


@pytest.mark.parametrize(
    ("images", "share", "allowed"),
    [(200, 0.05, 10), (10, 0.05, 1), (10, 0.0, 0), (1, 0.05, 0), (2, 1.0, 1), (0, 0.5, -1)],
)
def test_how_many_may_fail(tmp_path, images, share, allowed):
    found = FailedImages(tmp_path / "q.json", images, share, lambda _: None)
    assert found.allowed == allowed


def test_what_is_not_the_images_fault_is_raised(tmp_path):
    found = FailedImages(tmp_path / "q.json", 9, 0.5, lambda _: None)
    info = ImageInfo(3, "3.png", 4, 4)
    for error in (InvalidConfig("no"), OSError(28, "No space left on device")):
        with pytest.raises(type(error)), found.catch(info, "proposals"):
            raise error
    assert found.entries == []
    with found.catch(info, "proposals"):
        raise ImageProblem("broken")
    again = FailedImages(tmp_path / "q.json", 9, 0.5, lambda _: None)
    assert 3 in again
    points = PointSet((info,), (PointAnnotation(1, 3, 0, 1.0, 1.0),), ())
    assert again.without(points) == PointSet((), (), ())


def only_small_batches(monkeypatch, most):
    """A GPU that holds `most` images. Returns the sizes of the batches that were tried."""
    step, tried = engine.training_step, []

    def training_step(model, optimizer, samples, *rest):
        tried.append(len(samples))
        if len(samples) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return step(model, optimizer, samples, *rest)

    monkeypatch.setattr(engine, "training_step", training_step)
    return tried


@pytest.mark.slow
def test_a_batch_that_does_not_fit_is_halved(small_world, go, monkeypatch):
    tried = only_small_batches(monkeypatch, 1)
    spec = small_world(SIZES, POINTS, overrides={"train.epochs": 2, "train.batch_size": 4})
    outcome = must(go(spec))
    assert tried == [4, 2] + [1] * 8
    assert sorted(outcome.steps) == list(range(1, 9))
    words = [m for m in messages(outcome) if "out of GPU memory" in m]
    assert [w.split("goes on with ")[1][0] for w in words] == ["2", "1"]


@pytest.mark.slow
def test_a_resumed_run_keeps_the_smaller_batch(small_world, go, monkeypatch):
    tried = only_small_batches(monkeypatch, 2)
    spec = small_world(SIZES, POINTS, overrides={"train.epochs": 2, "train.batch_size": 4})
    go(spec, lambda event: event.get("stage") == "train" and event["step"] == 2)
    assert tried == [4, 2, 2]
    outcome = must(go(spec))
    assert tried == [4, 2, 2, 2, 2]
    assert sorted(outcome.steps) == [3, 4]


@pytest.mark.slow
def test_a_batch_of_one_that_does_not_fit(small_world, go, monkeypatch):
    only_small_batches(monkeypatch, 0)
    outcome = go(small_world(SIZES, POINTS, overrides=TWO))
    assert isinstance(outcome.error, OutOfMemory)
    assert "batch of 1" in str(outcome.error)
