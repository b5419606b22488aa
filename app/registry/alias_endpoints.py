"""/models/aliases: names for models, moved by compare-and-set. Part of the router of /models."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Response

from app.db.models import ModelAlias
from app.db.session import SessionDep
from app.http.dependencies import require_content_type
from app.http.if_match import IfMatch, etag
from app.http.pagination import Paging, paging
from app.registry import aliases, service
from app.registry.schemas import AliasIn, AliasOut, AliasPage

router = APIRouter(prefix="/aliases")

Name = Annotated[str, Path(pattern=aliases.PATTERN, examples=["production"])]
IfNoneMatch = Annotated[str | None, Header(description="`*`: make it, where there is none yet")]
_TAG = {"ETag": {"schema": {"type": "string"}, "description": "for If-Match"}}
TAGGED: dict[int | str, dict[str, Any]] = {200: {"headers": _TAG}}


@router.get("", response_model=AliasPage)
def list_aliases(session: SessionDep, paging: Annotated[Paging, paging(100)]) -> dict[str, object]:
    """Your own, in the order in which they were made."""
    page = aliases.page(session, paging)
    return {"aliases": page.items, "next": page.next}


@router.get("/{name}", response_model=AliasOut, responses=TAGGED)
def get_alias(name: Name, response: Response, session: SessionDep) -> ModelAlias:
    """Which model it names now."""
    return _tagged(response, aliases.get(session, name))


@router.put(
    "/{name}",
    response_model=AliasOut,
    responses={**TAGGED, 201: {"model": AliasOut, "headers": _TAG}},
    dependencies=[require_content_type("application/json")],
)
def put_alias(
    name: Name,
    body: AliasIn,
    response: Response,
    session: SessionDep,
    if_match: IfMatch = None,
    if_none_match: IfNoneMatch = None,
) -> ModelAlias:
    """Make an alias (`If-None-Match: *`), or move it to another model (`If-Match` with its ETag).

    Of two that move it at once, one gets 412, and sees what the other one did.
    """
    model = service.get(session, body.model)
    alias, is_new = aliases.put(session, name, model, if_match, if_none_match)
    response.status_code = 201 if is_new else 200
    return _tagged(response, alias)


@router.delete("/{name}", status_code=204)
def delete_alias(name: Name, session: SessionDep, if_match: IfMatch = None) -> None:
    """The model itself stays."""
    aliases.remove(session, name, if_match)


def _tagged(response: Response, alias: ModelAlias) -> ModelAlias:
    response.headers["ETag"] = etag(alias.revision)
    response.headers["Cache-Control"] = "no-cache"
    return alias
