"""POST /datasets/{id}/versions: images and classes added, removed, renamed and merged."""

from typing import Any

from fastapi import APIRouter, Response

from app.datasets.schemas import DatasetOut
from app.db.session import DatabaseDep
from app.http.dependencies import require_content_type
from app.http.idempotency import IDEMPOTENT
from app.masks import version_request
from app.masks.schemas import VersionIn

router = APIRouter(tags=["datasets"])
CREATED: dict[int | str, dict[str, Any]] = {
    201: {"headers": {"Location": {"schema": {"type": "string"}, "description": "the data set"}}}
}


@router.post(
    "/datasets/{dataset_id}/versions",
    status_code=201,
    responses=CREATED,
    dependencies=[require_content_type("application/json"), IDEMPOTENT],
)
def create_version(
    dataset_id: str, body: VersionIn, database: DatabaseDep, response: Response
) -> DatasetOut:
    """Make a new version: images and classes added or removed, classes renamed or merged.

    The data set itself stays as it is, and is the version's parent. No image is sent, hashed or
    looked at again. What was confirmed stays confirmed; ground truth is kept unless classes were
    merged or removed, which it would not know.
    """
    dataset = version_request.create(database, dataset_id, body)
    response.headers["Location"] = f"/datasets/{dataset.id}"
    return dataset
