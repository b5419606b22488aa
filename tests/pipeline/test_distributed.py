"""Training in two processes, over gloo: the figures of one."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sapnet.config.resolve import resolve_config
from sapnet.errors import InvalidConfig
from sapnet.training.loop import train
from sapnet.utils import distributed

SCRIPT = Path(__file__).with_name("one_of_several.py")
# everything on from the first step: MIL, SASD, SOLO, MLAR
TERMS = {"mask", "cls", "psm", "srm", "sasd", "aff"}
ALL_TERMS = {
    "mil.completeness": True,
    "mil.completeness_warmup": 0.0,
    "mil.part_negatives": 6,
    "refine.warmup": 0.0,
    "data.short_sides": [48, 64],
}


def start(count, *arguments):
    """`count` processes as torchrun would start them; 1 is a process alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    started = []
    for rank in range(count):
        own = {"WORLD_SIZE": str(count), "RANK": str(rank), "LOCAL_RANK": str(rank)}
        command = [sys.executable, *(str(a) for a in arguments)]
        environment = {**os.environ, **common, **own}
        started.append(subprocess.Popen(command, env=environment, stdout=-1, stderr=-1, text=True))
    return started


@pytest.fixture
def world(small_world):
    """Six images of six sizes, one without objects; three boxes of masks around each point."""
    sizes = [(48, 64), (64, 48), (40, 96), (64, 64), (30, 44), (60, 56)]
    rng = np.random.default_rng(4)
    points, document = [], {}
    for image in (0, 1, 2, 3, 5):
        height, width = sizes[image]
        for _ in range(3 if image == 2 else 2):
            x, y = rng.uniform(8, width - 8), rng.uniform(8, height - 8)
            document[str(len(points))] = [
                {"segmentation": box(x, y, side, sizes[image]), "score": float(rng.random())}
                for side in (6, 12, 20)
            ]
            points.append((image, int(rng.choice([4, 9])), x, y))

    def make(**overrides):
        changes = {**ALL_TERMS, "train.epochs": 2, **overrides}
        given = {"kind": "given", "document": document}
        return small_world(sizes, points, overrides=changes, proposals=given, seed=3)

    return make


def box(x, y, side, size):
    """A rectangle around a point, as a polygon."""
    x1, x2 = max(x - side / 2, 0), min(x + 0.7 * side, size[1])
    y1, y2 = max(y - 0.4 * side, 0), min(y + side / 2, size[0])
    return [[x1, y1, x2, y1, x2, y2, x1, y2]]


@pytest.fixture
def job(world, tmp_path):
    """job(name, **overrides): a JOB.json with a work folder of its own."""

    def write(name, method="sapnet++", **overrides):
        spec = world(**overrides)
        document = {
            "points": str(spec.points),
            "image_paths": {str(k): str(v) for k, v in spec.image_paths.items()},
            "workdir": str(tmp_path / name),
            "proposal_store": str(spec.proposal_store),
            "method": method,
            "overrides": spec.overrides,
            "seed": spec.seed,
            "proposals": spec.proposals,
            "backbone_weights": str(spec.backbone_weights),
        }
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(document))
        return path

    return write


def trained(count, *jobs):
    """What each of `count` processes made of each job in turn; one may carry `:TROUBLE`."""
    for process in start(count, SCRIPT, *jobs):
        _, errors = process.communicate(timeout=250)
        assert process.returncode == 0, errors
    paths = [Path(str(job).partition(":")[0]) for job in jobs]
    return [
        [
            SimpleNamespace(**torch.load(path.with_suffix(f".{count}.{rank}")))
            for rank in range(count)
        ]
        for path in paths
    ]


def assert_same_figures(got, expected):
    assert len(got) == len(expected)
    for ours, theirs in zip(got, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)


@pytest.mark.service
def test_other_labelers_in_two_processes(job):
    """P2Seg's maps, SIM's copy and prototypes: all figures of all steps, and what is kept."""
    settings = {
        "train.batch_size": 3,
        "train.epochs": 2,
        "train.reference_batch": 3,
        "p2seg.least_part": 4.0,
        "sim.unboxed_from": 0.0,
        "sim.warmup": 0.0,
    }

    def jobs(folder):
        for method in ("p2seg", "sim"):
            yield job(f"{method}-{folder}", method, **settings)

    by_one, by_two = trained(1, *jobs("alone")), trained(2, *jobs("shared"))
    for (alone,), (first, second) in zip(by_one, by_two, strict=True):
        assert len(alone.losses) == 4
        assert_same_figures(first.losses, alone.losses)
        assert first.losses == second.losses
        for key, expected in alone.weights.items():
            assert torch.equal(first.weights[key], second.weights[key]), key
            if "prototypes" in key:
                torch.testing.assert_close(first.weights[key], expected, rtol=1e-3, atol=1e-3)
    assert any(key.endswith("prototypes.vectors") for key in by_one[1][0].weights)


@pytest.mark.service
def test_two_processes_give_the_figures_of_one(job):
    """All losses of all steps, and the weights after them; both processes end with the same."""
    cases = {
        "even": (4, "sgd", 0.02),
        "uneven": (3, "sgd", 0.02),
        "adamw": (4, "adamw", 5e-4),
        "fewer-images-than-processes": (1, "sgd", 0.02),
    }

    def jobs(folder):
        for name, (batch, optimizer, rate) in cases.items():
            overrides = {
                "train.batch_size": batch,
                "train.epochs": 6 // -(-6 // batch),
                "train.optimizer": optimizer,
                "train.learning_rate": rate,
                "train.reference_batch": batch,
            }
            yield job(f"{name}-{folder}", **overrides)

    by_one, by_two = trained(1, *jobs("alone")), trained(2, *jobs("shared"))
    for name, (alone,), (first, second) in zip(cases, by_one, by_two, strict=True):
        assert len(alone.losses) == 6
        assert all(set(terms) == TERMS for terms in alone.losses)
        assert_same_figures(first.losses, alone.losses)
        assert first.losses == second.losses
        for key, expected in alone.weights.items():
            assert torch.equal(first.weights[key], second.weights[key])
            if name == "adamw":
                # it makes whole steps of a gradient that is nothing but rounding, such as that of
                # the bias of a softmax over instances (it knows none), or of a unit that is dead
                far = (first.weights[key] - expected).abs() > 1e-5
                assert far.float().mean() < 0.01 or key.endswith("instance.bias"), key
            else:
                torch.testing.assert_close(first.weights[key], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.service
def test_what_ends_one_ends_both(job):
    """A stop after the same step, from where one process goes on; a loss that is no number, by
    its name; a failure, in the words of the process that had it."""
    size = {"train.batch_size": 3}
    stopped = job("stopped", **size)
    troubles = f"{stopped}:stop", f"{job('number', **size)}:number", f"{job('disk', **size)}:disk"
    stop, number, disk = trained(2, *troubles)
    assert torch.load(stopped.with_suffix("") / "checkpoint.pt")["step"] == 2
    (alone,), (resumed,) = trained(1, job("alone", **size), stopped)
    for process in stop:
        assert process.error == ("Stopped", "stopped on request after step 2 of 4")
        assert_same_figures(process.losses, alone.losses[:2])
    assert_same_figures(resumed.losses, alone.losses[2:])
    assert number[0].error == number[1].error
    assert number[0].error[0] == "NonFiniteLoss"
    assert "'mask' became nan at step 2" in number[0].error[1]
    assert disk[0].error == ("FailedElsewhere", "process 1: OSError: the disk is gone")
    assert disk[1].error == ("OSError", "the disk is gone")


@pytest.mark.service
def test_a_job_on_two_devices(make_spec, finished, result_of, tmp_path):
    """One line an event, by the main process of torchrun; the result of a run in one process."""
    spec = make_spec(tmp_path / "work")
    document = {
        **{name: str(getattr(spec, name)) for name in ("points", "truth", "workdir")},
        "image_paths": {str(k): str(v) for k, v in spec.image_paths.items()},
        "proposal_store": str(spec.proposal_store),
        "overrides": spec.overrides,
        "seed": spec.seed,
        "proposals": spec.proposals,
        "backbone_weights": str(spec.backbone_weights),
    }
    path = tmp_path / "JOB.json"
    path.write_text(json.dumps(document))
    ended = subprocess.run(
        [sys.executable, "-m", "sapnet.cli", "run", str(path)],
        env={**os.environ, "SAPNET_DEVICES": "cpu,cpu", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert ended.returncode == 0, ended.stderr
    events = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [e["event"] for e in events if e["event"] != "progress"] == ["start", "done"]
    steps = {e["step"]: e["losses"] for e in events if e.get("stage") == "train"}
    for step, losses in finished.steps.items():
        assert steps[step] == pytest.approx(losses, abs=2e-5)
    for ours, theirs in zip(*(rows(s) for s in (spec, finished.spec)), strict=True):
        assert ours["selected"] == theirs["selected"]
        assert ours["quality"] == pytest.approx(theirs["quality"], abs=1e-2)


def rows(spec):
    text = (spec.workdir / "result" / "pseudo_masks.ndjson").read_text()
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.service
def test_a_signal_to_one_process_ends_both_with_three(job):
    """And a job that cannot run ends both with one, and one line."""
    path = job("signalled", **{"train.epochs": 50})
    main, other = start(2, "-m", "sapnet", "run", path)
    for line in main.stdout:
        if json.loads(line).get("stage") == "train":
            other.send_signal(signal.SIGTERM)
            break
    told, _ = main.communicate(timeout=280)
    assert "error" not in told
    assert other.communicate(timeout=280)[0] == ""
    assert (main.returncode, other.returncode) == (3, 3)
    document = json.loads(path.read_text())
    Path(document["image_paths"]["5"]).unlink()
    path.write_text(json.dumps({**document, "max_bad_images": 0}))
    main, other = start(2, "-m", "sapnet", "run", path)
    told = [json.loads(line) for line in main.communicate(timeout=280)[0].splitlines()]
    assert told[-1]["event"] == "error"
    assert "image 5 (5.png) in proposals: the file is missing" in told[-1]["message"]
    silence, words = other.communicate(timeout=280)
    assert silence == ""
    assert (main.returncode, other.returncode) == (1, 1), words


# a run as `sapnet run` makes it; what is registered first is done last
RUN_AND_TELL_THREADS = """
import atexit, contextlib, pathlib, sys, time
def left():
    for path in pathlib.Path("/proc/self/task").glob("*/comm"):
        with contextlib.suppress(OSError):
            if "gloo" in (name := path.read_text()):
                yield name.strip()
def tell():
    until = time.monotonic() + 5  # a thread that was joined may be seen for a moment
    while any(left()) and time.monotonic() < until:
        time.sleep(0.05)
    print("left:", *left(), file=sys.stderr)
atexit.register(tell)
from sapnet.cli.main import app
app()
"""


@pytest.mark.service
def test_no_thread_of_the_group_outlives_it(job):
    """One that lets go of a tensor while the interpreter ends would abort the process."""
    path = job("short", **{"train.epochs": 1})
    for process in start(2, "-c", RUN_AND_TELL_THREADS, "run", path):
        _, words = process.communicate(timeout=280)
        assert process.returncode == 0, words
        assert words.endswith("left:\n")


def test_alone_nothing_changes(monkeypatch):
    tensor = torch.ones(2, requires_grad=True)
    assert distributed.global_sum(tensor) is tensor
    assert distributed.global_sum(3) == 3
    assert distributed.global_max(3, 0) == (3, 0)
    assert [distributed.any_of(flag) for flag in (True, False)] == [True, False]
    assert distributed.share([1, 2, 3]) == [1, 2, 3]
    assert distributed.main_first(lambda: 5) == 5
    assert distributed.is_main()
    with pytest.raises(KeyError), distributed.together():
        raise KeyError
    monkeypatch.setenv("WORLD_SIZE", "1")
    distributed.join()
    assert distributed.processes() == 1


def test_shares_are_all_of_a_batch(monkeypatch):
    for count, size in [(2, 4), (2, 3), (3, 2), (4, 0)]:
        monkeypatch.setattr(distributed, "processes", lambda count=count: count)
        taken = []
        for rank in range(count):
            monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
            taken.append(distributed.share(range(size)))
        assert sorted(i for part in taken for i in part) == list(range(size))
        assert max(map(len, taken)) - min(map(len, taken)) <= 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (lambda step, shapes: (step + 1, shapes), "process 1 finds another checkpoint"),
        (
            lambda step, shapes: (step, {**shapes, "norm": (3,)}),
            "process 1 finds another backbone than",
        ),
    ],
)
def test_processes_that_see_other_files_are_refused(monkeypatch, changes, words):
    def gather(told, mine):
        told[:] = mine, changes(*mine)

    monkeypatch.setattr(distributed, "processes", lambda: 2)
    monkeypatch.setattr(distributed.distributed, "all_gather_object", gather)
    with pytest.raises(InvalidConfig, match=words):
        distributed.start_alike(torch.nn.Linear(2, 3), 4)


def test_a_norm_over_the_batch_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(distributed, "processes", lambda: 2)
    model = SimpleNamespace(config=resolve_config(overrides={"backbone.fpn_norm": "batch"}))
    keywords = {"seed": 0, "checkpoint": tmp_path / "none", "report": None, "should_stop": None}
    with pytest.raises(InvalidConfig, match="fpn_norm"):
        train(model, [], **keywords)
