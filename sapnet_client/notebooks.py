"""What a notebook asks for: a job's masks as tables, arrays and datasets of other libraries."""

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Any

from sapnet_client.calls import Ref, id_of
from sapnet_client.errors import SapnetError
from sapnet_client.extras import FIFTYONE, needed
from sapnet_client.review import Review
from sapnet_client.types import Dataset, Job, Mask
from sapnet_client.views import to_numpy, to_pandas, to_supervision


class Notebooks(Review):
    """The client's methods for notebooks."""

    async def to_numpy(self, job: Ref, image_id: int) -> Any:
        """Return the masks of an image as a boolean array (masks, height, width), by id."""
        return to_numpy(await self._masks_of(job, image_id))

    async def to_pandas(self, job: Ref, *, min_quality: float | None = None) -> Any:
        """Return a `pandas.DataFrame` with a row for each mask of a job, its class named.

        Args:
            min_quality: masks below it are left out.

        Raises:
            MissingPackage: pandas is not installed.
        """
        names = await self._class_names(job)
        async with aclosing(self.pseudo_masks(job, min_quality=min_quality)) as masks:
            return to_pandas([mask async for mask in masks], names)

    async def to_supervision(
        self, job: Ref, image_id: int, *, min_quality: float | None = None
    ) -> Any:
        """Return the masks of an image as `supervision.Detections`: see `views.to_supervision`.

        Args:
            min_quality: masks below it are left out.

        Raises:
            MissingPackage: supervision is not installed.
        """
        masks = await self._masks_of(job, image_id, min_quality)
        return to_supervision(masks, await self._class_names(job))

    async def fiftyone_samples(
        self, job: Ref, folder: str | Path, *, min_quality: float | None = None
    ) -> AsyncGenerator[Any, None]:
        """Yield a `fiftyone.Sample` for each image of a job; the images are put into `folder`.

        Its fields: `masks` (detections with their masks; the confidence is the quality), `points`
        and `image_id`. Subsets are tags.

        Args:
            min_quality: masks below it are left out.

        Raises:
            MissingPackage: FiftyOne is not installed.
        """
        from sapnet_client.fiftyone import sample_of

        needed("fiftyone", FIFTYONE)
        names = await self._class_names(job)
        dataset = (await self.job(job)).dataset_id or ""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        async with aclosing(self.images(dataset)) as images:
            async for image in images:
                path = target / f"{image.id}{Path(image.file_name).suffix}"
                if not path.exists():
                    path.write_bytes(await self.image_bytes(dataset, image.id, as_stored=True))
                masks = await self._masks_of(job, image.id, min_quality)
                async with aclosing(self.annotations(dataset, image_id=image.id)) as items:
                    points = [annotation async for annotation in items]
                yield sample_of(path, image, masks, points, names)

    async def to_fiftyone(
        self,
        job: Ref,
        name: str | None = None,
        *,
        folder: str | Path | None = None,
        min_quality: float | None = None,
    ) -> Any:
        """Return a dataset of FiftyOne with the images, points and masks of a job.

        Args:
            name: of the dataset; FiftyOne makes one.
            folder: for the images, which have to stay; by default sapnet-JOB here.
            min_quality: masks below it are left out.

        Raises:
            MissingPackage: FiftyOne is not installed.
        """
        fo = needed("fiftyone", FIFTYONE)
        dataset = fo.Dataset(name, persistent=False)
        where = Path(folder) if folder is not None else Path(f"sapnet-{id_of(job)}")
        samples = self.fiftyone_samples(job, where, min_quality=min_quality)
        async with aclosing(samples) as items:
            dataset.add_samples([sample async for sample in items])
        return dataset

    async def dataset_from_fiftyone(
        self, samples: Iterable[Any], field: str, *, name: str | None = None, **options: Any
    ) -> Dataset:
        """Make a data set of FiftyOne's samples: a dataset, a view, or a list of samples.

        Keypoints are points, detections boxes, and their masks ground truth; tags are subsets.

        Args:
            field: of the samples, with `Keypoints` or `Detections`.
            name: of the data set.
            options: those of `create_dataset`.

        Raises:
            ValueError: the field holds something else, or nothing at all.
        """
        from sapnet_client.fiftyone import points_document

        document, files = points_document(samples, field)
        named = name or getattr(samples, "name", None) or "fiftyone"
        return await self.create_dataset(files, document, name=named, **options)

    async def preview_of(self, thing: Job | Mask | Any) -> bytes | None:
        """Return what shows a job or a mask: a PNG of some of its masks, or the mask's image.

        None where there is none, or the service does not answer: what asks is only to be shown.
        """
        try:
            if isinstance(thing, Job):
                wanted = thing.succeeded and thing.kind == "train"
                return await self.gallery(thing) if wanted else None
            if isinstance(thing, Mask) and thing.job_id_here is not None:
                dataset = (await self.job(thing.job_id_here)).dataset_id or ""
                return await self.image_bytes(dataset, thing.image_id, as_stored=True)
        except SapnetError:
            pass
        return None

    async def _masks_of(
        self, job: Ref, image_id: int, min_quality: float | None = None
    ) -> list[Mask]:
        masks = self.pseudo_masks(job, image_id=image_id, min_quality=min_quality)
        async with aclosing(masks) as items:
            return [mask async for mask in items]

    async def _class_names(self, job: Ref) -> dict[int, str]:
        dataset = await self.dataset((await self.job(job)).dataset_id or "")
        return {category.id: category.name for category in dataset.categories}
