"""Images of a data set that corrects another one: those of its parent, by file name."""

import os
import shutil
from pathlib import Path

from sqlalchemy import select

from app.datasets.image_collection import Picture, Pictures, Tell
from app.datasets.validation import Fetch
from app.db.models import Image
from app.db.session import Database
from app.storage.store import Storage
from sapnet.data.annotations.coco import PointDocument
from sapnet.data.exif import orientation_of
from sapnet.data.images import Inspection


def from_parent(database: Database, storage: Storage, parent_id: str) -> Fetch:
    """Gives the parent's images to a document that names them; one that it has not is missing."""

    def fetch(document: PointDocument, folder: Path, tell: Tell) -> Pictures:
        pictures = Pictures()
        target = folder / "fetched"
        target.mkdir(exist_ok=True)
        columns = Image.file_name, Image.sha256, Image.height, Image.width
        with database.read() as session:
            rows = session.execute(select(*columns).where(Image.dataset_id == parent_id)).all()
        known = {row.file_name: row for row in rows}
        for index, image in enumerate(document.images):
            tell("images", index, len(document.images))
            if (row := known.get(image.file_name)) is not None:
                path = target / str(index)
                link(storage.local_path(row.sha256), path)
                seen = Inspection((row.height, row.width), orientation_of(path))
                name = image.file_name
                pictures.by_name[name] = Picture(name, path, row.sha256, seen, 0)
        return pictures

    return fetch


def link(source: Path, path: Path) -> None:
    """A second name for a blob, which costs nothing; a copy where that cannot be."""
    path.unlink(missing_ok=True)
    try:
        os.link(source, path)
    except OSError:
        shutil.copyfile(source, path)
