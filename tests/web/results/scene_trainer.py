"""The fake trainer, with masks that lie on the objects of generated scenes: the truth of the data
set, some of it cut in half, so that there is something to look at and to correct."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from scipy import ndimage

from sapnet.config.resolve import resolve_config
from sapnet.evaluation.curves import Curves, draw_curves

FAKE = Path(__file__).parents[2] / "jobs" / "fake_trainer.py"
spec = importlib.util.spec_from_file_location("fake_trainer", FAKE)
assert spec is not None
assert spec.loader is not None
fake = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fake)
results = fake.results


def of_truth(job: dict[str, Any]) -> dict[int, dict[str, Any]]:
    document = json.loads(Path(job["truth"]).read_text())
    return {a["id"]: a["segmentation"] for a in document["annotations"]}


def described(mask: np.ndarray) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    box = [float(v) for v in coco_mask.toBbox(rle)]
    return {"rle": rle | {"counts": rle["counts"].decode()}, "bbox": box, "area": int(mask.sum())}


def figures(folder: Path) -> None:
    """Figures of a model, with their curves, as a training with truth leaves them."""
    recalls = np.linspace(0, 1, 101)
    overall = {"AP50": 1 - recalls**3, "AP75": 0.8 * (1 - recalls**2), "AP": 0.6 * (1 - recalls)}
    draw_curves(folder / "curves.png", Curves(recalls, overall, {1: overall}), {1: "beetle"})
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["model"] = {"AP": 0.3, "AP50": 0.75, "AP75": 0.53, "AP25": 0.8}
    fake.write(folder / "metrics.json", json.dumps(metrics))


def settings(job: dict[str, Any], folder: Path) -> None:
    """What another training needs to know to go on from this model."""
    config = resolve_config(job["method"], job["preset"], job["overrides"])
    meta = json.loads((folder / "model.json").read_text()) | {"config": config.to_dict()}
    fake.write(folder / "model.json", json.dumps(meta))


def good_and_bad(job: dict[str, Any], folder: Path, model_mb: int) -> None:
    """Every third mask is half of its object, and its quality is low."""
    results(job, folder, model_mb)
    figures(folder)
    settings(job, folder)
    truth = of_truth(job)
    path = folder / "pseudo_masks.ndjson"
    lines = []
    for text in path.read_text().splitlines():
        line = json.loads(text)
        if line["source"] == "confirmed":
            lines.append(text)
            continue
        whole = coco_mask.decode(truth[line["id"]]).astype(bool)
        half = whole.copy()
        half[:, round(np.nonzero(whole)[1].mean()) :] = False
        bad = line["id"] % 3 == 0
        made = described(half if bad else whole)
        shapes = [
            whole,
            ndimage.binary_erosion(whole, iterations=4),
            ndimage.binary_dilation(whole, iterations=6),
            half,
        ]
        line |= {"segmentation": made["rle"], "bbox": made["bbox"], "area": made["area"]}
        line["quality"] = round((0.1 if bad else 0.6) + (line["id"] * 37 % 40) / 100, 2)
        line["selected"] = described(half)["rle"]
        line["refined"] = None if bad else made["rle"]
        line["candidates"] = [
            {"index": i, "segmentation": described(s)["rle"], "probability": p}
            for i, (s, p) in enumerate(zip(shapes, (0.4, 0.3, 0.2, 0.1), strict=True))
        ]
        lines.append(json.dumps(line))
    fake.write(path, "\n".join(lines) + "\n")


fake.results = good_and_bad
if __name__ == "__main__":
    fake.main()
    sys.exit(0)
