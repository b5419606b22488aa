"""Data sets: images with one point per object."""

import json
import os
import tempfile
import zipfile
from collections.abc import AsyncGenerator, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from sapnet_client.calls import Ref, id_of
from sapnet_client.errors import DatasetInvalid
from sapnet_client.jobs import Jobs
from sapnet_client.types import Annotation, Dataset, DatasetStatistics, Image, NextImage
from sapnet_client.wire import Call, Part

BY_FORM = 16 * 2**20
"""Files up to this many bytes go with the form; larger ones before it, resumably."""
ARCHIVES = (".zip", ".tar", ".tgz", ".gz")

Document = str | Path | Mapping[str, Any]
"""A file, or what would be in it as JSON."""
Images = str | Path | Iterable[str | Path]
"""A folder, an archive, image files, or an address below which the images are."""


class Datasets(Jobs):
    """The client's methods for data sets."""

    async def create_dataset(
        self,
        images: Images | None,
        points: Document | None = None,
        *,
        truth: Document | None = None,
        name: str | None = None,
        parent: Ref | None = None,
        boxes: str = "use",
        wait: bool = True,
    ) -> Dataset:
        """Send images and their points. Large files are sent resumably.

        Args:
            images: a folder, an archive, image files, or "https://host/folder/" or
                "s3://bucket/folder/"; None with a `parent` takes the parent's. Of a folder those
                that `points` names are sent, by the rule that the service finds them by.
            points: COCO with a "point" or a "bbox" for each annotation; CVAT's XML; Label Studio's
                JSON; GeoJSON; or a folder with the files of Labelme, COCO, YOLO, PASCAL VOC or
                Datumaro. None where `images` is the folder or the archive of such a data set.
            truth: COCO instances, for metrics alone.
            name: by default the folder's.
            parent: the data set that this one corrects.
            boxes: "ignore" goes by the points alone.
            wait: whether to wait until a large one is imported.

        Raises:
            Invalid: lists everything that is wrong.
            DatasetInvalid: as Invalid, where it turns out later.
        """
        form: dict[str, Any] = {"name": name or _name_of(images)} if name or images else {}
        if parent is not None:
            form["parent"] = id_of(parent)
        if boxes != "use":
            form["boxes"] = boxes
        with tempfile.TemporaryDirectory(prefix="sapnet-client-") as folder:
            files: list[tuple[str, str, Path]] = []
            if points is None and isinstance(images, str | Path) and Path(images).is_dir():
                points = images
            if points is not None:
                files.append(_document("annotations", "points.json", points, Path(folder)))
            if truth is not None:
                files.append(_document("truth", "truth.json", truth, Path(folder)))
            if isinstance(images, str) and "://" in images:
                form["images_url"] = images
            elif images is not None:
                named = None if points is None else _named(files[0][2])
                archives = _archives(images, named, Path(folder) / "images.zip")
                files += [("images", path.name, path) for path in archives]
            parts: list[Part] = []
            for part, file_name, path in files:
                if path.stat().st_size <= BY_FORM:
                    parts.append((part, file_name, path))
                else:
                    form.setdefault(f"{part}_upload", []).append(await self.upload(path))
            dataset = await self._post(Dataset, "/datasets", form=form, parts=tuple(parts))
        return await self.ready(dataset) if wait else dataset

    async def ready(self, dataset: Ref) -> Dataset:
        """Wait until a data set is imported.

        Raises:
            DatasetInvalid: it turned out not to be usable.
        """
        imported = await self.dataset(dataset)
        if imported.status == "importing" and imported.report.progress is not None:
            await self.wait(imported.report.progress.job_id, check=False)
            imported = await self.dataset(dataset)
        if imported.status != "ready":
            raise DatasetInvalid(imported)
        return imported

    async def dataset(self, dataset: Ref) -> Dataset:
        """Look a data set up.

        Raises:
            NotFound: there is none of this id.
        """
        return await self._get(Dataset, f"/datasets/{id_of(dataset)}")

    def datasets(self) -> AsyncGenerator[Dataset, None]:
        """Yield all data sets, the newest first."""
        return self._pages(Dataset, "/datasets", "datasets")

    def images(self, dataset: Ref) -> AsyncGenerator[Image, None]:
        """Yield the images of a data set, by id."""
        return self._pages(Image, f"/datasets/{id_of(dataset)}/images", "images")

    def annotations(
        self, dataset: Ref, *, image_id: int | None = None
    ) -> AsyncGenerator[Annotation, None]:
        """Yield points, with the masks that were confirmed, by id.

        Args:
            image_id: for those of one image alone.
        """
        path = f"/datasets/{id_of(dataset)}/annotations"
        return self._pages(Annotation, path, "annotations", image_id=image_id)

    async def image_bytes(self, dataset: Ref, image_id: int, *, as_stored: bool = False) -> bytes:
        """Return an image's file as it was sent.

        Args:
            as_stored: without an EXIF orientation, so that every program shows the pixels as points
                and masks have them.
        """
        path = f"/datasets/{id_of(dataset)}/images/{image_id}"
        data = (await self._send(Call("GET", path, again=True))).body
        if not as_stored:
            return data
        from sapnet.data.exif import as_stored as without_orientation

        return without_orientation(data)

    async def statistics(
        self,
        dataset: Ref,
        *,
        job: Ref | None = None,
        min_distance: float | None = None,
        examples: int | None = None,
    ) -> DatasetStatistics:
        """Return what is in a data set, and what in it looks wrong.

        Args:
            job: a training of it, whose masks tell which points may be wrong.
            min_distance: pixels; points of one image that are nearer are told; 3 by default.
            examples: at most so many of each finding; 20 by default.

        Raises:
            NotFound: there is no such data set, or no such job.
            Conflict: the data set is not ready, or the job has no masks of it.
        """
        asked = {"job": None if job is None else id_of(job), "min_distance": min_distance}
        path = f"/datasets/{id_of(dataset)}/statistics"
        return await self._get(DatasetStatistics, path, **asked, examples=examples)

    def next_images(
        self, dataset: Ref, *, job: Ref | None = None, images: str = "unannotated"
    ) -> AsyncGenerator[NextImage, None]:
        """Yield the images in the order in which to click or to review them, with the reasons.

        What was decided meanwhile counts from the next page on: to follow it, ask anew.

        Args:
            job: a training or labelling whose masks count; by default the newest of the data set,
                or of the one that it was made from.
            images: "unannotated" for those without annotations, "open" for those with open masks of
                the job.

        Raises:
            NotFound: there is no such data set, or no such job.
            Conflict: the data set is not ready, or the job has no masks of it.
        """
        named = None if job is None else id_of(job)
        path = f"/datasets/{id_of(dataset)}/next"
        return self._pages(NextImage, path, "images", limit=100, job=named, images=images)

    async def create_version(
        self,
        dataset: Ref,
        *,
        name: str | None = None,
        remove_images: Iterable[int] = (),
        add_datasets: Iterable[Ref] = (),
        rename_classes: Mapping[int, str] | None = None,
        merge_classes: Mapping[int, int] | None = None,
        remove_classes: Iterable[int] = (),
        add_classes: Iterable[str] = (),
        reviews: Iterable[Ref] = (),
        accepted_as: str | None = None,
    ) -> Dataset:
        """Make a new version of a data set; no image is sent, hashed or looked at again.

        Args:
            remove_images: ids; their annotations go too.
            add_datasets: other data sets whose images are taken in; classes are told by name.
            rename_classes: names by id.
            merge_classes: by the id of a class that goes, that of the one that it becomes.
            remove_classes: ids; their annotations go too.
            add_classes: names.
            reviews: jobs on the data set whose reviews count, as in `corrections`.
            accepted_as: "masks" (default) or "points": what accepted masks become.
        """
        asked: dict[str, Any] = {
            "name": name,
            "remove_images": list(remove_images),
            "add_datasets": [id_of(other) for other in add_datasets],
            "rename_classes": [{"id": i, "name": n} for i, n in (rename_classes or {}).items()],
            "merge_classes": [{"id": i, "into": j} for i, j in (merge_classes or {}).items()],
            "remove_classes": list(remove_classes),
            "add_classes": [{"name": new} for new in add_classes],
            "reviews": [id_of(job) for job in reviews],
            "accepted_as": accepted_as,
        }
        wanted = {key: value for key, value in asked.items() if value}
        return await self._post(Dataset, f"/datasets/{id_of(dataset)}/versions", wanted)

    async def delete_dataset(self, dataset: Ref, *, force: bool = False) -> None:
        """Delete a data set.

        Args:
            force: with its jobs, masks and models.

        Raises:
            Conflict: it has jobs, or one of them is not over.
        """
        path, params = f"/datasets/{id_of(dataset)}", {"force": str(force).lower()}
        await self._send(Call("DELETE", path, params))


def _name_of(images: Images | None) -> str:
    if isinstance(images, str) and "://" in images:
        return images.rstrip("/").rpartition("/")[2]
    return Path(images).resolve().stem if isinstance(images, str | Path) else "images"


def _document(part: str, name: str, document: Document, folder: Path) -> tuple[str, str, Path]:
    if isinstance(document, Mapping):
        path = folder / name
        path.write_text(json.dumps(document))
        return part, name, path
    if (path := Path(document)).is_dir():
        from sapnet.data.file_pairing import DOCUMENTS, files_below

        archive = folder / f"{part}.zip"
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as packed:
            for inside, file in files_below(path).items():
                if inside.lower().endswith(DOCUMENTS):
                    packed.write(file, inside)
        return part, archive.name, archive
    return part, path.name, path


class _File(msgspec.Struct):
    file_name: str
    coco_url: Any = None
    url: Any = None


class _Named(msgspec.Struct):
    images: list[_File]


def _named(points: Path) -> dict[str, str] | None:
    """Return the file names that COCO has, with the address of each or "".

    None for what is not COCO, or is wrong: that is for the service to report.
    """
    try:
        images = msgspec.json.decode(points.read_bytes(), type=_Named).images
    except msgspec.DecodeError:
        return None
    return {image.file_name: str(image.coco_url or image.url or "") for image in images}


def _archives(images: Images, named: Mapping[str, str] | None, archive: Path) -> list[Path]:
    """Return the archives to send; single images are put into one."""
    # The rule that the service has:
    from sapnet.data.file_pairing import DOCUMENTS, files_below, is_archive_name, pair

    if isinstance(images, str | Path):
        root = Path(images)
        if root.is_file() and root.suffix.lower() in ARCHIVES:
            return [root]
        if not root.exists():
            raise FileNotFoundError(f"there is no folder {str(root)!r}")
        files = {root.name: root} if root.is_file() else files_below(root)
    else:
        given = [Path(path) for path in images]
        root = Path(os.path.commonpath([p.parent.resolve() for p in given])) if given else Path()
        files = {path.resolve().relative_to(root).as_posix(): path for path in given}
    wanted: Iterable[str] = files
    archives: list[Path] = []
    if named is not None:
        addresses = {name: address for name, address in named.items() if address}
        pairing = pair(named, files, addresses)
        wanted = list(pairing.candidates())
        if pairing.missing():  # they may be in archives, or these may be why
            archives = [path for name, path in files.items() if is_archive_name(name)]
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED, strict_timestamps=False) as packed:
        for name in (name for name in wanted if not name.lower().endswith(DOCUMENTS)):
            packed.write(files[name], name)
    return [archive, *archives]
