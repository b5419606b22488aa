"""GET /datasets/{id}/statistics: what is in a data set, and what in it looks wrong."""

from typing import Annotated

from fastapi import APIRouter, Query

from app.datasets.statistics_schemas import DatasetStatistics
from app.db.session import SessionDep

router = APIRouter(prefix="/datasets", tags=["datasets"])


@router.get("/{dataset_id}/statistics")
def get_statistics(
    dataset_id: str,
    session: SessionDep,
    job: Annotated[
        str | None,
        Query(description="id of a training of the data set, whose masks tell of points"),
    ] = None,
    min_distance: Annotated[
        float, Query(ge=0, le=1_000, description="pixels; points that are nearer are told")
    ] = 3.0,
    examples: Annotated[int, Query(ge=0, le=1_000, description="at most so many a finding")] = 20,
) -> DatasetStatistics:
    """Classes, sizes, objects an image, and findings: copies, points that may be wrong.

    Images are compared by a hash that a worker makes after their import: until it has come to all
    of them, `complete` is false. With `job`, points outside of all proposals, points on what the
    trained model takes for background, and masks of low quality are told; no model is run.
    """
    from app.datasets.statistics import statistics  # with numpy, which few requests need

    return statistics(session, dataset_id, job, min_distance, examples)
