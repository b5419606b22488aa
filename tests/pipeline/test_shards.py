"""`sapnet shards`: lines of JSON in, events out, the same bags as a run makes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sapnet.data.annotations.coco import load_points
from sapnet.data.synthetic import Scenes, make_scenes
from sapnet.pipeline.events import Event
from sapnet.pipeline.shards import serve
from sapnet.proposals import build_generator
from sapnet.proposals.cached import CachedProposals
from sapnet.proposals.store import ProposalStore


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    return make_scenes(tmp_path_factory.mktemp("scenes"), 3, size=(96, 112), seed=3)


def spec(scenes: Scenes, folder: Path, **values: Any) -> dict[str, Any]:
    images = json.loads(scenes.points.read_text())["images"]
    return {
        "stage": "proposals",
        "points": str(scenes.points),
        "image_paths": {str(i["id"]): str(scenes.images / i["file_name"]) for i in images},
        "proposals": {"kind": "hierarchy"},
        "plan": {"max_proposals": 16, "ranges": {}},
        "store": str(folder / "store"),
        "result": str(folder / "result.bags"),
        **values,
    }


def answers(*specs: dict[str, Any]) -> tuple[int, list[dict[str, Any]]]:
    told: list[dict[str, Any]] = []

    def take(event: Event) -> None:
        told.append(event.to_dict())

    return serve(map(json.dumps, specs), take), told


@pytest.mark.slow
def test_bags_are_those_of_a_run(scenes: Scenes, tmp_path: Path) -> None:
    points = load_points(scenes.points)
    files = {int(id_): Path(p) for id_, p in spec(scenes, tmp_path)["image_paths"].items()}
    maker = CachedProposals(tmp_path / "run", build_generator({"kind": "hierarchy"}), files, 16)
    keys = [maker.make(info, annotations) for info, annotations in points]
    code, told = answers(spec(scenes, tmp_path), spec(scenes, tmp_path))
    assert code == 0
    assert [e["event"] for e in told] == [*["image"] * 3, "shard_done"] * 2
    assert [e["step"] for e in told[:3]] == [0, 1, 2]
    store = ProposalStore(tmp_path / "another")
    assert store.merge(tmp_path / "result.bags") == 3
    maker.export(keys, tmp_path / "run.bags")
    assert (tmp_path / "run.bags").read_bytes() == (tmp_path / "result.bags").read_bytes()


@pytest.mark.slow
def test_an_image_that_fails_is_told_and_one_that_failed_is_left_out(
    scenes: Scenes, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    paths = {**spec(scenes, tmp_path)["image_paths"], "2": str(broken)}
    code, told = answers(spec(scenes, tmp_path, image_paths=paths, excluded=[1]))
    assert code == 0
    assert [(e["event"], e.get("image_id")) for e in told] == [
        ("image", 2),
        ("image_set_aside", 2),
        ("image", 3),
        ("shard_done", None),
    ]
    assert told[1]["stage"] == "proposals"
    assert ProposalStore(tmp_path / "another").merge(tmp_path / "result.bags") == 1


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"stage": "nothing"}, "invalid_config"),
        ({"stage": "proposals", "points": "p"}, "invalid_config"),
    ],
)
def test_what_is_no_shard_is_an_error(line: dict[str, Any], reason: str) -> None:
    code, told = answers(line)
    assert (code, told[-1]["event"], told[-1]["reason"]) == (1, "error", reason)


@pytest.mark.slow
def test_a_full_disk_is_no_images_fault(scenes: Scenes, tmp_path: Path) -> None:
    code, told = answers(spec(scenes, tmp_path, reserve_bytes=1 << 62))
    assert (code, told[-1]["event"], told[-1]["reason"]) == (1, "error", "disk_full")
    assert "image_set_aside" not in [e["event"] for e in told]


@pytest.mark.slow
def test_the_command_ends_with_its_input(scenes: Scenes, tmp_path: Path) -> None:
    text = json.dumps(spec(scenes, tmp_path)) + "\n"
    command = [sys.executable, "-m", "sapnet.cli", "shards"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1])["event"] == "shard_done"
    assert done.stderr == ""
