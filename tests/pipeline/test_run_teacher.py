"""Whole runs with a teacher: its stage, stopped in it and taken up again, and odd data."""

import json

import numpy as np
import pytest
from PIL import Image

from sapnet.config.methods import for_uncalibrated_proposals
from sapnet.config.schema import Config
from sapnet.errors import InvalidConfig, Stopped
from sapnet.labelers.sapnet.teacher.cache import read_proposal_scores
from sapnet.pipeline.contract import Stage

TAUGHT = {
    "train.epochs": 1,
    "teacher.enabled": True,
    "teacher.epochs": 1,
    "teacher.min_steps": 3,
    "teacher.cells": 8,
    "teacher.channels": 4,
    "teacher.hidden": 4,
    "output.blend": True,
}


def must(outcome):
    """The outcome, where the run came to its end."""
    if outcome.error is not None:
        raise outcome.error
    return outcome


@pytest.fixture(scope="module")
def taught(make_spec, go, tmp_path_factory):
    return go(make_spec(tmp_path_factory.mktemp("taught"), overrides=TAUGHT))


def at(stage, step):
    return lambda event: (event.get("stage"), event.get("step")) == (stage, step)


@pytest.mark.slow
def test_every_stage_in_order(taught):
    told = [e for e in must(taught).events if e["event"] == "progress"]
    assert list(dict.fromkeys(e["stage"] for e in told)) == list(Stage)
    steps = [e for e in told if e["stage"] == "teacher"]
    assert [(e["step"], e["of"]) for e in steps] == [(1, 3), (2, 3), (3, 3)]
    assert all(set(e["losses"]) == {"object", "mask"} for e in steps)
    assert steps[-1]["eta_seconds"] == 0
    assert set(taught.report["seconds"]) == set(Stage)
    json.dumps(taught.events)


@pytest.mark.slow
def test_its_figures_join_the_selection(taught, given, scenes):
    """Scores of each annotation, one a proposal; all are numbers."""
    points = json.loads(scenes.points.read_text())["annotations"]
    with np.load(must(taught).spec.workdir / "train" / "teacher.npz") as data:
        assert sorted(data["ids"].tolist()) == sorted(p["id"] for p in points)
        assert data["lengths"].sum() == len(data["contrast"]) == len(data["overlap"])
        assert all(np.isfinite(data[name]).all() for name in data.files)
        assert (data["contrast"] <= 0).all()
    wanted = for_uncalibrated_proposals(Config()).mil.prior_contrast  # the proposals are given ones
    assert taught.report["config"]["mil"]["prior_contrast"] == wanted > 0


@pytest.mark.slow
def test_blended_masks_are_refined(taught, scenes):
    """With a blend every object has something to refine, whether a cell answers for it or not."""
    text = (must(taught).spec.workdir / "result" / "pseudo_masks.ndjson").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    assert len(rows) == len(json.loads(scenes.points.read_text())["annotations"])
    assert sum(row["refined"] is not None for row in rows) > 0.9 * len(rows)


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "step"), [("teacher", 2), ("train", 1)])
def test_stopped_and_taken_up_again(taught, make_spec, go, result_of, tmp_path, stage, step):
    spec = make_spec(tmp_path, overrides=TAUGHT)
    first = go(spec, at(stage, step))
    assert isinstance(first.error, Stopped)
    assert (first.events[-1]["stage"], first.events[-1]["step"]) == (stage, step)
    assert (tmp_path / "train" / "teacher.npz").exists() is (stage == "train")
    second = must(go(spec))
    again = [e["step"] for e in second.events if e.get("stage") == "teacher"]
    assert again == ([1, 2, 3] if stage == "teacher" else [])
    assert {**first.steps, **second.steps} == must(taught).steps
    assert result_of(spec) == result_of(taught.spec)


@pytest.mark.slow
def test_it_learns_nothing_from_images_of_test(make_spec, go, scenes, tmp_path):
    """Whatever one of these shows, the scores of all others are the same; its own are not."""
    tested = json.loads(scenes.points.read_text())["images"][0]["id"]
    scores = []
    for name in ("a", "b"):
        spec = make_spec(tmp_path / name, overrides=TAUGHT, subsets={tested: "test"})
        if name == "b":
            noise = np.random.default_rng(5).integers(0, 60_000, (96, 128), dtype=np.uint16)
            Image.fromarray(noise).save(tmp_path / "noise.png")
            spec.image_paths[tested] = tmp_path / "noise.png"
        assert isinstance(go(spec, at("train", 1)).error, Stopped)
        assert (spec.workdir / "pixel_ranges.json").read_text() == "{}\n"
        scores.append(read_proposal_scores(spec.workdir / "train" / "teacher.npz"))
    points = json.loads(scenes.points.read_text())["annotations"]
    own = {p["id"] for p in points if p["image_id"] == tested}
    assert own < set(scores[0])
    first, second = ({id_: s.overlap.tolist() for id_, s in of_run.items()} for of_run in scores)
    same = {id_ for id_, overlap in first.items() if overlap == second[id_]}
    assert same == set(scores[0]) - own


@pytest.mark.slow
def test_images_without_objects_and_one_class(small_world, go):
    spec = small_world(
        [(48, 64)] * 3,
        [(1, 4, 20, 20)],
        categories=(4,),
        overrides={**TAUGHT, "train.batch_size": 1},
    )
    outcome = must(go(spec))
    assert [e["step"] for e in outcome.events if e.get("stage") == "teacher"] == [1, 2, 3]


def test_proposals_of_no_kind(make_spec, go, tmp_path):
    outcome = go(make_spec(tmp_path, proposals={}))
    assert isinstance(outcome.error, InvalidConfig)
    assert "proposals kind None" in str(outcome.error)
