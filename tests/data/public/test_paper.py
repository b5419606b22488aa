"""benchmarks/paper.py: every table's commands, the settings of its rows, and one table for real."""

import importlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from sapnet.cli.main import app
from sapnet.config.resolve import resolve_config
from sapnet.segmenters.backbones.mobilenet import MobileNetBody
from sapnet.segmenters.backbones.norm import FrozenBatchNorm
from sapnet.segmenters.backbones.weights import load_file

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "paper.py"


@pytest.fixture(scope="module")
def paper():
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        yield importlib.import_module("paper")
    finally:
        sys.path.remove(str(SCRIPT.parent))


def start(*arguments):
    """The script as a user starts it. A proxy that is not there keeps it off the network."""
    env = {**os.environ, "https_proxy": "http://127.0.0.1:9", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), *(str(a) for a in arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False)


@pytest.fixture(scope="module")
def call(paper):
    """The script's command in this process."""
    command = typer.Typer()
    command.command()(paper.main)
    return lambda *arguments: CliRunner().invoke(command, [str(a) for a in arguments])


def plan_of(paper, tmp_path, **changes):
    fields = {"gpus": 8, "seed": 0, "proposals": {"kind": "sam"}, "overrides": {}, **changes}
    return paper.Plan(tmp_path / "data", tmp_path / "out", **fields)


@pytest.mark.parametrize("number", [1, 2, 4, 5, 6])
def test_every_row_of_every_table_can_be_planned(paper, tmp_path, number):
    """Every command starts what there is, with options that it knows."""
    known = {name: command_options(name) for name in ("points", "propose", "evaluate", "run")}
    for row in paper.TABLES[number].rows:
        steps = list(plan_of(paper, tmp_path).row(row))
        commands = [command for step in steps for command in step.commands]
        for command in commands:
            name, *rest = command[command.index("sapnet") + 1 :]
            options = {part for part in rest if part.startswith("--")}
            assert options <= known[name], command
        assert sum("propose" in command for command in commands) >= 8
        train = commands[-3] if "points" in commands[-2] else commands[-2]
        assert train[:6] == [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", "8"),
        ]
        assert "evaluate" in commands[-1]
        assert row.published


def command_options(name):
    command = typer.main.get_command(app).commands[name]
    return {option for parameter in command.params for option in parameter.opts}


def settings(row):
    return resolve_config(row.method, row.preset, row.overrides)


def test_learning_rates_are_the_papers_at_its_batches(paper):
    rates = {"coco": (0.02, 32), "voc": (0.002, 16), "cityscapes": (0.01, 16), "isaid": (0.01, 16)}
    for table in paper.TABLES.values():
        for row in table.rows:
            train = settings(row).train
            rate = train.learning_rate * train.batch_size / train.reference_batch
            assert (rate, train.batch_size) == pytest.approx(rates[row.data])
            assert settings(row).backbone.name == (
                "resnet101" if "R-101" in row.name else "resnet50"
            )


def test_the_ladder_adds_one_component_a_row(paper):
    rows = {row.name: settings(row) for row in paper.TABLES[6].rows}
    components = {
        "PS": set(),
        "+ PDG": {"point_distance", "exclude_foreign_points"},
        "+ SR": {"refinement"},
        "+ PNPG": {"positives", "negatives"},
        "+ BMS (SAPNet)": {"box_mining"},
    }
    switches = set().union(*components.values()) | {"completeness"}
    on = set()
    for name, added in components.items():
        on |= added
        assert {s for s in switches if getattr(rows[name].mil, s)} == on, name
        assert not rows[name].refine.enabled
    sapnet, whole = rows["+ BMS (SAPNet)"], rows["+ both (SAPNet++)"]
    assert replace(rows["+ SASD"].mil, completeness=False) == sapnet.mil
    assert not rows["+ SASD"].refine.enabled
    assert rows["+ MLAR, no SASD"].mil == sapnet.mil
    assert rows["+ MLAR, no SASD"].refine == whole.refine
    assert whole.mil == rows["+ SASD"].mil
    assert whole.refine.enabled
    for config in rows.values():  # nothing but the components differs
        off = dict.fromkeys(switches, False)
        assert replace(config.mil, **off) == replace(whole.mil, **off)
        assert (config.solo, config.data, config.train) == (whole.solo, whole.data, whole.train)


def test_rows_that_are_one_run_in_two_tables_have_one_folder(paper):
    seen = {}
    for table in paper.TABLES.values():
        for row in table.rows:
            run = (row.data, row.method, row.preset, row.overrides, row.proposals, row.start)
            assert seen.setdefault(row.key, run) == run
            if row.start:
                assert row.start in {first.key for first in paper.TABLES[1].rows}
    keys = {key for key in seen if key.startswith("coco")}
    assert len(keys) == 6 + 8 - 3  # SAPNet, SAPNet++ and PS stand in Tables 1 and 6


@pytest.mark.parametrize("number", [1, 2, 4, 5, 6])
def test_dry_run(paper, call, tmp_path, number):
    out = tmp_path / "out"
    done = call("--table", number, "--data", tmp_path, "--out", out, "--gpus", 2, "--dry-run")
    assert done.exit_code == 0, done.output
    table = paper.TABLES[number]
    runs = [line for line in done.stdout.splitlines() if "torch.distributed.run" in line]
    firsts = {row.start for row in table.rows} - {None}
    assert len(runs) == len(set(runs)) == len(table.rows) + len(firsts)
    for row in table.rows:
        assert f"{out}/{row.key}/val.json" in done.stdout
        for figure in row.published.values():
            assert f"({figure})" in done.stdout
    assert "CUDA_VISIBLE_DEVICES=1 " in done.stdout
    assert "vit_h" in done.stdout
    assert not out.exists()


def test_refuses_in_words(call, tmp_path):
    for arguments, words in (
        (["--table", 3], "there is no 3"),
        (["--table", 1, "--row", "coco"], "coco-sam-r50-1x"),
        (["--table", 1, "--set", "train.epoch=3"], "train.epoch"),
    ):
        done = call(*arguments, "--data", tmp_path, "--out", tmp_path / "out", "--dry-run")
        assert done.exit_code == 2
        assert words in done.output


def test_shares_of_the_points(paper, tmp_path):
    images = [{"id": n, "file_name": f"{n}.png", "width": 4, "height": 4} for n in range(5)]
    rows = [{"id": n, "image_id": n % 5, "category_id": 1, "point": [1, 1]} for n in range(9)]
    points, parts = tmp_path / "points.json", [tmp_path / f"{n}.json" for n in range(2)]
    document = {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "c"}]}
    points.write_text(json.dumps(document))
    paper.deal(points, parts)
    found = [json.loads(part.read_text()) for part in parts]
    assert [i["id"] for part in found for i in part["images"]] == [0, 2, 4, 1, 3]
    assert sorted(r["id"] for part in found for r in part["annotations"]) == list(range(9))
    for part in found:
        assert {r["image_id"] for r in part["annotations"]} == {i["id"] for i in part["images"]}


@pytest.mark.slow
def test_a_backbone_out_of_a_model(paper, tmp_path):
    body = MobileNetBody(FrozenBatchNorm)
    state = {f"backbone.body.{key}": value + 1 for key, value in body.state_dict().items()}
    torch.save({"state_dict": {**state, "head.weight": torch.zeros(1)}}, tmp_path / "model.pt")
    paper.take_backbone(tmp_path / "model.pt", tmp_path / "sub" / "backbone.pt")
    other = MobileNetBody(FrozenBatchNorm)
    load_file(other, tmp_path / "sub" / "backbone.pt")
    for key, value in other.state_dict().items():
        assert torch.equal(value, state[f"backbone.body.{key}"])


def test_gpus_keep_the_names_that_they_were_given(paper, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [paper.number(n) for n in range(2)] == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-3")
    assert [paper.number(n) for n in range(2)] == ["5", "GPU-3"]


@pytest.mark.slow
def test_a_failed_command_leaves_its_step_undone(paper, tmp_path):
    fail, done = [sys.executable, "-c", "raise SystemExit(3)"], tmp_path / "x.done"
    step = paper.Step(done, [[sys.executable, "-c", "pass"], fail])
    with pytest.raises(subprocess.CalledProcessError):
        step()
    assert not done.exists()
    paper.Step(done, [[sys.executable, "-c", "pass"]])()
    assert done.exists()


SMALL = {
    "train.epochs": 1,
    "train.batch_size": 2,
    "backbone.name": "mobilenet_v2",
    "backbone.fpn_channels": 16,
    "mil.fc_channels": 16,
    "mil.background_negatives": 4,
    "solo.channels": 16,
    "solo.stacked_convs": 1,
    "solo.mask_channels": 16,
    "solo.mask_feature_channels": 16,
    "solo.num_grids": [8, 6, 4, 3, 2],
    "data.short_sides": [64],
    "data.max_long_side": 96,
}


@pytest.mark.slow
def test_a_table_from_the_raw_files_to_the_figures(worlds, tmp_path):
    """Both kinds of steps, points to evaluation, with two `propose` beside each other; and again,
    when nothing is left to do."""
    for split in ("train", "val"):
        worlds.coco(tmp_path / "data" / "coco", split)
    changes = [part for k, v in SMALL.items() for part in ("--set", f"{k}={json.dumps(v)}")]
    arguments = ["--table", 1, "--data", tmp_path / "data", "--out", tmp_path / "out"]
    arguments += ["--row", "coco-mil-r50-1x", "--proposals", "hierarchy", "--gpus", 2]
    done = start(*arguments, *changes)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads((tmp_path / "out" / "coco-mil-r50-1x" / "val.json").read_text())
    assert 0 <= figures["segm"]["AP"] <= 1
    table = (tmp_path / "out" / "table-1.md").read_text()
    assert f"| MIL-SOLOv2, R-50 1x | {100 * figures['segm']['AP']:.1f} (26.8)" in table
    assert "| SAPNet, R-50 1x | – (30.7)" in table
    again = start(*arguments, *changes)
    assert again.returncode == 0
    assert "-m sapnet" not in again.stdout
    other = start(*arguments)
    assert other.returncode == 2
    assert "another run" in other.stderr.replace("\n", " ")
