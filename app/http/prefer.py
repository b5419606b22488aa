"""Prefer: respond-async (RFC 7240): whether a client would have a 202 at once."""

from typing import Annotated

from fastapi import Header

ASYNC = "respond-async"

Prefer = Annotated[
    str | None, Header(description="`respond-async`: 202 at once, whatever the size (RFC 7240)")
]


def wants_async(prefer: str | None) -> bool:
    """Whether a Prefer header has `respond-async`."""
    wishes = [wish.split(";")[0].strip().lower() for wish in (prefer or "").split(",")]
    return ASYNC in wishes
