"""Images of a data set that corrects another one: those of its parent, by file name."""

from pathlib import Path

from sqlalchemy import select

from app.datasets.image_collection import ImageFile, ImageFiles, ReportProgress
from app.datasets.validation import Fetch
from app.db.models import Image
from app.db.session import Database
from app.storage.store import Storage, link
from sapnet.data.annotations.coco import PointDocument
from sapnet.data.exif import orientation_of
from sapnet.data.file_pairing import pair
from sapnet.data.images import Inspection
from sapnet.data.subsets import Split


def from_parent(database: Database, storage: Storage, parent_id: str) -> Fetch:
    """Return a function that gives the parent's images to a document that names them.

    An image that the parent has not is missing. The parent's split comes along.
    """

    def fetch(document: PointDocument, folder: Path, report_progress: ReportProgress) -> ImageFiles:
        image_files = ImageFiles()
        target = folder / "fetched"
        target.mkdir(exist_ok=True)
        columns = Image.file_name, Image.sha256, Image.height, Image.width
        split = Image.subset, Image.split_group
        with database.read() as session:
            rows = session.execute(
                select(*columns, *split).where(Image.dataset_id == parent_id)
            ).all()
        names = [image.file_name for image in document.images]
        pairing = pair(names, {row.file_name: row for row in rows})
        image_files.missing = pairing.missing() | pairing.unclear()
        for index, (name, row) in enumerate(pairing.matched.items()):
            report_progress("images", index, len(names))
            path = target / str(index)
            link(storage.local_path(row.sha256), path)
            inspection = Inspection((row.height, row.width), orientation_of(path))
            image_files.splits[name] = Split(row.subset, row.split_group)
            image_files.by_name[name] = ImageFile(row.file_name, path, row.sha256, inspection)
        return image_files

    return fetch
