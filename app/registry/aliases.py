"""Names for models (`production`, `best`), moved by compare-and-set.

Each owner has names of his own: an alias is looked up among those of whoever asks, also for an
admin. What has an alias is not removed with its data set; whose alias it is makes no difference.
"""

import re
import time
from typing import cast

from sqlalchemy import Table, delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.auth.keys import Caller
from app.db.columns import now
from app.db.models import Job, Model, ModelAlias
from app.db.session import rows_changed
from app.errors import Invalid, NotFound, PreconditionFailed, PreconditionRequired, ValidationIssue
from app.http.if_match import changed_meanwhile, check_match
from app.http.pagination import Page, Paging, paginate

PATTERN = r"^[A-Za-z][A-Za-z0-9._\-]{0,63}$"
_NAME, _IS_ID = re.compile(PATTERN), re.compile(r"[0-9a-fA-F]{32}")
_TAKEN = ("aliases",)  # /models/aliases is the list of them


def find(session: Session, name: str) -> ModelAlias | None:
    """Return the caller's alias of this name; None where there is none."""
    if not _NAME.fullmatch(name):
        return None
    query = select(ModelAlias).where(ModelAlias.owner == _owner(session), ModelAlias.name == name)
    return session.scalars(query).one_or_none()


def get(session: Session, name: str) -> ModelAlias:
    """Raises NotFound."""
    alias = find(session, name)
    if alias is None:
        raise NotFound("alias", name)
    return alias


def page(session: Session, paging: Paging) -> Page[ModelAlias]:
    """Those of whoever asks, in the order in which they were made."""
    query = select(ModelAlias).where(ModelAlias.owner == _owner(session))
    return paginate(session, query, ModelAlias.pk, paging)


def put(
    session: Session, name: str, model: Model, if_match: str | None, if_none_match: str | None
) -> tuple[ModelAlias, bool]:
    """The alias, and whether it is new. `If-None-Match: *` makes it, `If-Match` moves it.

    Raises Invalid for what can be no name; PreconditionRequired, PreconditionFailed.
    """
    check_name(name)
    if if_none_match is not None and if_match is not None:
        issue = ValidationIssue(
            "header", "/If-Match", "If-None-Match came too", "send one of the two"
        )
        raise Invalid([issue])
    if if_none_match is not None:
        return _make(session, name, model, if_none_match), True
    alias = find(session, name)
    if alias is None:
        if if_match is None:
            raise PreconditionRequired("To make an alias, send If-None-Match: *")
        raise PreconditionFailed(
            f"There is no alias {name!r} (any more); to make it, send If-None-Match: *"
        )
    check_match(if_match, alias.revision)
    moved = update(ModelAlias).where(
        ModelAlias.pk == alias.pk, ModelAlias.revision == alias.revision
    )
    values = {"model_id": model.id, "revision": alias.revision + 1, "updated_at": now()}
    if not rows_changed(session, moved.values(values)):
        raise changed_meanwhile()
    session.refresh(alias)
    return alias, False


def _make(session: Session, name: str, model: Model, if_none_match: str) -> ModelAlias:
    if if_none_match.strip() != "*":
        issue = ValidationIssue(
            "header", "/If-None-Match", "it can only be *", "send If-Match to move it"
        )
        raise Invalid([issue])
    if (there := find(session, name)) is not None:
        raise changed_meanwhile(there.revision)
    alias = ModelAlias(
        owner=_owner(session),
        name=name,
        model_id=model.id,
        revision=time.time_ns() // 1_000_000,
        updated_at=now(),
    )
    session.add(alias)
    try:
        session.flush()
    except IntegrityError as error:  # somebody made it a moment ago
        raise changed_meanwhile() from error
    return alias


def remove(session: Session, name: str, if_match: str | None) -> None:
    """Raises NotFound, PreconditionRequired, PreconditionFailed."""
    alias = get(session, name)
    check_match(if_match, alias.revision)
    gone = delete(ModelAlias).where(
        ModelAlias.pk == alias.pk, ModelAlias.revision == alias.revision
    )
    if not rows_changed(session, gone):
        raise changed_meanwhile()


def of_dataset(session: Session, dataset_id: str) -> list[str]:
    """Return the names that anybody gave to the models of a data set.

    Core tables: who asks need not see the aliases of others, but may not take their models away
    either.
    """
    aliases, models = cast(Table, ModelAlias.__table__), cast(Table, Model.__table__)
    jobs = cast(Table, Job.__table__)
    query = (
        select(aliases.c.name)
        .join(models, models.c.id == aliases.c.model_id)
        .join(jobs, jobs.c.id == models.c.job_id)
    )
    return sorted(set(session.scalars(query.where(jobs.c.dataset_id == dataset_id))))


def check_name(name: str) -> None:
    """Raises Invalid for what can be no alias: what could be a model's id, for one."""
    if _NAME.fullmatch(name) and not _IS_ID.fullmatch(name) and name not in _TAKEN:
        return
    hint = "a letter, then at most 63 letters, digits, dots, hyphens and underscores"
    raise Invalid([ValidationIssue("path", "/name", f"{name[:80]!r} can be no alias", hint)])


def _owner(session: Session) -> str:
    caller: Caller | None = session.info.get("caller")
    return (caller.owner if caller else None) or ""
