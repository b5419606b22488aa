"""Writes the files beside it with Datumaro 1.13.12: run in an environment that has `datumaro`.

    python make.py

It is no requirement of the tests: it wants other versions of what the project has.
"""

import shutil
import tempfile
from pathlib import Path

import numpy as np
from datumaro.components.annotation import Bbox, Label, Points, Polygon
from datumaro.components.dataset import Dataset
from datumaro.components.dataset_base import DatasetItem
from datumaro.components.media import Image

SQUARE = [8, 6, 20, 6, 20, 18, 8, 18]

items = [
    DatasetItem(
        f"cell_{number}",
        subset=subset,
        media=Image.from_numpy(np.full((30, 40, 3), 40 * number, np.uint8)),
        annotations=[
            Points([10.5, 12.5], label=0, id=1),
            Bbox(8, 6, 12, 12, label=1, id=2),
            Polygon(SQUARE, label=1, id=3),
            Label(0),
        ],
    )
    for number, subset in enumerate(("train", "train", "val", "test"))
]
dataset = Dataset.from_iterable(items, categories=["cell", "dust"], media_type=Image)
with tempfile.TemporaryDirectory() as folder:
    dataset.export(folder, "datumaro", save_media=True)
    for path in Path(folder, "annotations").glob("*.json"):
        shutil.copy(path, Path(__file__).with_name(f"datumaro_{path.name}"))
