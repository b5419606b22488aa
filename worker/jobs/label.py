"""A model's masks for the images of a data set, made by a process of its own, to be reviewed."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db.models import Annotation, Image, Job, JobKind, Model
from app.errors import BlobMissing
from app.jobs.submit import request_of
from app.masks import stream
from app.predict.label import images_of
from worker.jobs.context import JobContext, SubprocessHandler
from worker.jobs.mask_rows import box_columns, finite, record_masks
from worker.jobs.transitions import LOG, BadResult, finish_job, stored_files, success
from worker.runtime.lease import renew_lease
from worker.runtime.workdir import write_job_file

GREATEST_ID = 2**63 - 1
_BATCH = 500  # below SQLite's limit on bound values


def prepare(ctx: JobContext) -> Path:
    """Write the job file; its path.

    An image that cannot be had is no failure of the job: its line will say why.

    Raises:
        StopRequested, LeaseLost, BlobMissing, OSError.
    """
    with ctx.database.read() as session:
        job = session.get_one(Job, ctx.job_id)
        request = request_of(ctx.storage, job)
        sha = session.get_one(Model, job.model_id).sha256
        images = images_of(session, job, request)
        points = _points(session, job, request["images"])
    files = ctx.image_files({digest for _, digest in images})
    return write_job_file(
        ctx.workdir,
        kind="predict",
        model=str(ctx.storage.local_path(sha)),
        images=[
            {"number": id_, **_file(files[digest]), "annotated": points.get(id_, [])}
            for id_, digest in images
        ],
        score=request["score"],
        max_pixels=ctx.settings.max_image_pixels,
        label=True,
    )


def _file(file: Path | BlobMissing) -> dict[str, str]:
    return {"error": file.detail} if isinstance(file, BlobMissing) else {"path": str(file)}


def _points(session: Session, job: Job, ids: Sequence[int] | None) -> Mapping[int, list[Any]]:
    """Where annotations are, by image id; images that nobody named have none."""
    points: defaultdict[int, list[Any]] = defaultdict(list)
    for start in range(0, len(ids or []), _BATCH):
        some = (ids or [])[start : start + _BATCH]
        query = select(Annotation.image_id, Annotation.x, Annotation.y)
        query = query.where(Annotation.dataset_id == job.dataset_id, Annotation.image_id.in_(some))
        for image_id, x, y in session.execute(query):
            points[image_id].append([x, y])
    return points


def record(ctx: JobContext, warnings: list[str]) -> None:
    """Write the masks of `result/predictions.ndjson`, a batch at a time, and end the job.

    Raises:
        BadResult: a line is missing, or not as agreed.
        LeaseLost: the job is no longer ours, or its cancellation came first.
    """
    with ctx.database.read() as session:
        job = session.get_one(Job, ctx.job_id)
        request = request_of(ctx.storage, job)
        images = {id_ for id_, _ in images_of(session, job, request)}
        own = select(func.min(Annotation.annotation_id), func.max(Annotation.annotation_id))
        low, high = session.execute(own.where(Annotation.dataset_id == job.dataset_id)).one()
    result = ctx.workdir / "result" / "predictions.ndjson"
    failed: dict[int, str] = {}
    first = _first_id(low, high, sum(1 for _ in _found(result, images, failed)))
    classes = {int(model_class): id_ for model_class, id_ in request["classes"].items()}

    def rows() -> Iterator[dict[str, Any]]:
        return _rows(result, ctx.job_id, first, classes, images)

    masks = ctx.workdir / f"masks-{ctx.lease.attempt}.ndjson"  # a stale attempt writes its own
    stream.write(masks, rows())
    count = record_masks(ctx, rows())
    state, reason = success(warnings, failed_images=bool(failed))
    with (
        stored_files(ctx, {"masks": masks, "log": ctx.workdir / LOG}) as stored,
        ctx.database.begin() as session,
    ):
        renew_lease(session, ctx.lease, ctx.settings, unless_cancelled=True)
        report = {
            "images": len(images),
            "masks": count,
            "score": request["score"],
            "set_aside": _set_aside(session, ctx.job_id, failed),
        }
        finish_job(
            session,
            ctx.lease,
            state,
            reason=reason,
            warnings=warnings,
            report=report,
            masks_sha=stored.get("masks"),
            log_sha=stored.get("log"),
        )


def _first_id(low: int | None, high: int | None, count: int) -> int:
    """The first of `count` annotation ids that the data set has none of.

    Args:
        low, high: the least and the greatest that it has.
    """
    if low is None or high is None:
        return 1
    return high + 1 if high + count <= GREATEST_ID else low - count


def _set_aside(session: Session, job_id: str, failed: Mapping[int, str]) -> list[dict[str, Any]]:
    dataset_id = session.scalar(select(Job.dataset_id).where(Job.id == job_id))
    ids, names = sorted(failed), dict[int, str]()
    for start in range(0, len(ids), _BATCH):
        query = select(Image.image_id, Image.file_name).where(Image.dataset_id == dataset_id)
        some = query.where(Image.image_id.in_(ids[start : start + _BATCH]))
        names |= {row.image_id: row.file_name for row in session.execute(some)}
    return [
        {"image_id": id_, "file_name": names.get(id_), "stage": "predict", "error": failed[id_]}
        for id_ in ids
    ]


def _found(
    path: Path, images: set[int], failed: dict[int, str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each result with the id of its image. Every image must be there.

    Args:
        failed: takes why images could not be read, by id.
    """
    missing = set(images)
    try:
        with path.open(encoding="utf-8") as lines:
            for text in lines:
                line = json.loads(text, parse_constant=lambda _: None)
                missing.remove(line["number"])
                if error := line.get("error"):
                    failed[line["number"]] = str(error)
                    continue
                for result in line["results"]:
                    yield line["number"], result
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise BadResult(f"{path.name}: {error!r}") from error
    if missing:
        raise BadResult(f"{path.name}: {len(missing)} images are missing")


def _rows(
    path: Path, job_id: str, first: int, classes: Mapping[int, int], images: set[int]
) -> Iterator[dict[str, Any]]:
    """Yield columns of `PseudoMask`; what is of no class of the data set is left out.

    Args:
        first: of the annotation ids.
        classes: ids of the data set by those of the model.
    """
    number = first
    for image_id, result in _found(path, images, {}):
        try:
            category = classes.get(result["category_id"])
            if category is None:
                continue
            x, y = map(finite, result["point"])
            yield {
                "job_id": job_id,
                "annotation_id": number,
                "image_id": image_id,
                "category_id": category,
                "segmentation": result["segmentation"],
                **box_columns(result),
                "area": finite(result["area"]),
                "quality": finite(result["quality"]),
                "source": "predicted",
                "point_x": x,
                "point_y": y,
                "extra": {"score": finite(result["score"])},
            }
        except (KeyError, TypeError, ValueError) as error:
            raise BadResult(f"{path.name}: {error!r}") from error
        number += 1


HANDLER = SubprocessHandler(JobKind.LABEL, prepare, record)
