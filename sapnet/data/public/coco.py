"""COCO 2017 and iSAID: instances in COCO's JSON, polygons and run lengths made compressed RLE."""

from pathlib import Path
from typing import Any

from sapnet.data.depth import parse
from sapnet.data.masks import checked_rle
from sapnet.data.public.split import Split, find
from sapnet.errors import InvalidGeometry
from sapnet.types import Rle

ISAID_CLASSES = (
    "ship",
    "storage_tank",
    "baseball_diamond",
    "tennis_court",
    "basketball_court",
    "ground_track_field",
    "bridge",
    "large_vehicle",
    "small_vehicle",
    "helicopter",
    "swimming_pool",
    "roundabout",
    "soccer_ball_field",
    "plane",
    "harbor",
)
ISAID_FILES = ("instancesonly_filtered_{}.json", "instance_only_filtered_{}.json")


def read_coco(root: Path, split: str) -> Split:
    """Read a split ("train" or "val") of COCO 2017.

    Args:
        root: annotations/instances_{split}2017.json, {split}2017/ (or images/{split}2017/).
    """
    path = root / "annotations" / f"instances_{split}2017.json"
    document = parse(path.read_bytes())
    categories = [{"id": c["id"], "name": c["name"]} for c in document["categories"]]
    instances = {**compressed(document), "categories": categories}
    return Split(find(root, f"{split}2017", ".", "images") / f"{split}2017", instances)


def read_isaid(root: Path, split: str) -> Split:
    """Read a split ("train" or "val") of iSAID.

    The kit numbers classes in the order of their first appearance, so that its files for train and
    val may differ; here a class has its place in ISAID_CLASSES, by name.

    Args:
        root: the 800×800 patches that iSAID's development kit cuts, {split}/images/ and its JSON.
    """
    names = [name.format(split) for name in ISAID_FILES]
    folder = root / split
    name = next((name for name in names if (folder / name).exists()), names[0])
    document = parse((folder / name).read_bytes())
    number = {c["id"]: isaid_class(c["name"]) for c in document["categories"]}
    instances = compressed(document)
    for row in instances["annotations"]:
        row["category_id"] = number[row["category_id"]]
    categories = [{"id": n, "name": c} for n, c in enumerate(ISAID_CLASSES, start=1)]
    return Split(folder / "images", {**instances, "categories": categories})


def isaid_class(name: str) -> int:
    """The number of a class, 1..15, however its name is written. ValueError for another name."""
    plain = name.lower().replace("-", "_").replace(" ", "_")
    if plain not in ISAID_CLASSES:
        raise ValueError(f"iSAID has no class {name!r}")
    return ISAID_CLASSES.index(plain) + 1


def compressed(document: dict[str, Any]) -> dict[str, Any]:
    """The images and annotations of COCO instances, masks as compressed RLE.

    bbox and area stay the file's own, since COCO sorts objects by them; an annotation without a
    polygon of three points is skipped.
    """
    images = [
        {key: row[key] for key in ("id", "file_name", "height", "width")}
        for row in document["images"]
    ]
    size = {row["id"]: (row["height"], row["width"]) for row in images}
    annotations = []
    for row in document["annotations"]:
        try:
            rle = to_rle(row["segmentation"], *size[row["image_id"]])
        except InvalidGeometry as error:
            raise InvalidGeometry(f"annotation {row['id']}: {error}", error.hint) from None
        if rle is not None:
            kept = {key: row[key] for key in ("id", "image_id", "category_id", "bbox", "area")}
            crowd = int(row.get("iscrowd", 0))
            annotations.append({**kept, "segmentation": rle, "iscrowd": crowd})
    return {"images": images, "annotations": annotations}


def to_rle(segmentation: Any, height: int, width: int) -> Rle | None:
    """Polygons, or RLE compressed or not, as compressed RLE; None where no polygon is one.

    Raises:
        InvalidGeometry: it is neither.
    """
    if isinstance(segmentation, list):
        segmentation = [p for p in segmentation if len(p) >= 6 and len(p) % 2 == 0]
        if not segmentation:
            return None
    return checked_rle(segmentation, (height, width))
