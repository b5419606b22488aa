"""The review: masks that are worth a doubt, decisions about them, and training again from these."""

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from sapnet_client.calls import Ref, id_of, read
from sapnet_client.datasets import Datasets
from sapnet_client.types import Comparison, Dataset, Mask, Pair, Segmentation, Suggestion
from sapnet_client.wire import Call

MaskLike = Segmentation | Mapping[str, Any] | Any
"""A `Segmentation`, its document, or an array (height, width)."""
Click = tuple[float, float] | tuple[float, float, bool]
"""x, y in pixels, and whether the object is there (default) or is not."""


class Review(Datasets):
    def review(
        self,
        job: Ref,
        *,
        status: str | None = "open",
        category_id: int | None = None,
        image_id: int | None = None,
        max_quality: float | None = None,
    ) -> AsyncGenerator[Mask, None]:
        """Masks of the job with their points and alternatives, the most doubtful first.
        status: open, accepted, corrected, rejected; None is all."""
        wanted = {"status": status, "category_id": category_id, "image_id": image_id}
        path = f"/jobs/{id_of(job)}/review"
        return self._pages(Mask, path, "masks", **wanted, max_quality=max_quality)

    async def review_counts(self, job: Ref) -> dict[str, int]:
        """How many are open, accepted, corrected and rejected."""
        page = await self._get(dict[str, Any], f"/jobs/{id_of(job)}/review", limit=1)
        counts: dict[str, int] = page["counts"]
        return counts

    async def mask(self, mask: Mask | str) -> Mask:
        return await self._get(Mask, f"/masks/{_id(mask)}")

    async def accept(self, mask: Mask) -> Mask:
        """It is right. This and the decisions below raise ChangedMeanwhile where the mask is at
        another revision than this one, and give it at its new one."""
        return await self._decide(mask, {"decision": "accept"})

    async def reject(self, mask: Mask) -> Mask:
        """There is no such object."""
        return await self._decide(mask, {"decision": "reject"})

    async def reopen(self, mask: Mask) -> Mask:
        return await self._decide(mask, {"decision": "reopen"})

    async def choose(self, mask: Mask, candidate: int) -> Mask:
        """One of `mask.candidates`, by its index, is the right one."""
        return await self._decide(mask, {"decision": "choose", "candidate": candidate})

    async def correct(self, mask: Mask, segmentation: MaskLike) -> Mask:
        """This is the right one."""
        wanted = {"decision": "correct", "segmentation": _document(segmentation)}
        return await self._decide(mask, wanted)

    async def suggest(
        self, mask: Mask | str, clicks: Iterable[Click], segmentation: MaskLike | None = None
    ) -> Suggestion:
        """The mask that clicks on the object and beside it make; nothing is kept: `correct` keeps
        it. segmentation: the mask as it stands, to be mended."""
        points = [
            {"x": x, "y": y, "positive": bool(positive[0]) if positive else True}
            for x, y, *positive in clicks
        ]
        standing = None if segmentation is None else _document(segmentation)
        body = {"points": points, "segmentation": standing}
        call = Call("POST", f"/masks/{_id(mask)}/suggest", json=body, again=True)
        return read(Suggestion, (await self._send(call)).body)

    async def corrections(self, job: Ref, *, name: str | None = None) -> Dataset:
        """A data set of what was decided: rejected ones gone, accepted and corrected ones with
        their masks. Train on it with `from_model=job.model_id`."""
        body = {} if name is None else {"name": name}
        return await self._post(Dataset, f"/jobs/{id_of(job)}/corrections", body)

    async def compare(self, before: Ref, after: Ref) -> Comparison:
        """Two jobs of a data set, or of it and its correction, side by side."""
        path = f"/jobs/{id_of(before)}/compare/{id_of(after)}"
        found = await self._get(Comparison, path, limit=1)
        async with aclosing(self._pages(Pair, path, "masks", limit=10_000)) as pages:
            return replace(found, masks=[pair async for pair in pages])

    async def _decide(self, mask: Mask, decision: Mapping[str, Any]) -> Mask:
        headers = {"If-Match": f'"{mask.revision}"'}
        call = Call("PATCH", f"/masks/{_id(mask)}", json=decision, headers=headers)
        return read(Mask, (await self._send(call)).body)


def _id(mask: Mask | str) -> str:
    return mask if isinstance(mask, str) else mask.mask_id


def _document(mask: MaskLike) -> dict[str, Any]:
    if isinstance(mask, Mapping):
        return dict(mask)
    return (mask if isinstance(mask, Segmentation) else Segmentation.of(mask)).document()
