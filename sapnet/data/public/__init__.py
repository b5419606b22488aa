"""Public datasets in their own layouts, read as COCO instances, with a point per object.

What the papers' protocol trains and measures on: COCO 2017, VOC 2012 with SBD, Cityscapes, iSAID.
The points come from the masks once, here; what trains on them sees no mask and no box.
"""

import json
from pathlib import Path

from sapnet.data.public.cityscapes import read_cityscapes
from sapnet.data.public.coco import read_coco, read_isaid
from sapnet.data.public.point_sampling import RULES, draw_points
from sapnet.data.public.split import Split
from sapnet.data.public.voc import read_voc
from sapnet.utils.files import write_text

__all__ = ["READERS", "RULES", "Split", "draw_points", "export", "read_split"]

READERS = {
    "coco": read_coco,
    "voc": read_voc,
    "cityscapes": read_cityscapes,
    "isaid": read_isaid,
}


def read_split(kind: str, root: Path, split: str) -> Split:
    """A split ("train" or "val") of the dataset that lies under `root` as its makers ship it.

    Raises:
        ValueError: the kind or the split is unknown.
        OSError: a file is missing.
    """
    if kind not in READERS:
        raise ValueError(f"{kind!r} is not one of {', '.join(READERS)}")
    if split not in ("train", "val"):
        raise ValueError(f"split {split!r} is neither 'train' nor 'val'")
    return READERS[kind](root, split)


def export(
    split: Split, out: Path, *, rule: str = "quasi-center", seed: int = 0, jitter: float = 0.0
) -> dict[str, int]:
    """Write out/{points.json, instances.json} and out/images, a link to the split's own images.

    Args:
        split: what was read.
        out: a folder.
        rule, seed, jitter: of the points, see `draw_points`.

    Returns:
        Counts of images, objects, crowds and points.

    Raises:
        ValueError: the rule is unknown.
        OSError: out/images is there and no link.
    """
    points = draw_points(split.instances, rule, seed, jitter)
    out.mkdir(parents=True, exist_ok=True)
    link = out / "images"
    if link.is_symlink():
        link.unlink()
    link.symlink_to(split.images.resolve(), target_is_directory=True)
    write_text(out / "instances.json", json.dumps(split.instances))
    write_text(out / "points.json", json.dumps(points))
    crowds = sum(row["iscrowd"] for row in split.instances["annotations"])
    return {
        "images": len(split.instances["images"]),
        "objects": len(split.instances["annotations"]) - crowds,
        "crowds": crowds,
        "points": len(points["annotations"]),
    }
