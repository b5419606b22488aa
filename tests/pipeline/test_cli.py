"""The command line: what it says, what it leaves, how it ends."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from typing import ClassVar

import pytest
from PIL import Image
from typer.testing import CliRunner

from sapnet.cli.main import app, parse_kind, parse_overrides

pytestmark = pytest.mark.usefixtures("_signals")


def call(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def job(make_spec, tmp_path):
    """job(**changes): a JOB.json of the four scenes."""

    def write(**changes):
        spec = make_spec(tmp_path / "work")
        document = {
            "points": str(spec.points),
            "truth": str(spec.truth),
            "image_paths": {str(k): str(v) for k, v in spec.image_paths.items()},
            "workdir": str(spec.workdir),
            "proposal_store": str(spec.proposal_store),
            "method": "sapnet++",
            "preset": "cpu",
            "overrides": spec.overrides,
            "seed": 7,
            "proposals": spec.proposals,
            "backbone_weights": str(spec.backbone_weights),
            **changes,
        }
        path = tmp_path / "JOB.json"
        path.write_text(json.dumps(document))
        return path

    return write


def lines(result):
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.slow
def test_a_failed_job_says_why_in_one_line(job, tmp_path):
    result = call("run", job(preset="gpus"))
    assert result.exit_code == 1
    (event,) = lines(result)
    assert (event["event"], event["reason"]) == ("error", "invalid_config")
    assert "'gpus'" in event["message"]
    assert "Traceback" not in result.stderr
    result = call("run", tmp_path / "none.json")
    assert result.exit_code == 1
    assert "none.json" in lines(result)[-1]["message"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"points": "/nowhere/points.json"}, "error"),
        ({"backbone_weights": "/nowhere/weights.pt"}, "weights_unavailable"),
        ({"proposals": {"kind": "magic"}}, "invalid_config"),
        ({"image_paths": {}}, "too_many_bad_images"),
        ({"overrides": {"train.epoch": 1}}, "invalid_config"),
    ],
)
def test_reasons(job, changes, reason):
    result = call("run", job(**changes))
    assert result.exit_code == 1
    assert lines(result)[-1]["reason"] == reason


@pytest.mark.slow
def test_a_wish_to_stop_ends_with_three(job, monkeypatch):
    """The handler is real: the signal comes with the first event."""
    from sapnet.pipeline import execute

    remember = execute.StopFlag.__init__

    def and_wish(self):
        remember(self)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(execute.StopFlag, "__init__", and_wish)
    result = call("run", job())
    assert result.exit_code == 3
    told = [event["event"] for event in lines(result) if event["event"] != "warning"]
    assert told == ["start", "progress"]
    assert "stopped on request in proposals, 1 of 4 done" in result.stderr


def _terminated_in_training(command, environment):
    """The exit code, and the events until then."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    events = []
    with subprocess.Popen(command, env=environment, **streams) as process:
        for line in process.stdout:
            events.append(json.loads(line))
            if events[-1].get("stage") == "train" and events[-1]["step"] == 1:
                process.terminate()
    return process.returncode, events


@pytest.mark.service
def test_the_process_speaks_the_protocol_and_heeds_sigterm(job, finished, result_of, tmp_path):
    """Stopped in mid-training by SIGTERM: exit 3; started again: the rest, exit 0."""
    command = [sys.executable, "-m", "sapnet.cli", "run", str(job())]
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}  # as here: two threads round otherwise
    for _ in range(5):  # its five steps after the first may be over before the signal comes
        shutil.rmtree(tmp_path / "work", ignore_errors=True)
        code, first = _terminated_in_training(command, alone)
        if code == 3 and first[-1].get("stage") == "train" and first[-1]["step"] < 6:
            break
    assert code == 3
    assert first[0]["event"] == "start"
    assert {"proposal_generator", "weights_origin", "steps_total"} <= first[0].keys()
    assert first[0]["steps_total"] == 6
    assert first[-1]["stage"] == "train"
    done_before = first[-1]["step"]
    assert 1 <= done_before < 6
    again = subprocess.run(
        command, capture_output=True, text=True, timeout=280, check=False, env=alone
    )
    assert again.returncode == 0, again.stderr
    second = [json.loads(line) for line in again.stdout.splitlines()]
    steps = [e["step"] for e in second if e.get("stage") == "train"]
    assert steps == list(range(done_before + 1, 7))
    assert second[-1]["event"] == "done"
    assert second[-1]["peak_memory_mb"] > 100
    assert {"proposals", "train", "pseudo-masks", "evaluate", "export"} == set(
        second[-1]["seconds"]
    )
    assert all(
        {"stage", "step", "of", "eta_seconds"} <= e.keys()
        for e in second
        if e["event"] == "progress"
    )
    assert result_of(replace(finished.spec, workdir=tmp_path / "work")) == result_of(finished.spec)


@pytest.fixture
def given_file(given, tmp_path):
    path = tmp_path / "given.json"
    path.write_text(json.dumps(given["document"]))
    return json.dumps({"kind": "given", "document": str(path)})


@pytest.fixture
def settings(tiny):
    changes = {**tiny, "train.epochs": 1}
    return [part for k, v in changes.items() for part in ("--set", f"{k}={json.dumps(v)}")]


@pytest.mark.slow
def test_propose_then_train(scenes, weights, given_file, settings, tmp_path):
    """`propose` fills the store that `train` then finds; it ends with the metrics."""
    common = ["--points", scenes.points, "--images", scenes.images, "--proposals", given_file]
    store = tmp_path / "store"
    result = call("propose", *common, "--store", store)
    assert result.exit_code == 0, result.output
    before = {p: p.stat().st_mtime_ns for p in store.glob("*.bags")}
    assert before
    arguments = ["--out", tmp_path / "out", "--truth", scenes.truth, "--weights", weights]
    told = call("train", *common, *arguments, *settings, "--dry-run")
    assert told.exit_code == 0, told.output
    why, chosen, _stages = told.stdout.splitlines()
    assert "4 images" in why
    assert chosen.startswith("cpu: about ")
    assert not (tmp_path / "out").exists()
    result = call(
        "train", *common, *arguments, "--store", store, "--method", "consensus", *settings
    )
    assert result.exit_code == 0, result.output
    assert {p: p.stat().st_mtime_ns for p in store.glob("*.bags")} == before
    printed, _ = json.JSONDecoder().raw_decode(result.stdout)
    assert printed == json.loads((tmp_path / "out" / "result" / "metrics.json").read_text())
    assert "written to" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--points", "none.json", "none.json"),
        ("--set", "train.epoch=3", "did you mean"),
        ("--set", "train.epochs", "a whole number"),
        ("--proposals", "{broken", "--proposals is no JSON"),
        ("--proposals", "magic", "'magic'"),
        ("--method", "sapnet+++", "'sapnet++'"),
    ],
)
def test_train_refuses_in_words(scenes, tmp_path, option, value, words):
    options = {"--points": scenes.points, "--images": scenes.images, "--out": tmp_path / "out"}
    options[option] = value
    result = call("train", *(part for pair in options.items() for part in pair))
    assert result.exit_code == 1
    assert words in result.output.replace("\n", " ")
    assert "Traceback" not in result.output
    assert "Errno" not in result.output


def test_a_bug_keeps_its_traceback(job, monkeypatch):
    from sapnet.pipeline import run as pipeline

    def fail(*_):
        raise KeyError("odd")

    monkeypatch.setattr(pipeline, "build_generator", fail)
    result = call("run", job())
    assert lines(result)[-1]["message"] == "KeyError: 'odd'"
    assert "Traceback" in result.stderr


def test_propose_refuses_in_words(scenes, tmp_path):
    common = ["--points", scenes.points, "--store", tmp_path / "store"]
    result = call("propose", *common, "--images", scenes.images, "--proposals", "magic")
    assert result.exit_code == 1
    assert "magic" in result.output
    assert "Traceback" not in result.output
    result = call("propose", *common, "--images", tmp_path)
    assert result.exit_code == 1
    assert "scene-00001.png" in result.output.replace("\n", "")


@pytest.mark.slow
def test_predict_and_evaluate(finished, scenes, tmp_path):
    model = finished.spec.workdir / "result" / "model.pt"
    out, overlays = tmp_path / "out.json", tmp_path / "overlays"
    options = ["--out", out, "--overlays", overlays, "--score", 0]
    result = call("predict", model, scenes.images, *options)
    assert result.exit_code == 0, result.output
    names = {p.name for p in scenes.images.iterdir()}
    found = json.loads(out.read_text())
    assert {r["file_name"] for r in found} <= names
    assert {p.name for p in overlays.iterdir()} == names
    assert Image.open(next(overlays.iterdir())).size == (128, 96)
    name, whole = min(names), {"size": [96, 128], "counts": [0, 96 * 128]}
    found.append({"file_name": name, "category_id": 1, "score": 0.1, "segmentation": whole})
    out.write_text(json.dumps(found))
    result = call("evaluate", out, "--truth", scenes.truth)
    assert result.exit_code == 0, result.output
    assert set(json.loads(result.stdout)) == {"segm", "bbox"}


def test_evaluate_the_truth_itself(scenes, tmp_path):
    truth = json.loads(scenes.truth.read_text())
    name = {image["id"]: image["file_name"] for image in truth["images"]}
    rows = [
        {
            "file_name": name[a["image_id"]],
            "score": 1.0,
            **{k: a[k] for k in ("category_id", "segmentation", "bbox")},
        }
        for a in truth["annotations"]
    ]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(rows))
    figures = json.loads(call("evaluate", path, "--truth", scenes.truth).stdout)
    assert figures["segm"]["AP"] == pytest.approx(1)
    assert figures["bbox"]["AP50"] == pytest.approx(1)
    truth["annotations"][0]["segmentation"] = [[1, 1, 9, 1, 9, 1e6]]  # one wrong object
    other = tmp_path / "truth.json"
    other.write_text(json.dumps(truth))
    result = call("evaluate", path, "--truth", other)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["segm"]["AP"] == pytest.approx(1)
    said = " ".join(result.stderr.split())
    assert "left out: " in said
    assert "AP is that of the other images" in said


def test_overlays_leave_doubtful_results_out(scenes, tmp_path, monkeypatch):
    from sapnet.data import drawing as draw
    from sapnet.segmenters import checkpoint as artifact

    class Predictor:
        categories = ()
        pixel_ranges: ClassVar = {}

        def predict(self, image, score):
            return [{"score": s} for s in (0.9, 0.3, 0.2, 0.05) if s >= score]

    drawn = []

    def watched(image, results, categories):
        drawn.append([r["score"] for r in results])
        return image

    monkeypatch.setattr(draw, "overlay", watched)
    monkeypatch.setattr(artifact, "load_predictor", lambda path: Predictor())
    image = sorted(scenes.images.iterdir())[0]
    common = ["predict", tmp_path / "model.pt", image, "--overlays", tmp_path / "overlays"]
    found = json.loads(call(*common).stdout)
    assert [r["score"] for r in found] == [0.9, 0.3, 0.2]
    found = json.loads(call(*common, "--score", 0).stdout)
    assert [r["score"] for r in found] == [0.9, 0.3, 0.2, 0.05]
    assert drawn == [[0.9, 0.3], [0.9, 0.3, 0.2, 0.05]]


@pytest.mark.slow
def test_predict_refuses_in_words(finished, scenes, tmp_path):
    result = call("predict", tmp_path / "none.pt", scenes.images)
    assert result.exit_code == 1
    assert "none.pt" in result.output
    (tmp_path / "no.jpg").write_text("text")
    model = finished.spec.workdir / "result" / "model.pt"
    result = call("predict", model, tmp_path / "no.jpg")
    assert result.exit_code == 1
    assert "no image of a known format" in result.output.replace("\n", " ")
    assert "no.jpg" in result.output


@pytest.mark.slow
def test_predict_to_stdout_is_json_alone(finished, scenes):
    model = finished.spec.workdir / "result" / "model.pt"
    result = call("predict", model, sorted(scenes.images.iterdir())[0], "--score", 0.9)
    assert json.loads(result.stdout) == []


def test_small_parsers():
    assert parse_kind("sam") == {"kind": "sam"}
    assert parse_kind('{"kind": "sam", "model_type": "vit_b"}')["model_type"] == "vit_b"
    got = parse_overrides(["a.b=6", "c.d=sgd", "e.f=[1, 2]", "g.h=null", "i.j=a=b", "k.l"])
    assert got == {"a.b": 6, "c.d": "sgd", "e.f": [1, 2], "g.h": None, "i.j": "a=b", "k.l": ""}


@pytest.mark.slow
def test_help_needs_no_torch():
    code = (
        "import sys\nfrom sapnet.cli.main import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in ("run", "train", "propose", "predict", "evaluate"))
