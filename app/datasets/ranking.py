"""Which images of a data set to look at next."""

from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Select, and_, func, select
from sqlalchemy.orm import Session

from app.datasets import descriptors, service
from app.datasets.ranking_schemas import NextImage, NextPage, Reasons, TermWeights, Wanted
from app.db.models import (
    SUCCESSFUL,
    Dataset,
    DatasetStatus,
    Image,
    Job,
    JobKind,
    MaskDecision,
    MaskStatus,
    PseudoMask,
)
from app.errors import Conflict
from app.http.pagination import Paging
from app.jobs.kinds import DELIVERING
from app.jobs.service import get_delivered
from app.jobs.submit import request_of
from app.storage.store import Storage
from sapnet.data.descriptor import vectors
from sapnet.data.ranking import WEIGHTS, Ranking, rank

CHOSEN = 1_000
"""Images that are chosen one by one, at most; others follow by their score without diversity."""
MOST_BOXES = 1_000
"""Masks of an image, at most, of which the boxes are compared."""
Floats = npt.NDArray[np.float64]


@dataclass(slots=True)
class MasksOfImage:
    """The masks of one image: how many, how many are open; and of these, what speaks for a look.

    Attributes:
        unsure: sum of 1 - quality. contradiction: sum of what the masks disagree by.
    """

    masks: int = 0
    open: int = 0
    unsure: float = 0.0
    contradiction: float = 0.0


_NOTHING = MasksOfImage()


def next_page(
    session: Session,
    storage: Storage,
    dataset_id: str,
    job_id: str | None,
    wanted: Wanted,
    paging: Paging,
) -> NextPage:
    """Rank images, and return the page that is wanted.

    Raises:
        NotFound: there is no such data set, or no such job.
        Conflict: the data set is not ready; the job has no masks, or is none of it or of one that
            it was made from.
        Invalid: what came is no cursor.
    """
    dataset = service.get(session, dataset_id)
    if dataset.status is not DatasetStatus.READY:
        raise Conflict(f"The data set is {dataset.status}.", dataset_status=dataset.status)
    start = max(paging.after(int) or 0, 0)
    job = _job(session, dataset, job_id)
    rows = _images(session, dataset_id)
    masks = {} if job is None else _masks(session, job)
    of_image = [masks.get(row.image_id, _NOTHING) for row in rows]
    candidates = [n for n in range(len(rows)) if _is_wanted(rows[n], of_image[n], wanted)]
    others = sorted(set(range(len(rows))) - set(candidates))
    done = [n for n in others if rows[n].annotations or of_image[n].masks]
    described = descriptors.of_dataset(session, dataset_id)
    looks = _looks([row.image_id for row in rows], described)
    uncertainty, disagreement = _terms(session, storage, job, rows, of_image)
    ranking = rank(
        uncertainty[candidates],
        disagreement[candidates],
        looks[candidates],
        looks[done],
        chosen=min(start + paging.limit, CHOSEN),
    )
    images = []
    for place in range(start, min(start + paging.limit + 1, len(candidates))):
        number = candidates[ranking.order[place]]
        images.append(_image(rows[number], of_image[number], ranking, place))
    page = paging.page(images, lambda _: start + paging.limit)
    return NextPage(
        dataset_id=dataset_id,
        job_id=None if job is None else job.id,
        total=len(candidates),
        done=len(done),
        complete=not described.missing,
        weights=TermWeights(**asdict(WEIGHTS)),
        images=page.items,
        next=page.next,
    )


def _is_wanted(row: Any, masks: MasksOfImage, wanted: Wanted) -> bool:
    if wanted == "open":
        return masks.open > 0
    return not row.annotations and (masks.open > 0 or not masks.masks)


def _image(row: Any, masks: MasksOfImage, ranking: Ranking, place: int) -> NextImage:
    terms = {name: float(getattr(ranking, name)[place]) for name in Reasons.model_fields}
    return NextImage(
        image_id=row.image_id,
        file_name=row.file_name,
        annotations=row.annotations,
        masks=masks.open,
        score=round(float(ranking.score[place]), 4),
        reasons=Reasons(**{n: None if np.isnan(v) else round(v, 4) for n, v in terms.items()}),
    )


def _job(session: Session, dataset: Dataset, job_id: str | None) -> Job | None:
    """The job that was named; else the newest with masks of the data set, or of its parents'."""
    named = None if job_id is None else get_delivered(session, job_id)
    version: Dataset | None = dataset
    visited: set[str] = set()
    while version is not None and version.id not in visited:
        if named is None:
            query = select(Job).where(Job.dataset_id == version.id, Job.kind.in_(DELIVERING))
            query = query.where(Job.state.in_(SUCCESSFUL)).order_by(Job.id.desc()).limit(1)
            if (newest := session.scalar(query)) is not None:
                return newest
        elif version.id == named.dataset_id:
            return named
        visited.add(version.id)
        version = session.get(Dataset, version.parent_id) if version.parent_id else None
    if named is not None:
        raise Conflict("The job is none of this data set, or of one that it was made from.")
    return None


def _images(session: Session, dataset_id: str) -> list[Any]:
    query = select(Image.image_id, Image.file_name, Image.annotations)
    query = query.where(Image.dataset_id == dataset_id).order_by(Image.image_id)
    return list(session.execute(query))


def _masks(session: Session, job: Job) -> dict[int, MasksOfImage]:
    """What a job delivered, by image id."""
    by_image: defaultdict[int, MasksOfImage] = defaultdict(MasksOfImage)
    every = select(PseudoMask.image_id, func.count()).where(PseudoMask.job_id == job.id)
    for image_id, count in session.execute(every.group_by(PseudoMask.image_id)):
        by_image[image_id].masks = count
    unsure: Any = select(PseudoMask.image_id, func.count(), func.sum(1 - PseudoMask.quality))
    for image_id, count, total in session.execute(_open(unsure, job, PseudoMask.image_id)):
        by_image[image_id].open = count
        by_image[image_id].unsure = float(total)
    if job.kind is JobKind.TRAIN:
        # what the segmenter sees of a mask, and what its proposals expect, as delivered
        signals = [PseudoMask.extra["doubts"][name].as_float() for name in ("seen", "expected")]
        apart: Any = sum((1 - func.coalesce(one, 1.0) for one in signals), start=0) / len(signals)
        sums: Any = select(PseudoMask.image_id, func.sum(apart))
        for image_id, contradiction in session.execute(_open(sums, job, PseudoMask.image_id)):
            by_image[image_id].contradiction = float(contradiction)
        return by_image
    corners: Any = select(
        PseudoMask.image_id, PseudoMask.x, PseudoMask.y, PseudoMask.w, PseudoMask.h
    )
    boxes: defaultdict[int, list[list[float]]] = defaultdict(list)
    rows = session.execute(_open(corners, job).execution_options(yield_per=10_000))
    for image_id, *box in rows:
        boxes[image_id].append(box)
    for image_id, some in boxes.items():
        by_image[image_id].contradiction = overlap(np.array(some[:MOST_BOXES], np.float64))
    return by_image


def _open(query: Any, job: Job, *grouped: Any) -> Select[Any]:
    """Of a query for delivered masks, those of a job that nobody has decided about."""
    own = and_(
        MaskDecision.job_id == PseudoMask.job_id,
        MaskDecision.annotation_id == PseudoMask.annotation_id,
    )
    status = func.coalesce(MaskDecision.status, MaskStatus.OPEN)
    query = query.outerjoin(MaskDecision, own).where(PseudoMask.job_id == job.id)
    undecided: Select[Any] = query.where(status == MaskStatus.OPEN).group_by(*grouped)
    return undecided


def overlap(boxes: Floats) -> float:
    """Sum over boxes of the greatest IoU with another one.

    Args:
        boxes: (N, 4) x, y, width, height.
    """
    if len(boxes) < 2:
        return 0.0
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    sides = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)
    both = np.clip(sides, 0, None).prod(2)
    area = boxes[:, 2:].prod(1)
    iou = both / np.maximum(area[:, None] + area - both, 1e-9)
    np.fill_diagonal(iou, 0)
    return float(iou.max(1).sum())


def _looks(ids: list[int], described: descriptors.Described) -> npt.NDArray[np.float32]:
    """(N, F) of how images look; NaN of those that are not described."""
    own = vectors(described.features)
    looks = np.full((len(ids), own.shape[1]), np.nan, np.float32)
    looks[np.searchsorted(np.array(ids, np.int64), described.ids)] = own
    return looks


def _terms(
    session: Session, storage: Storage, job: Job | None, rows: list[Any], masks: list[MasksOfImage]
) -> tuple[Floats, Floats]:
    """Uncertainty and disagreement of each image; NaN of those that the job has not looked at."""
    uncertainty, disagreement = np.full((2, len(rows)), np.nan)
    if job is None:
        return uncertainty, disagreement
    looked_at = _looked_at(session, storage, job)
    counts = [row.annotations for row in rows if row.annotations]
    expected = sum(counts) / max(len(counts), 1)
    for place, (row, some) in enumerate(zip(rows, masks, strict=True)):
        if some.masks or row.image_id in looked_at:
            missed = max(expected - some.masks, 0.0) if row.image_id in looked_at else 0.0
            uncertainty[place] = some.unsure + missed
            disagreement[place] = some.contradiction
    return uncertainty, disagreement


def _looked_at(session: Session, storage: Storage, job: Job) -> set[int]:
    """Images in which a model has looked for all objects, whether or not it has any."""
    if job.kind is not JobKind.LABEL:
        return set()
    query = select(Image.image_id).where(Image.dataset_id == job.dataset_id, Image.annotations == 0)
    images = set(session.scalars(query))
    named = request_of(storage, job).get("images")
    return images if named is None else images & set(named)
