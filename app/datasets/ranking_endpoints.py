"""GET /datasets/{id}/next: which images to look at next."""

from typing import Annotated

from fastapi import APIRouter, Query

from app.datasets.ranking_schemas import NextPage, Wanted
from app.db.session import SessionDep
from app.http.dependencies import StorageDep
from app.http.pagination import Paging, paging

router = APIRouter(prefix="/datasets", tags=["datasets"])


@router.get("/{dataset_id}/next")
def next_images(
    dataset_id: str,
    session: SessionDep,
    storage: StorageDep,
    paging: Annotated[Paging, paging(50)],
    job: Annotated[
        str | None,
        Query(
            description="id of a training or labelling whose masks count; default: the newest one "
            "of the data set, or of the one that it was made from"
        ),
    ] = None,
    images: Annotated[
        Wanted,
        Query(
            description="unannotated: those without annotations of which not all masks are decided "
            "about; open: those with open masks of the job"
        ),
    ] = "unannotated",
) -> NextPage:
    """Images in the order in which to click or to review them, with the reasons.

    First come those of which a model is expected to learn most: its masks there are unsure or
    contradict each other, and they look unlike those that are done, and each other. The order is
    made anew by each request: after decisions, ask for the first page again.
    """
    from app.datasets.ranking import next_page  # with numpy, which few requests need

    return next_page(session, storage, dataset_id, job, images, paging)
