"""The review: masks of low quality first, decisions about them, and training again from these."""

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from sapnet_client.calls import Ref, convert, id_of, read
from sapnet_client.datasets import Datasets
from sapnet_client.types import Comparison, Dataset, Mask, Pair, Rule, Segmentation, Suggestion
from sapnet_client.wire import Call

MaskLike = Segmentation | Mapping[str, Any] | Any
"""A `Segmentation`, its document, or an array (height, width)."""
Click = tuple[float, float] | tuple[float, float, bool]
"""x, y in pixels, and whether the object is there (default) or is not."""


class Review(Datasets):
    """The client's methods for the review of a job's masks."""

    def review(
        self,
        job: Ref,
        *,
        status: str | None = "open",
        category_id: int | None = None,
        image_id: int | None = None,
        max_quality: float | None = None,
    ) -> AsyncGenerator[Mask, None]:
        """Yield masks of the job with their points and alternatives, the lowest quality first.

        Args:
            status: open, accepted, corrected, rejected; None is all.
        """
        wanted = {"status": status, "category_id": category_id, "image_id": image_id}
        path = f"/jobs/{id_of(job)}/review"
        return self._pages(
            Mask, path, "masks", bound_to=id_of(job), **wanted, max_quality=max_quality
        )

    async def review_counts(self, job: Ref) -> dict[str, int]:
        """Return how many are open, accepted, corrected and rejected."""
        page = await self._get(dict[str, Any], f"/jobs/{id_of(job)}/review", limit=1)
        counts: dict[str, int] = page["counts"]
        return counts

    async def mask(self, mask: Mask | str) -> Mask:
        """Look a mask up by its `mask_id`."""
        return await self._get(Mask, f"/masks/{_id(mask)}")

    async def accept(self, mask: Mask, *, category_id: int | None = None) -> Mask:
        """Accept the mask as it stands, and return it at its new revision.

        Args:
            category_id: the object's class, where it is another than the mask has; of `choose` and
                `correct` too.

        Raises:
            ChangedMeanwhile: the mask has another revision by now; so do the decisions below.
        """
        return await self._decide(mask, {"decision": "accept"}, category_id)

    async def reject(self, mask: Mask) -> Mask:
        """Decide that there is no such object."""
        return await self._decide(mask, {"decision": "reject"})

    async def reopen(self, mask: Mask) -> Mask:
        """Take a decision back."""
        return await self._decide(mask, {"decision": "reopen"})

    async def choose(self, mask: Mask, candidate: int, *, category_id: int | None = None) -> Mask:
        """Decide that one of `mask.candidates`, by its index, is the right mask."""
        wanted = {"decision": "choose", "candidate": candidate}
        return await self._decide(mask, wanted, category_id)

    async def correct(
        self, mask: Mask, segmentation: MaskLike, *, category_id: int | None = None
    ) -> Mask:
        """Decide that this is the right mask."""
        wanted = {"decision": "correct", "segmentation": _document(segmentation)}
        return await self._decide(mask, wanted, category_id)

    async def accept_from(
        self,
        job: Ref,
        min_quality: float,
        *,
        category_id: int | None = None,
        image_id: int | None = None,
    ) -> Rule:
        """Accept all open masks of at least a quality, by a rule that is kept with who made it.

        Args:
            category_id: of one class alone.
            image_id: of one image alone.
        """
        asked = {"min_quality": min_quality, "category_id": category_id, "image_id": image_id}
        wanted = {name: value for name, value in asked.items() if value is not None}
        return await self._post(Rule, f"/jobs/{id_of(job)}/review/accept", wanted)

    async def rules(self, job: Ref) -> list[Rule]:
        """Return the rules that have accepted masks of a job, the newest first."""
        answer = await self._get(dict[str, Any], f"/jobs/{id_of(job)}/review/rules")
        return [convert(Rule, rule) for rule in answer["rules"]]

    async def take_rule_back(self, job: Ref, rule: Rule | str) -> None:
        """Open the masks again that a rule has accepted, but for those decided about since."""
        rule_id = rule if isinstance(rule, str) else rule.id
        call = Call("DELETE", f"/jobs/{id_of(job)}/review/rules/{rule_id}")
        await self._send(call)

    async def suggest(
        self, mask: Mask | str, clicks: Iterable[Click], segmentation: MaskLike | None = None
    ) -> Suggestion:
        """Return the mask that clicks on the object and beside it make.

        Nothing is stored: `correct` stores it.

        Args:
            clicks: x, y in pixels, and whether the object is there.
            segmentation: the mask to be changed; by default the mask as it stands.
        """
        points = [
            {"x": x, "y": y, "positive": bool(positive[0]) if positive else True}
            for x, y, *positive in clicks
        ]
        standing = None if segmentation is None else _document(segmentation)
        body = {"points": points, "segmentation": standing}
        call = Call("POST", f"/masks/{_id(mask)}/suggest", json=body, again=True)
        return read(Suggestion, (await self._send(call)).body)

    async def corrections(
        self,
        job: Ref,
        *,
        name: str | None = None,
        also: Iterable[Ref] = (),
        accepted_as: str = "masks",
    ) -> Dataset:
        """Make a data set of what was decided.

        Rejected objects are gone, accepted and corrected ones have their masks; those that a model
        has predicted become annotations. Train on it with `from_model=job.model_id`.

        Args:
            also: other jobs on the same data set whose reviews count too, `label`'s say.
            accepted_as: masks, or points: then training chooses the masks of accepted ones anew.
        """
        body: dict[str, Any] = {} if name is None else {"name": name}
        if others := [id_of(other) for other in also]:
            body["also"] = others
        if accepted_as != "masks":
            body["accepted_as"] = accepted_as
        return await self._post(Dataset, f"/jobs/{id_of(job)}/corrections", body)

    async def compare(self, before: Ref, after: Ref) -> Comparison:
        """Compare two jobs of a data set, or of it and its correction."""
        path = f"/jobs/{id_of(before)}/compare/{id_of(after)}"
        comparison = await self._get(Comparison, path, limit=1)
        async with aclosing(self._pages(Pair, path, "masks", limit=10_000)) as pages:
            return replace(comparison, masks=[pair async for pair in pages])

    async def _decide(
        self, mask: Mask, decision: Mapping[str, Any], category_id: int | None = None
    ) -> Mask:
        if category_id is not None:
            decision = {**decision, "category_id": category_id}
        headers = {"If-Match": f'"{mask.revision}"'}
        call = Call("PATCH", f"/masks/{_id(mask)}", json=decision, headers=headers)
        return self._bound(read(Mask, (await self._send(call)).body))


def _id(mask: Mask | str) -> str:
    return mask if isinstance(mask, str) else mask.mask_id


def _document(mask: MaskLike) -> dict[str, Any]:
    if isinstance(mask, Mapping):
        return dict(mask)
    return (mask if isinstance(mask, Segmentation) else Segmentation.of(mask)).document()
