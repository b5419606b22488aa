"""A training on several devices becomes torchrun; all else is one process."""

import json
import os
import sys

import pytest

from sapnet.errors import InvalidConfig
from sapnet.pipeline.contract import ExitCode
from sapnet.pipeline.execute import execute
from sapnet.pipeline.launch import spread
from sapnet.utils import distributed
from sapnet.utils.devices import parse_devices


@pytest.fixture
def job(tmp_path):
    """job(**fields): a training's file, with a batch of four."""

    def write(**fields):
        path = tmp_path / "JOB.json"
        paths = dict.fromkeys(("points", "workdir", "proposal_store"), "x")
        path.write_text(json.dumps({**paths, "image_paths": {}, "preset": "cpu", **fields}))
        return path

    return write


@pytest.fixture
def started(monkeypatch):
    """started(job, devices): the command that the process becomes, or None."""
    for name in ("RANK", "OMP_NUM_THREADS", "SAPNET_LAUNCHER", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, "")  # put back afterwards, whatever sets it
        monkeypatch.delenv(name)

    def launch(path, devices, **environment):
        monkeypatch.setenv("SAPNET_DEVICES", devices)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        commands = []
        spread(path, lambda program, command: commands.append((program, command)))
        return commands[0][1] if commands else None

    return launch


def processes(command):
    (count,) = [a.partition("=")[2] for a in command if a.startswith("--nproc-per-node=")]
    return int(count)


def test_a_training_has_a_process_on_each_device(job, started):
    path = job()
    command = started(path, "0,GPU-6f1d,3")
    assert command[:3] == [sys.executable, "-m", "torch.distributed.run"]
    assert processes(command) == 3
    assert command[-4:] == ["-m", "sapnet", "run", str(path)]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,GPU-6f1d,3"
    assert os.environ["SAPNET_LAUNCHER"] == str(os.getpid())
    assert int(os.environ["OMP_NUM_THREADS"]) >= 1


def test_processes_on_the_cpu_see_no_gpu(job, started):
    assert processes(started(job(), "cpu,cpu")) == 2
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        ({"overrides": {"train.batch_size": 3}}, 3),
        ({"overrides": {"train.batch_size": 40}}, 8),
        ({"max_processes": 2}, 2),
        ({"preset": "auto"}, 4),
    ],
)
def test_no_process_is_without_a_share_of_the_batch(job, started, fields, count):
    assert processes(started(job(**fields), "0,1,2,3,4,5,6,7")) == count


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "predict"},
        {"kind": "onnx"},
        {"kind": "import"},
        {"overrides": {"train.batch_size": 1}},
        {"overrides": {"backbone.fpn_norm": "batch"}},
        {"overrides": {"train.no_such": 1}},
        {"max_processes": 1},
    ],
)
def test_these_are_one_process_on_the_devices_named(job, started, fields):
    assert started(job(**fields), "2,3") is None
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2,3"


def test_nothing_happens_unasked_nor_twice(job, started):
    assert started(job(), "") is None
    assert started(job(), "cpu,cpu", RANK="1") is None
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


@pytest.mark.parametrize("text", ["", "0,0", "cpu,0", "gpu", "0,", "-1", "all,0", "GPU-1,GPU-1"])
def test_what_is_no_list_of_devices(text):
    with pytest.raises(InvalidConfig, match="SAPNET_DEVICES"):
        parse_devices(text)


def test_lists_of_devices():
    assert parse_devices("all") is None
    assert parse_devices(" 0, 2") == ("0", "2")
    assert parse_devices("cpu,cpu,cpu") == ("cpu", "cpu", "cpu")
    assert parse_devices("MIG-GPU-8f/1/0") == ("MIG-GPU-8f/1/0",)


def test_wrong_devices_are_told_as_an_event(job, started, monkeypatch):
    events = []
    code = execute(lambda: None, events.append, lambda: started(job(), "0,0"))
    assert code == ExitCode.FAILED
    assert [e.to_dict()["reason"] for e in events] == ["invalid_config"]


@pytest.mark.parametrize("main", [True, False])
def test_of_several_processes_the_main_one_alone_does_an_offline_job(monkeypatch, main):
    monkeypatch.setattr(distributed, "is_main", lambda: main)
    calls, events = [], []

    def predict(emit_event, should_stop):
        calls.append(should_stop())
        return {"seconds": {}, "peak_memory_mb": 1}

    assert execute(lambda: predict, events.append) == ExitCode.DONE
    assert len(calls) == len(events) == int(main)


def test_a_process_that_is_left_alone_may_be_started_again(monkeypatch):
    lost = RuntimeError("[gloo/transport/tcp/pair.cc:561] Connection closed by peer [::1]:9855.")
    events = []

    def spec():
        raise lost

    execute(spec, events.append)
    monkeypatch.setattr(distributed, "processes", lambda: 2)
    monkeypatch.setattr(distributed, "rank", lambda: 0)
    execute(spec, events.append)
    assert [e.to_dict()["reason"] for e in events] == ["error", "attempt_failed"]
