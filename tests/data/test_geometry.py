"""What reaches pycocotools was checked: sizes, run lengths, polygons, boxes, whoever sent them."""

import ast
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from sapnet.data import masks as gate
from sapnet.errors import InvalidGeometry

from .hostile import CASES, POLYGONS, RUNS, SIZES

ROOT = Path(gate.__file__).parents[2]
IMAGE = (10, 12)


@pytest.mark.parametrize("size", SIZES, ids=repr)
def test_what_is_no_size(size: Any) -> None:
    with pytest.raises(InvalidGeometry) as caught:
        gate.check_size(size)
    assert str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("size", [(1, 1), [3, 4], (1, gate.MAX_PIXELS), (2**15, 2**15)])
def test_sizes(size: Any) -> None:
    assert gate.check_size(size) == tuple(size)


@pytest.mark.parametrize("counts", RUNS, ids=lambda c: repr(c)[:40])
def test_what_is_no_rle(counts: Any) -> None:
    with pytest.raises(InvalidGeometry):
        gate.checked_rle({"size": [*IMAGE], "counts": counts}, IMAGE)


@pytest.mark.parametrize("size", [*SIZES, [12, 10], [10, 12, 1], [-10, -12], [10.0, 12], [True, 1]])
def test_an_rle_of_another_size(size: Any) -> None:
    with pytest.raises(InvalidGeometry):
        gate.checked_rle({"size": size, "counts": [120]}, IMAGE)


@pytest.mark.slow
@pytest.mark.parametrize("polygons", POLYGONS, ids=lambda p: repr(p)[:40])
def test_what_are_no_polygons(polygons: Any) -> None:
    with pytest.raises(InvalidGeometry):
        gate.checked_rle(polygons, IMAGE)


@pytest.mark.parametrize(
    "box",
    [
        None,
        [],
        [1, 2, 3],
        [1, 2, 3, "4"],
        [1, 2, True, 4],
        [1, 2, -1, 4],
        [1, 2, math.nan, 4],
        [1, 2, math.inf, 4],
        [-math.inf, 2, math.inf, 4],
        [1, 2, 10**400, 4],
        [1e9, 2, 3, 4],
        [0, 0, 2e9, 2e9],
    ],
)
def test_what_is_no_box(box: Any) -> None:
    with pytest.raises(InvalidGeometry):
        gate.check_box(box, IMAGE)


@pytest.mark.parametrize("area", [-1, math.nan, math.inf, 1e300, 10**400, True, "5", None])
def test_what_is_no_area(area: Any) -> None:
    with pytest.raises(InvalidGeometry):
        gate.check_area(area, IMAGE)


def test_boxes_and_areas_of_objects_that_are_cut_off() -> None:
    gate.check_box([-3, -2, 25.5, 20], IMAGE)
    gate.check_area(120.5, IMAGE)


masks = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**81 - 1)).map(
    lambda drawn: np.array([drawn[2] >> i & 1 for i in range(drawn[0] * drawn[1])], bool).reshape(
        drawn[0], drawn[1]
    )
)


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(masks)
def test_there_and_back(mask: np.ndarray) -> None:
    encoded = gate.encode(mask)
    assert (gate.decode(encoded) == mask).all()
    runs = gate.run_lengths(encoded["counts"])
    assert gate.from_runs(runs, mask.shape) == encoded
    for counts in (encoded["counts"], encoded["counts"].encode(), runs.tolist()):
        assert gate.checked_rle({"size": [*mask.shape], "counts": counts}, mask.shape) == encoded


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=20))
def test_any_text_is_refused_or_is_a_mask(text: str) -> None:
    """Refused text never reaches pycocotools, which would read past its end."""
    try:
        runs = gate.check_rle([3, 4], text, (3, 4))
    except InvalidGeometry:
        return
    assert runs.sum() == 12
    assert coco_mask.decode({"size": [3, 4], "counts": text}).sum() == runs[1::2].sum()


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-(2**35), 2**35), min_size=1, max_size=8))
def test_numbers_of_several_groups(values: list[int]) -> None:
    """Against an encoder that is written out as the format is described."""
    runs = np.cumsum(np.abs(values)).tolist()
    text = ""
    for i, run in enumerate(runs):
        rest = run - (runs[i - 2] if i > 2 else 0)
        more = True
        while more:
            group, rest = rest & 31, rest >> 5
            more = rest != (-1 if group & 16 else 0)
            text += chr(48 + (group | (32 if more else 0)))
    if max(runs) < 2**34:
        assert gate.run_lengths(text).tolist() == runs


def test_polygons_as_pycocotools_fills_them() -> None:
    """With corners outside of the image, up to its longer side."""
    polygons = [[-12, -3, 24, -3, 5.5, 22], [1, 1, 4, 1, 4, 4]]
    expected = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, *IMAGE)))
    assert (gate.decode(gate.checked_rle(polygons, IMAGE)) == expected).all()


def test_outlines_are_measured_not_guessed() -> None:
    """Many corners in a large image are no long outline, if they lie side by side."""
    angle = np.linspace(0, 2 * np.pi, 20_000)
    circle = np.stack([5000 + 4000 * np.cos(angle), 5000 + 4000 * np.sin(angle)], 1)
    mask = gate.checked_rle([circle.ravel().tolist()], (10_000, 10_000))
    assert gate.area(mask) == pytest.approx(np.pi * 4000**2, rel=1e-3)


@pytest.mark.slow
def test_every_entrance_refuses_and_lives(tmp_path: Path) -> None:
    """In a process of its own, with little memory: without the checks it would die or grow."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.data.hostile", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["name"] for line in found] == [*CASES]
    assert [line for line in found if not line["refused"]] == []
    assert [line for line in found if line["grown_mb"] > 100] == []


@pytest.mark.slow
def test_nobody_else_calls_pycocotools_with_segmentations() -> None:
    others = []
    for folder in ("sapnet", "app", "worker"):
        for path in (ROOT / folder).rglob("*.py"):
            if path == Path(gate.__file__):
                continue
            others += [
                f"{path}:{node.lineno}"
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id in ("coco", "coco_mask")
                and node.attr in ("frPyObjects", "decode", "encode", "merge")
            ]
    assert others == []
