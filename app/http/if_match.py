"""If-Match: a change names the revision that it was made from (RFC 9110, 13.1.1; RFC 6585, 3)."""

from typing import Annotated

from fastapi import Header

from app.errors import PreconditionFailed, PreconditionRequired

IfMatch = Annotated[
    str | None, Header(description='the ETag of what is to be changed, such as "3"; or *')
]


def etag(revision: int) -> str:
    """Return the ETag of a revision."""
    return f'"{revision}"'


def check_match(if_match: str | None, revision: int) -> None:
    """Whether a change may be made of what is at this revision now. Weak tags match nothing.

    Raises PreconditionRequired where none is named, PreconditionFailed where another is.
    """
    now = {"ETag": etag(revision)}
    if if_match is None:
        detail = "Send If-Match with the ETag that you were given: what you saw may have changed."
        raise PreconditionRequired(detail, headers=now)
    named = [tag.strip() for tag in if_match.split(",")]
    if "*" not in named and etag(revision) not in named:
        raise changed_meanwhile(revision)


def changed_meanwhile(revision: int | None = None) -> PreconditionFailed:
    """Somebody else was first. revision: the present one, where it is known."""
    detail = "It has changed since: get it again, and decide by what it is now."
    if revision is None:
        return PreconditionFailed(detail)
    return PreconditionFailed(detail, headers={"ETag": etag(revision)}, revision=revision)
