"""Tools for looking at masks, correcting them, and predicting."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from app.cli.agents.calls import Connect, plain, tool
from app.cli.agents.data_tools import NAME, DatasetId, JobId, ModelRef
from app.cli.agents.drawing import Shown, drawn, labelled, rgb, text, window_around
from app.cli.agents.folders import Folders
from sapnet.types import ByteArray
from sapnet_client import AsyncClient

MaskId = Annotated[str, Field(description="mask_id, as worst_masks gives it", pattern=NAME)]
Revision = Annotated[int, Field(description="of the mask as it was shown; another is refused")]
Facts = dict[str, Any]


class Click(BaseModel):
    """A click, in pixels of the image."""

    x: float
    y: float
    positive: bool = Field(True, description="false: the object is not there")


class Decision(BaseModel):
    """What is decided about a mask."""

    mask_id: MaskId
    revision: int = Field(description="of the mask as it was shown")
    decision: Literal["accept", "reject", "reopen", "choose"] = Field(
        description="reject: there is no such object; choose: one of its candidates is right"
    )
    candidate: int | None = Field(None, description="of choose: index of the candidate")


class ReviewTools:
    """Tools for masks and predictions; each method is one.

    Args:
        connect: gives a client of the service.
        folders: that the user named.
    """

    def __init__(self, connect: Connect, folders: Folders) -> None:
        self._connect, self._folders = connect, folders

    @tool
    async def worst_masks(
        self,
        job_id: JobId,
        count: Annotated[int, Field(ge=1, le=8)] = 4,
        status: Annotated[
            Literal["open", "accepted", "corrected", "rejected"] | None,
            Field(description="None: all of them"),
        ] = "open",
        max_quality: Annotated[float, Field(ge=0, le=1)] = 1.0,
    ) -> Shown:
        """Show the masks of a training, lowest quality first, each drawn in its image."""
        async with self._connect(None) as client:
            counts = await client.review_counts(job_id)
            dataset = (await client.job(job_id)).dataset_id or ""
            pages = client.review(job_id, status=status, max_quality=max_quality)
            shown: list[tuple[Facts, bytes]] = []
            images: dict[int, ByteArray] = {}
            async for mask in pages:
                if mask.image_id not in images:
                    images = {mask.image_id: rgb(await client.image_bytes(dataset, mask.image_id))}
                shown.append(_shown(mask, images[mask.image_id]))
                if len(shown) == count:
                    break
            await pages.aclose()
        return [text({"in_all": counts}), *labelled(shown)]

    @tool
    async def show_candidates(self, mask_id: MaskId) -> Shown:
        """Show a mask as it stands, and the other candidates that "choose" can take, by index."""
        async with self._connect(None) as client:
            mask = await client.mask(mask_id)
            image = await self._image_of(client, mask)
        height, width = image.shape[:2]
        shown = [_shown(mask, image)]
        for candidate in mask.candidates or []:
            array = candidate.segmentation.array()
            window = window_around(_box(array | mask.segmentation.array()), height, width)
            facts = {"candidate": candidate.index, "probability": round(candidate.probability, 3)}
            shown.append((facts, drawn(image, window, [array], _points(mask))))
        return labelled(shown)

    @tool
    async def decide_masks(self, decisions: list[Decision]) -> list[dict[str, Any]]:
        """Accept, reject or reopen masks, or choose candidates. A mask that changed is refused."""
        results = []
        async with self._connect(None) as client:
            for one in decisions:
                mask = await _at(client, one.mask_id, one.revision)
                if one.decision == "choose":
                    if one.candidate is None:
                        raise ValueError(f"{one.mask_id}: choose needs a candidate")
                    decided = await client.choose(mask, one.candidate)
                else:
                    decided = await getattr(client, one.decision)(mask)
                results.append(_summary(decided))
        return results

    @tool
    async def correct_mask(
        self,
        mask_id: MaskId,
        revision: Revision,
        clicks: Annotated[list[Click], Field(min_length=1, max_length=50)],
        save: Annotated[bool, Field(description="false: shown, and not stored")] = False,
    ) -> Shown:
        """Make a mask by clicks on the object and beside it; show it, and store it with save."""
        async with self._connect(None) as client:
            mask = await _at(client, mask_id, revision)
            image = await self._image_of(client, mask)
            points = [(click.x, click.y, click.positive) for click in clicks]
            suggestion = await client.suggest(mask, points)
            array = suggestion.segmentation.array()
            state: Facts = {"mask_id": mask_id, "saved": save, "area": suggestion.area}
            if save:
                state |= _summary(await client.correct(mask, suggestion.segmentation))
        window = window_around(_box(array), *image.shape[:2])
        return labelled([(state, drawn(image, window, [array], [p[:2] for p in points]))])

    @tool
    async def make_corrected_dataset(
        self, job_id: JobId, name: str | None = None
    ) -> dict[str, Any]:
        """Make a data set of what was decided; train on it with from_model of the job's model."""
        async with self._connect(None) as client:
            return dict(plain(await client.corrections(job_id, name=name)))

    @tool
    async def predict(
        self,
        model: ModelRef,
        image: Annotated[str | None, Field(description="image file in a readable folder")] = None,
        dataset_id: DatasetId | None = None,
        image_id: Annotated[int | None, Field(description="of an image of the data set")] = None,
        score: Annotated[float, Field(ge=0, le=1)] = 0.3,
    ) -> Shown:
        """Find the objects in an image: the image with their masks, and a list of them."""
        if (image is None) == (image_id is None):
            raise ValueError("give image, or image_id with dataset_id")
        source: Any = image_id if image is None else self._folders.existing(image)
        async with self._connect(None) as client:
            results = await client.predict(model, source, dataset=dataset_id, score=score)
            names = {c.id: c.name for c in (await client.model(model)).categories}
            if image_id is None:
                raw = source.read_bytes()
            else:
                of = dataset_id or (await client.model(model)).dataset_id or ""
                raw = await client.image_bytes(of, image_id)
        listed = [
            {
                "category": names.get(one.category_id, one.category_id),
                "score": round(one.score, 3),
                "bbox": [round(v, 1) for v in one.bbox],
            }
            for one in results
        ]
        overlay = drawn(rgb(raw), masks=[one.segmentation.array() for one in results], side=1024)
        return labelled([({"objects": listed}, overlay)])

    async def _image_of(self, client: AsyncClient, mask: Any) -> ByteArray:
        job = await client.job(mask.mask_id.rpartition(".")[0])
        return rgb(await client.image_bytes(job.dataset_id or "", mask.image_id))


async def _at(client: AsyncClient, mask_id: str, revision: int) -> Any:
    """The mask, if it is still the one that was shown; the service checks once more."""
    mask = await client.mask(mask_id)
    if mask.revision != revision:
        raise ValueError(
            f"{mask_id} is at revision {mask.revision}, not {revision}: look at it again"
        )
    return mask


def _summary(mask: Any) -> Facts:
    return {
        "mask_id": mask.mask_id,
        "revision": mask.revision,
        "status": mask.status,
        "quality": round(mask.quality, 3),
    }


def _shown(mask: Any, image: ByteArray) -> tuple[Facts, bytes]:
    array = mask.segmentation.array()
    window = window_around(mask.bbox, *image.shape[:2])
    facts = _summary(mask) | {"image_id": mask.image_id, "category_id": mask.category_id}
    facts |= {"point": mask.point, "candidates": [c.index for c in mask.candidates or []]}
    return facts, drawn(image, window, [array], _points(mask))


def _points(mask: Any) -> list[Sequence[float]]:
    return [] if mask.point is None else [mask.point]


def _box(array: Any) -> list[float]:
    """x, y, width, height of what is in a mask; of all of it where nothing is."""
    rows, columns = (np.flatnonzero(array.any(axis)) for axis in (1, 0))
    if not len(rows):
        return [0.0, 0.0, float(array.shape[1]), float(array.shape[0])]
    x, y = columns[0], rows[0]
    return [float(x), float(y), float(columns[-1] + 1 - x), float(rows[-1] + 1 - y)]
