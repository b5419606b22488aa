"""Runs that hold images out: what they are trained on, what is measured, and resumed ones."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from sapnet.config.resolve import resolve_config
from sapnet.data.annotations.coco import load_points, read_truth
from sapnet.errors import InvalidConfig
from sapnet.evaluation import average_precision
from sapnet.evaluation.detections import detect
from sapnet.pipeline.spec import RunSpec
from sapnet.pipeline.validation import (
    as_truth,
    fully_confirmed,
    held_out_images,
    subset_metrics,
)
from sapnet.segmenters.checkpoint import load_predictor
from sapnet.types import ImageInfo, PointSet

from .conftest import go

HELD_OUT = {
    "train.hold_out": 0.25,
    "train.hold_out_least": 1,
    "train.hold_out_from": 4,
    "train.average": 0.3,
    "train.learning_rate": 5e-3,
    "solo.score_threshold": 0.001,
    "solo.keep_threshold": 0.0,
}


def must(outcome):
    if outcome.error is not None:
        raise outcome.error
    return outcome


def validations(outcome):
    return [event for event in outcome.events if event["event"] == "validation"]


@pytest.fixture(scope="module")
def whole(make_spec, tmp_path_factory):
    return must(go(make_spec(tmp_path_factory.mktemp("whole"), overrides=HELD_OUT)))


@pytest.mark.slow
def test_the_model_is_measured_on_what_it_was_not_trained_on(whole, scenes):
    figures = whole.report["metrics"]["validation"]
    (held,) = figures["images"]
    assert whole.events[0]["steps_total"] == 6  # three epochs of three images in pairs
    assert (figures["on"], figures["against"]) == ("1 images held out", "ground truth")
    points = json.loads(scenes.points.read_text())["annotations"]
    lines = (whole.spec.workdir / "result" / "pseudo_masks.ndjson").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [p["id"] for p in points]
    truth = json.loads(scenes.truth.read_text())
    truth["images"] = [image for image in truth["images"] if image["id"] == held]
    predictor = load_predictor(whole.spec.workdir / "result" / "model.pt", "cpu", ready=False)
    found = detect(predictor, whole.spec.image_paths, truth)
    expected = average_precision(found, truth, image_ids=[held])
    assert figures["AP25"] == pytest.approx(expected["AP25"], abs=0.01)
    told = validations(whole)
    assert [(e["step"], e["of"]) for e in told] == [(2, 6), (4, 6), (6, 6)]
    assert [{**e["figures"], "step": e["step"], "of": e["of"]} for e in told] == figures["history"]
    assert {e["against"] for e in told} == {"ground truth"}
    assert {c["category_id"] for c in figures["classes"]} <= {1, 2, 3}
    own = predictor.meta["validation"]
    assert (own["against"], own["AP50"]) == ("ground truth", figures["AP50"])
    assert own["score_threshold"] == (figures["at_best_f1"] or {}).get("score_threshold")
    assert predictor.meta["score_calibration"]["on"] == "1 images held out"


@pytest.mark.slow
def test_a_resumed_run_delivers_what_the_unbroken_one_does(whole, make_spec, tmp_path):
    spec = make_spec(tmp_path, overrides=HELD_OUT)
    assert go(spec, lambda event: (event.get("stage"), event.get("step")) == ("train", 3)).error
    resumed = must(go(spec))
    name = "metrics.json"
    ours, other = (r.spec.workdir / "result" / name for r in (whole, resumed))
    assert ours.read_text() == other.read_text()
    states = [
        torch.load(r.spec.workdir / "result" / "model.pt", weights_only=True)["state_dict"]
        for r in (whole, resumed)
    ]
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key


@pytest.mark.slow
def test_the_users_own_split_and_agreement_without_truth(make_spec, tmp_path):
    subsets = {1: "train", 2: "val", 3: "test", 4: "train"}
    spec = replace(make_spec(tmp_path), truth=None, subsets=subsets)
    outcome = must(go(spec))
    figures = outcome.report["metrics"]["validation"]
    assert (figures["images"], figures["against"]) == ([2], "delivered masks")
    assert outcome.events[0]["steps_total"] == 3
    assert outcome.report["metrics"]["model"] is None
    assert outcome.report["metrics"]["test"] is None  # nothing is known of the image of test
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["subsets"]
    refused = go(replace(spec, subsets={2: "val"})).error
    assert isinstance(refused, InvalidConfig)


@pytest.mark.parametrize(
    ("preset", "count", "least", "most"),
    [("cpu", 49, 0, 0), ("cpu", 50, 5, 10), ("demo", 60, 5, 12), ("paper_r50_1x", 60, 0, 0)],
)
def test_images_are_held_out_from_fifty_on_but_not_by_the_papers(
    tmp_path, preset, count, least, most
):
    paths = {}
    for id_ in range(count):
        paths[id_] = tmp_path / f"{id_}.png"
        paths[id_].write_bytes(b"%d" % id_)
    points = PointSet(tuple(ImageInfo(id_, f"{id_}.png", 8, 8) for id_ in paths), (), ())
    spec = RunSpec(points, paths, tmp_path, tmp_path, preset=preset)
    context = SimpleNamespace(spec=spec, config=resolve_config(preset=preset))
    validated, untrained = held_out_images(context, points)
    assert validated == untrained
    assert least <= len(validated) <= most


def split_of(tmp_path, count, changes, **spec):
    """Of images without content of their own, what is validated and what is not trained on."""
    paths = {}
    for id_ in range(count):
        paths[id_] = tmp_path / f"{id_}.png"
        paths[id_].write_bytes(b"%d" % id_)
    images = (ImageInfo(id_, f"{id_}.png", 8, 8, **changes.get(id_, {})) for id_ in paths)
    points = PointSet(tuple(images), (), ())
    told = []
    context = SimpleNamespace(
        spec=RunSpec(points, paths, tmp_path, tmp_path, **spec),
        config=resolve_config(preset="cpu"),
        warn=told.append,
    )
    return *held_out_images(context, points), told


def test_the_split_of_the_points(tmp_path):
    changes = {1: {"subset": "val"}, 2: {"subset": "test"}, 3: {"subset": "train"}}
    assert split_of(tmp_path, 5, changes) == ({1}, {1, 2}, [])
    assert split_of(tmp_path, 5, changes, subsets={4: "val"}) == ({4}, {4}, [])
    validated, untrained, told = split_of(tmp_path, 2, {n: {"subset": "test"} for n in range(2)})
    assert (validated, untrained, len(told)) == (set(), set(), 1)


def test_without_val_a_share_of_the_images_without_a_subset_is_held_out(tmp_path):
    changes = {n: {"subset": "train"} for n in range(20)} | {20: {"subset": "test"}}
    assert split_of(tmp_path, 60, changes) == (set(), {20}, [])  # 39 are too few
    validated, untrained, _ = split_of(tmp_path, 80, changes)
    assert 5 <= len(validated) <= 12
    assert min(validated) > 20
    assert untrained == validated | {20}


def test_images_of_a_group_are_held_out_together(tmp_path):
    validated, _, _ = split_of(tmp_path, 80, {n: {"group": str(n // 4)} for n in range(80)})
    assert validated
    assert all(len([n for n in validated if n // 4 == group]) in (0, 4) for group in range(20))


def test_a_group_stays_with_its_image_that_has_a_subset(tmp_path):
    fields = {n: {"group": str(n // 4)} for n in range(120)}
    for n in range(0, 60, 4):  # the first fifteen groups are trained on
        fields[n]["subset"] = "train"
    validated, _, _ = split_of(tmp_path, 120, fields)
    assert validated
    assert min(validated) >= 60


def test_the_images_of_test_are_measured_at_the_end(scenes):
    points = load_points(scenes.points)
    truth = read_truth(scenes.truth)
    tested = points.images[0].id
    found = [
        {**a, "score": 0.9} for a in truth["annotations"] if a["image_id"] in (tested, tested + 1)
    ]
    context = SimpleNamespace(failed=set())
    figures = subset_metrics(context, points, {tested}, found, truth)
    assert (figures["on"], figures["against"]) == ("1 images of the subset test", "ground truth")
    assert (figures["images"], figures["AP"]) == ([tested], 1.0)
    assert subset_metrics(context, points, {tested}, [], truth)["AP"] == 0.0
    assert subset_metrics(context, points, {tested}, found, None) is None


def test_subsets_of_a_job_are_read(make_spec, tmp_path):
    spec = make_spec(tmp_path)
    job = {"points": str(spec.points), "workdir": "w", "proposal_store": "p", "image_paths": {}}
    path = tmp_path / "JOB.json"
    path.write_text(json.dumps({**job, "subsets": {"17": "val"}}))
    assert RunSpec.read(path).subsets == {17: "val"}
    path.write_text(json.dumps({**job, "subsets": {"17": "dev"}}))
    with pytest.raises(InvalidConfig, match="not \\['dev'\\]"):
        RunSpec.read(path)


def test_images_that_are_confirmed_as_a_whole(scenes):
    points = load_points(scenes.points)
    masks = {
        item["id"]: item["segmentation"]
        for item in json.loads(scenes.truth.read_text())["annotations"]
    }
    first, second = points.images[:2]
    of_first = points.annotations_of[first.id]
    annotations = tuple(
        replace(a, mask=masks[a.id])
        if a.image_id == first.id or a is points.annotations_of[second.id][0]
        else a
        for a in points.annotations
    )
    confirmed = fully_confirmed(replace(points, annotations=annotations))
    assert [image.id for image in confirmed.images] == [first.id]
    truth = as_truth(points, confirmed.annotations, {a.id: a.mask for a in confirmed.annotations})
    assert [item["id"] for item in truth["annotations"]] == [a.id for a in of_first]
    found = [{**item, "score": 0.5} for item in truth["annotations"]]
    assert average_precision(found, truth)["AP"] == pytest.approx(1)
