"""A data set as a folder for the hub's `imagefolder`, and back to a COCO points document."""

import json
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path, PurePosixPath
from typing import Any

from sapnet_client.errors import SapnetError
from sapnet_client.models import Models
from sapnet_client.types import Annotation, Dataset, Image, Job, Mask, Segmentation

METADATA = "metadata.jsonl"
MASKS = "masks"
_FOLDERS = {"train": "train", "val": "validation", "test": "test"}
"""Of each subset, as the hub calls them; images without one are in train."""
_SUBSETS = {folder: subset for subset, folder in _FOLDERS.items()}
_MOST_OBJECTS = 65535  # numbers of 16 bits


class NotAFolder(SapnetError):
    """It is no data set that `write_folder` has written. The message says why."""


async def write_folder(
    client: Models, dataset: Dataset, root: Path, job: Job | None
) -> dict[str, int]:
    """Write the images of a data set, with metadata and masks.

    Args:
        job: whose masks it gets; without one those that its owner has confirmed.

    Returns:
        How many images each folder has.
    """
    names = {category.id: category.name for category in dataset.categories}
    count: dict[str, int] = {}
    lines: dict[str, list[str]] = {}
    split = bool(dataset.report.subsets)
    async with aclosing(client.images(dataset)) as images:
        async for image in images:
            folder = _FOLDERS[image.subset or "train"]
            (root / folder / MASKS).mkdir(parents=True, exist_ok=True)
            name = f"{image.id}{PurePosixPath(image.file_name).suffix.lower() or '.png'}"
            path = root / folder / name
            path.write_bytes(await client.image_bytes(dataset, image.id, as_stored=True))
            async with aclosing(client.annotations(dataset, image_id=image.id)) as items:
                annotations = [annotation async for annotation in items]
            masks = await _masks(client, job, image, annotations)
            row = _row(name, image, annotations, masks, names, split=split)
            if masks:
                row["mask_file_name"] = f"{MASKS}/{image.id}.png"
                _write_numbers(root / folder / row["mask_file_name"], image, annotations, masks)
            lines.setdefault(folder, []).append(json.dumps(row))
            count[folder] = count.get(folder, 0) + 1
    for folder, rows in lines.items():
        (root / folder / METADATA).write_text("\n".join(rows) + "\n")
    return count


async def _masks(
    client: Models, job: Job | None, image: Image, annotations: Sequence[Annotation]
) -> dict[int, tuple[Segmentation, float | None]]:
    """The mask of each object that has one, with its quality where a program has chosen it."""
    if job is None:
        return {a.id: (a.mask, None) for a in annotations if a.mask is not None}
    async with aclosing(client.pseudo_masks(job, image_id=image.id)) as items:
        kept: list[Mask] = [mask async for mask in items if mask.status != "rejected"]
    return {mask.id: (mask.segmentation, mask.quality) for mask in kept}


def _row(
    name: str,
    image: Image,
    annotations: Sequence[Annotation],
    masks: dict[int, tuple[Segmentation, float | None]],
    names: dict[int, str],
    *,
    split: bool,
) -> dict[str, Any]:
    items = [masks.get(annotation.id) for annotation in annotations]
    row: dict[str, Any] = {
        "file_name": name,
        "image_id": image.id,
        "original_name": image.file_name,
        "width": image.width,
        "height": image.height,
        "objects": {
            "id": [a.id for a in annotations],
            "category": [names.get(a.category_id, "") for a in annotations],
            "category_id": [a.category_id for a in annotations],
            "bbox": [a.bbox for a in annotations],
            "point": [a.point if a.pointed else None for a in annotations],
            "quality": [None if mask is None else mask[1] for mask in items],
            "mask": [None if mask is None else json.dumps(mask[0].document()) for mask in items],
        },
    }
    if split:
        row["subset"] = image.subset
    return row | ({"group": image.group} if image.group else {})


def _write_numbers(
    path: Path,
    image: Image,
    annotations: Sequence[Annotation],
    masks: dict[int, tuple[Segmentation, float | None]],
) -> None:
    """A PNG with the number of each pixel's object, from 1; the smaller lies above the larger."""
    import numpy
    from PIL import Image as Pillow

    numbers = numpy.zeros((image.height, image.width), numpy.uint16)
    arrays = [
        (number, masks[a.id][0].array())
        for number, a in enumerate(annotations[:_MOST_OBJECTS], 1)
        if a.id in masks
    ]
    for number, array in sorted(arrays, key=lambda one: -int(one[1].sum())):
        numbers[array] = number
    Pillow.fromarray(numbers).save(path)


def read_folder(root: Path) -> tuple[dict[str, Any], list[Path]]:
    """Read a data set as a COCO points document.

    Masks that a person has confirmed are confirmed again; those that a program chose are not taken:
    a training makes its own.

    Returns:
        It, and the files of its images.

    Raises:
        NotAFolder: there is no metadata, or it is not of this layout.
    """
    items = sorted(root.rglob(METADATA))
    if not items:
        raise NotAFolder(f"there is no {METADATA}: it is no imagefolder with annotations")
    document: dict[str, list[Any]] = {"images": [], "categories": [], "annotations": []}
    classes: dict[int, str] = {}
    files: list[Path] = []
    for metadata in items:
        for number, line in enumerate(metadata.read_text().splitlines(), 1):
            try:
                row = json.loads(line)
                path = _file(metadata.parent, row["file_name"])
                image = {name: row[name] for name in ("width", "height")} | {"id": row["image_id"]}
                image["file_name"] = path.relative_to(root).as_posix()
                subset = row.get("subset", _SUBSETS.get(metadata.parent.name))
                image |= {"subset": subset} if subset else {}
                image |= {"group": row["group"]} if row.get("group") else {}
                annotations = list(_objects(row, classes))
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                where = metadata.relative_to(root)
                problem = f"{where}:{number} is not of this layout: {error!r}"
                raise NotAFolder(problem) from None
            document["images"].append(image)
            document["annotations"] += annotations
            files.append(path)
    document["categories"] = [{"id": id_, "name": name} for id_, name in classes.items()]
    return document, files


def _file(folder: Path, name: str) -> Path:
    """Raises ValueError for what leaves the folder, or is not there."""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
        raise ValueError(f"there is no image {name!r}")
    return path


def _objects(row: dict[str, Any], classes: dict[int, str]) -> list[dict[str, Any]]:
    objects, records = row["objects"], []
    for index, id_ in enumerate(objects["id"]):
        category = objects["category_id"][index]
        classes.setdefault(category, objects["category"][index])
        record = {"id": id_, "image_id": row["image_id"], "category_id": category}
        for name in ("point", "bbox"):
            if objects[name][index] is not None:
                record[name] = objects[name][index]
        mask, quality = objects["mask"][index], objects["quality"][index]
        if mask is not None and quality is None:
            record["mask"] = json.loads(mask)
        records.append(record)
    return records
