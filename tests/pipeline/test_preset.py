"""`auto`: chosen once for a run, on its machine, and remembered by its folder."""

import json
from dataclasses import replace

import pytest

from sapnet.config.estimate import Gpu, Machine
from sapnet.pipeline import preset
from sapnet.pipeline.preset import with_preset


@pytest.fixture
def spec(make_spec, tmp_path):
    return replace(make_spec(tmp_path / "work"), preset="auto")


@pytest.fixture
def machine(monkeypatch):
    def be(gigabytes):
        gpu = Gpu("GeForce", int(gigabytes * 1e9)) if gigabytes else None
        monkeypatch.setattr(preset, "this_machine", lambda: Machine(2, gpu))

    return be


def choice_of(spec):
    events = []
    settled = with_preset(spec, events.append)
    return settled, [event.to_dict() for event in events]


def test_a_run_goes_on_with_the_preset_that_it_chose(spec, machine):
    machine(None)
    settled, (event,) = choice_of(replace(spec, backbone_weights=None))
    assert (event["event"], event["preset"]) == ("preset", settled.preset) == ("preset", "demo")
    assert "no GPU" in event["reasons"][0]
    machine(24)
    again, told = choice_of(replace(spec, backbone_weights=None))
    assert (again.preset, told) == ("demo", [event])
    elsewhere = replace(spec, backbone_weights=None, workdir=spec.workdir / "elsewhere")
    assert choice_of(elsewhere)[0].preset == "gpu"


def test_a_folder_of_an_earlier_release_keeps_its_preset(spec, machine):
    spec.workdir.mkdir()
    (spec.workdir / "run.json").write_text(json.dumps({"preset": "light_r18", "seed": 7}))
    machine(24)
    assert choice_of(spec)[0].preset == "light_r18"


def test_weights_decide_the_network(spec, machine):
    """The weights of the tests are MobileNetV2's."""
    machine(24)
    assert choice_of(spec)[0].preset == "cpu"


def test_a_preset_that_was_asked_for_is_kept(spec):
    asked = replace(spec, preset="paper_r50_1x")
    assert choice_of(asked) == (asked, [])
    assert not spec.workdir.exists()
