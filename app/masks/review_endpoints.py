"""The review: GET /jobs/{id}/review, then PATCH /masks/{mask_id} for each decision."""

from operator import itemgetter
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request, Response

from app.auth.access import access
from app.auth.keys import Scope
from app.datasets.schemas import DatasetOut
from app.db.models import MaskStatus
from app.db.session import DatabaseDep, SessionDep
from app.http.capacity import Capacity
from app.http.dependencies import SettingsDep, StorageDep, require_content_type
from app.http.idempotency import IDEMPOTENT
from app.http.if_match import IfMatch, etag
from app.http.pagination import Paging, paging
from app.jobs.service import get_delivered
from app.masks import acceptance, corrections, review, service
from app.masks import compare as comparing
from app.masks.click_model import ClickModel
from app.masks.endpoints import JSON, UserId
from app.masks.schemas import (
    AcceptRequest,
    Comparison,
    CorrectionsIn,
    DecisionIn,
    ReviewMask,
    ReviewPage,
    RuleOut,
    RulesOut,
    SuggestIn,
    Suggestion,
)

router = APIRouter(tags=["review"])
CREATED: dict[int | str, dict[str, Any]] = {
    201: {"headers": {"Location": {"schema": {"type": "string"}, "description": "the data set"}}}
}
RULED: dict[int | str, dict[str, Any]] = {
    201: {"headers": {"Location": {"schema": {"type": "string"}, "description": "the rule"}}}
}
ETAG: dict[int | str, dict[str, Any]] = {
    200: {"headers": {"ETag": {"schema": {"type": "string"}, "description": "the revision"}}}
}


@router.get("/jobs/{job_id}/review", response_model=ReviewPage)
def queue(
    job_id: str,
    session: SessionDep,
    paging: Annotated[Paging, paging(50)],
    status: MaskStatus | None = None,
    category_id: UserId = None,
    image_id: UserId = None,
    max_quality: Annotated[float, Query(ge=0, le=1)] = 1.0,
) -> Response:
    """Masks to look at, the worst quality first. `counts` are of all masks of the job."""
    job = get_delivered(session, job_id)
    wanted = service.Filter(
        job_id, image_id, category_id, max_quality=max_quality, status=status, detail=True
    )
    masks = review.queue(session, job, wanted, paging.limit + 1, paging.after(int))
    page = paging.page(masks, itemgetter("id"))
    counts = review.counts(session, job).model_dump()
    body = service.encode({"masks": page.items, "counts": counts, "next": page.next})
    return Response(body, media_type=JSON, headers=page.headers)


@router.post(
    "/jobs/{job_id}/review/accept", status_code=201, responses=RULED, dependencies=[IDEMPOTENT]
)
def accept_by_rule(
    job_id: str, body: AcceptRequest, database: DatabaseDep, response: Response
) -> RuleOut:
    """Accept all open masks of at least a quality, by a rule that is kept with who made it.

    Masks that somebody has decided about stay as they are; so do those that are opened again later.
    """
    rule = acceptance.accept(database, job_id, body)
    response.headers["Location"] = acceptance.location(job_id, rule.id)
    return rule


@router.get("/jobs/{job_id}/review/rules")
def list_rules(job_id: str, session: SessionDep) -> RulesOut:
    """The rules that have accepted masks of the job, the newest first."""
    made = acceptance.rules(session, job_id)
    return RulesOut(rules=[RuleOut.model_validate(rule) for rule in made])


@router.get("/jobs/{job_id}/review/rules/{rule_id}")
def get_rule(job_id: str, rule_id: str, session: SessionDep) -> RuleOut:
    """A rule, and how many masks it has accepted."""
    return RuleOut.model_validate(acceptance.get(session, job_id, rule_id))


@router.delete("/jobs/{job_id}/review/rules/{rule_id}", status_code=204)
def take_rule_back(job_id: str, rule_id: str, database: DatabaseDep) -> None:
    """Open the masks again that a rule has accepted, and remove it.

    Those that somebody has decided about since stay as they are, and so do versions of the data set
    that were made meanwhile.
    """
    acceptance.take_back(database, job_id, rule_id)


@router.post(
    "/jobs/{job_id}/corrections", status_code=201, responses=CREATED, dependencies=[IDEMPOTENT]
)
def correct(
    job_id: str,
    database: DatabaseDep,
    response: Response,
    body: Annotated[CorrectionsIn | None, Body()] = None,
) -> DatasetOut:
    """Make a new version of the data set from what was decided.

    Rejected objects are gone, accepted and corrected ones have their masks as confirmed. Training
    takes these as they are. Of the masks that a model has predicted the accepted and corrected ones
    become annotations; what is open or rejected stays out. `also` takes in the reviews of other
    jobs on the same data set.
    """
    dataset = corrections.create(database, job_id, body or CorrectionsIn.model_validate({}))
    response.headers["Location"] = f"/datasets/{dataset.id}"
    return dataset


@router.get("/jobs/{job_id}/compare/{other_job_id}")
def compare(
    job_id: str,
    other_job_id: str,
    session: SessionDep,
    paging: Annotated[Paging, paging(1_000, most=10_000)],
) -> Comparison:
    """What a later job delivered beside an earlier one, of the same data set or a version of it.

    Figures, and for each annotation that both have how alike its two masks are, as they were
    delivered; those that changed most come first.
    """
    comparison = comparing.compare(session, job_id, other_job_id)
    start = max(paging.after(int) or 0, 0)
    page = paging.page(comparison["masks"][start:], lambda _: start + paging.limit)
    return Comparison(**{**comparison, "masks": page.items, "next": page.next})


@router.get("/masks/{mask_id}", response_model=ReviewMask, responses=ETAG)
def get_mask(mask_id: str, session: SessionDep) -> Response:
    """A mask as it stands. Its ETag names the revision, for If-Match."""
    return _answer(review.get(session, mask_id))


@router.patch(
    "/masks/{mask_id}",
    response_model=ReviewMask,
    responses=ETAG,
    dependencies=[require_content_type("application/json")],
)
def decide(
    mask_id: str,
    session: SessionDep,
    decision: Annotated[DecisionIn, Body()],
    if_match: IfMatch = None,
) -> Response:
    """Decide about a mask. If-Match is needed: 428 without it, 412 where somebody else was first.

    To accept a mask that was corrected keeps the correction; `reopen` gives back the delivered one.
    """
    return _answer(review.decide(session, mask_id, decision, if_match))


@router.post(
    "/masks/{mask_id}/suggest",
    response_model=Suggestion,
    dependencies=[require_content_type("application/json")],
)
@access(scope=Scope.READ)  # nothing is kept
def suggest(
    request: Request,
    mask_id: str,
    body: SuggestIn,
    database: DatabaseDep,
    storage: StorageDep,
    settings: SettingsDep,
) -> dict[str, Any]:
    """The mask that the points mean: it has every positive one and no negative one.

    Send all points of the object, with the mask as it is now (`segmentation`) where that is not the
    delivered one. Nothing is stored: send the answer as a decision if it is right.
    """
    from app.masks import suggestions  # loads numpy

    with database.read() as session:
        mask, sha = suggestions.find(session, mask_id)
    clicks: Capacity = request.app.state.clicks
    with clicks.slot():
        model: ClickModel = request.app.state.click_model
        return suggestions.suggest(storage, settings, model, mask, sha, body)


def _answer(mask: dict[str, Any]) -> Response:
    headers = {"ETag": etag(mask["revision"]), "Cache-Control": "no-cache"}
    return Response(service.encode(mask), media_type=JSON, headers=headers)
