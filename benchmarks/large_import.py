"""A COCO file of 450 MB, read as the service reads it: seconds and peak memory.

    python benchmarks/large_import.py [--images 118000] [--annotations 860000] [--json F]

A file of the size and shape of COCO's instances (a polygon, a box and a point an annotation) is
made, and read in a process of its own each time: its points, its truth, and its points with all
rows written to a SQLite database. Memory is that above what the process has before it begins.
"""

import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy import func, insert, select

from app.datasets import rows
from app.datasets.image_collection import ImageFile, ImageFiles
from app.datasets.validation import ValidationResult
from app.db import migrate as schema
from app.db.models import Annotation, Dataset, DatasetStatus
from app.db.session import Database
from sapnet.data.annotations.coco import PointDocument, check_truth, read_points
from sapnet.data.images import Inspection

CATEGORIES = 80
MB = 2**20


def main(
    images: int = 118_000,
    annotations: int = 860_000,
    json_to: Annotated[Path | None, typer.Option("--json", help="keep the figures")] = None,
    keep: Annotated[Path | None, typer.Option(help="where the file is made, and stays")] = None,
) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = keep or Path(name) / "instances.json"
        if not path.exists():
            write(path, images, annotations)
        print(f"{path.stat().st_size / MB:.0f} MiB, {images:,} images, {annotations:,} annotations")
        figures = [measured(what, path, Path(name)) for what in ("points", "truth", "rows")]
    for figure in figures:
        print(
            f"{figure['step']:7s} {figure['seconds']:6.1f} s   "
            f"peak {figure['peak_mb']:5.0f} MiB above the {figure['idle_mb']:.0f} before"
        )
    if json_to:
        about = {"machine": platform.machine(), "cores": os.cpu_count(), "commit": commit()}
        json_to.write_text(json.dumps({**about, "figures": figures}, indent=1) + "\n")


def write(path: Path, images: int, annotations: int) -> None:
    """One annotation has a polygon of 24 corners or so, as in COCO."""
    draw = random.Random(0)
    polygons = []
    for _ in range(997):
        x, y, size = draw.uniform(0, 500), draw.uniform(0, 400), draw.uniform(5, 80)
        corners = [
            round(c + draw.uniform(0, size), 2) for _ in range(draw.randint(12, 40)) for c in (x, y)
        ]
        polygons.append((corners, x, y, size))
    with path.open("w") as file:
        file.write('{"info": {"description": "made"}, "licenses": [], "images": [')
        for i in range(images):
            name = f"{i:012d}.jpg"
            image = {"license": 3, "file_name": name, "height": 480, "width": 640, "id": 9 * i + 7}
            image["coco_url"] = f"http://images.example.org/train/{name}"
            image["date_captured"] = "2013-11-14 11:18:45"
            file.write((", " if i else "") + json.dumps(image))
        file.write('], "annotations": [')
        for i in range(annotations):
            corners, x, y, size = polygons[i % len(polygons)]
            record = {
                "segmentation": [corners],
                "area": round(size * size / 2, 4),
                "iscrowd": 0,
                "image_id": 9 * (i * images // annotations) + 7,
                "bbox": [round(v, 2) for v in (x, y, size, size)],
                "category_id": i % CATEGORIES + 1,
                "id": 1_000_000 + 3 * i,
                "point": [round(x + size * (i % 89) / 89, 2), round(y + size * (i % 61) / 61, 2)],
            }
            file.write((", " if i else "") + json.dumps(record))
        classes = [{"id": c, "name": f"class {c}"} for c in range(1, CATEGORIES + 1)]
        file.write(f'], "categories": {json.dumps(classes)}}}')


def measured(step: str, path: Path, folder: Path) -> dict[str, Any]:
    """In a process of its own, so that nothing before it counts."""
    command = [sys.executable, __file__, "--step", step, str(path), str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def step(name: str, path: Path, folder: Path) -> None:
    idle, began = peak(), time.perf_counter()
    if name == "truth":
        assert len(check_truth(path))
    else:
        document = read_points(path)
        assert not document.issues, document.issues[:3]
        if name == "rows":
            write_rows(document, folder)
    seconds = time.perf_counter() - began
    figures = {"step": name, "seconds": seconds, "idle_mb": idle, "peak_mb": peak() - idle}
    print(json.dumps(figures))


def write_rows(document: PointDocument, folder: Path) -> None:
    """As the worker does, a transaction a batch; the images' files are left out."""
    database = Database(f"sqlite:///{folder / 'rows.db'}")
    schema.upgrade(database)
    image_files = ImageFiles(
        {
            image.file_name: ImageFile("", Path(), f"{image.id:064x}", Inspection(image.size))
            for image in document.images
        }
    )
    with database.begin() as session:
        dataset = Dataset(
            name="large",
            status=DatasetStatus.IMPORTING,
            images=0,
            annotations=0,
            report={},
            document_sha="0" * 64,
        )
        session.add(dataset)
    for table, batch in rows.batches(dataset.id, ValidationResult(document, image_files, {}, None)):
        with database.begin() as session:
            session.execute(insert(table), batch)
    with database.read() as session:
        found = session.scalar(select(func.count()).select_from(Annotation))
    assert found == len(document.kept)


def peak() -> float:
    """Of this process so far, in MiB."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x)
    return int(line.split()[1]) / 1024


def commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout.strip()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--step"]:
        step(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
    else:
        typer.run(main)
