"""Sizes, run lengths and polygons that are none, and a process that hands them to every reader.

As a script it works through `CASES` and writes a line for each; a case that kills it has none.
"""

import json
import math
import resource
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from sapnet.data.annotations.coco import load_points, read_truth
from sapnet.data.exporters.source import Instance, InvalidMask, read_shape
from sapnet.data.public.coco import read_coco
from sapnet.errors import SapnetError
from sapnet.evaluation.results import read_results
from sapnet.proposals.given import GivenGenerator
from sapnet.types import Category, ImageInfo, PointAnnotation, PointSet

HUGE = 2**31 - 1
SIZES: list[Any] = [
    None,
    [],
    [5],
    [5, 5, 5],
    "55",
    {"h": 5, "w": 5},
    [0, 5],
    [-5, -5],
    [True, True],
    ["5", "5"],
    [5.0, 5.0],
    [math.nan, 5],
    [HUGE, HUGE],
    [10**7, 10**7],
    [2**16, 2**16],
    [2**32 + 1, 1],
    [10**400, 1],
]
"""None is a size."""
RUNS: list[Any] = [
    None,
    7,
    {},
    "",
    "0",
    "ooo",
    "~~~",
    "\x00",
    "é",
    "\ud800",
    "oooooooo0",
    "PPYo1",
    "0" * 5_000_000,
    [],
    [0],
    [119],
    [121],
    [60, 61],
    [-1, 121],
    [-120, 240],
    [2**32 + 120],
    [2**32, 120 - 2**32],
    [2**63, -(2**63) + 120],
    [10**400],
    [True, 119],
    [60.0, 60.0],
    ["120"],
    [None],
    [[120]],
    [0] * 2_500_000,
]
"""None is a mask of 10×12 pixels, compressed or not."""
POLYGONS: list[Any] = [
    None,
    3,
    "polygon",
    [],
    [[]],
    [1, 2, 3, 4, 5, 6],
    [[1, 2, 3, 4]],
    [[1, 2, 3, 4, 5, 6, 7]],
    [[1, 2, 3, 4, 5, "6"]],
    [[1, 2, 3, 4, 5, True]],
    [[1, 2, 3, 4, 5, None]],
    [[1, 2, 3, 4, 5, [6]]],
    [[1, 2, 3, 4, 5, math.nan]],
    [[1, 2, 3, 4, math.inf, 6]],
    [[1, 2, 3, 4, math.inf, -math.inf]],
    [[1, 2, 3, 4, 5, 10**400]],
    [[1, 2, 3.5, 4, 5, 10**400]],
    [[0, 0, 2e9, 0, 2e9, 2e9]],
    [[0, 0, -2e9, 0, 2e9, 2e9]],
    [[0, 0, 1e308, 1e308, 1e308, 1e308]],
    [[0, 0, 40, 0, 40, 40]],
    [[0, 0, 12, 10] * 300_000],
    [[0, 0, 12, 10, 1, 1]] * 200_000,
    [[0, 0, 12, 10] * 48_000],
    [[1, 1, 5, 1, 5, 5], [1, 2, 3]],
]
"""None is polygons of an image of 10×12 pixels."""
GOOD = [[1, 1, 5, 1, 5, 5]]
WIDE = [[0, 0, 2e9, 0, 2e9, 2e9]]


def _document(
    size: list[Any], segmentation: Any, mask: Any = None, **more: Any
) -> dict[str, list[Any]]:
    image = {"id": 1, "file_name": "a.png", "height": size[0], "width": size[1]}
    fields = {"id": 7, "image_id": 1, "category_id": 1, "iscrowd": 0, "point": [1, 1]}
    box = {"bbox": [1, 1, 4, 4], "area": 8}
    annotation = {**fields, **box, "segmentation": segmentation, **more}
    annotation |= {"mask": mask, "bbox": None} if mask is not None else {}
    categories = [{"id": 1, "name": "x"}]
    return {"images": [image], "categories": categories, "annotations": [annotation]}


def _truth(sizes: dict[int, tuple[int, int]] | None, document: Any, folder: Path) -> None:
    path = folder / "truth.json"
    path.write_text(json.dumps(document))
    read_truth(path, sizes)


def _points(document: Any, folder: Path) -> None:
    path = folder / "points.json"
    path.write_text(json.dumps(document))
    load_points(path)


def _public(document: Any, folder: Path) -> None:
    (folder / "annotations").mkdir(exist_ok=True)
    (folder / "train2017").mkdir(exist_ok=True)
    (folder / "annotations" / "instances_train2017.json").write_text(json.dumps(document))
    read_coco(folder, "train")


def _results(results: Any, folder: Path) -> None:
    path = folder / "results.json"
    path.write_text(json.dumps(results))
    image = {"id": 1, "file_name": "a.png", "height": 10, "width": 12}
    truth = {"images": [image], "categories": [{"id": 1, "name": "x"}]}
    read_results(path, truth, lambda issue: None)


def _result(segmentation: Any, **more: Any) -> list[dict[str, Any]]:
    result = {"image_id": 1, "category_id": 1, "score": 0.5, "segmentation": segmentation}
    return [{**result, **more}]


def _given(known: bool, segmentation: Any, folder: Path) -> None:
    info = ImageInfo(1, "a.png", 12, 10)
    annotation = PointAnnotation(7, 1, 1, 1.0, 1.0)
    points = PointSet((info,), (annotation,), (Category(1, "x"),))
    generator = GivenGenerator({"7": [{"segmentation": segmentation}]}, points if known else None)
    assert not known, "the document itself is at fault"
    list(generator.propose(None, info, [annotation]))  # type: ignore[arg-type]


def _export(segmentation: Any, folder: Path) -> None:
    try:
        read_shape(Instance(1, 1, segmentation, 0.5), ImageInfo(1, "a.png", 12, 10))
    except InvalidMask as error:
        raise SapnetError(str(error)) from error


def _cases() -> dict[str, Callable[[Path], None]]:
    own = {1: (10, 12)}
    good: dict[str, Any] = {}
    for n, segmentation in enumerate(
        [*POLYGONS, *({"size": [10, 12], "counts": c} for c in RUNS), *_rles_of(SIZES)]
    ):
        document = _document([10, 12], segmentation)
        good |= {
            f"truth {n}": partial(_truth, None, document),
            f"truth of known images {n}": partial(_truth, own, document),
            f"given {n}": partial(_given, True, segmentation),
            f"given without points {n}": partial(_given, False, segmentation),
            f"results {n}": partial(_results, _result(segmentation)),
            f"export {n}": partial(_export, segmentation),
        }
        if segmentation is not None and _for_public(segmentation):
            good[f"public {n}"] = partial(_public, document)
        if isinstance(segmentation, dict):
            good[f"mask {n}"] = partial(_points, _document([10, 12], None, segmentation))
    for n, size in enumerate(s for s in SIZES if isinstance(s, list) and len(s) == 2):
        for name, kind in (("wide", WIDE), ("rle", {"size": size, "counts": [2**62]})):
            document = _document(size, kind)
            good |= {
                f"declared size, {name}, truth {n}": partial(_truth, None, document),
                f"declared size, {name}, known truth {n}": partial(_truth, own, document),
                f"declared size, {name}, points {n}": partial(_points, _document(size, None, kind)),
                f"declared size, {name}, public {n}": partial(_public, document),
            }
    for name, wrong in {
        "box": {"bbox": [0, 0, 1e300, 1]},
        "negative box": {"bbox": [5, 5, -3, 2]},
        "area": {"area": 1e300},
        "negative area": {"area": -1},
    }.items():
        good[f"truth, {name}"] = partial(_truth, None, _document([10, 12], GOOD, **wrong))
    for name, wrong in {
        "box": {"bbox": [0, 0, 1e300, 1]},
        "text for a box": {"bbox": "box"},
        "score": {"score": math.nan},
        "huge score": {"score": 10**400},
        "text for a score": {"score": "1"},
        "image": {"image_id": [1]},
        "category": {"category_id": {}},
    }.items():
        good[f"results, {name}"] = partial(_results, _result(GOOD, **wrong))
    other = _document([12, 10], GOOD)
    good["truth of another size"] = partial(_truth, own, other)
    return good


def _rles_of(sizes: list[Any]) -> list[Any]:
    return [{"size": size, "counts": [25]} for size in sizes]


def _for_public(segmentation: Any) -> bool:
    """Else the readers of public data leave polygons out, or the file is none of theirs."""
    if isinstance(segmentation, dict):
        return True
    lists = isinstance(segmentation, list) and all(isinstance(p, list) for p in segmentation)
    return bool(lists and segmentation) and all(
        len(p) >= 6 and len(p) % 2 == 0 for p in segmentation
    )


CASES = _cases()


def main(folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
    for name, case in CASES.items():
        before, refused = _peak(), False
        try:
            case(folder)
        except (SapnetError, ValueError):
            refused = True
        line = {"name": name, "refused": refused, "grown_mb": (_peak() - before) >> 10}
        print(json.dumps(line), flush=True)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main(Path(sys.argv[1]))
