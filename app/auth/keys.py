"""API keys: who may ask, what for, and whose data it is about.

A key is 256 random bits, so there is nothing to guess and a plain SHA-256 keeps it: slow hashes
are for passwords that people choose. The database holds that digest and the key's beginning, by
which it is found and listed; the key itself is shown once.
"""

import hashlib
import re
import secrets
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from hmac import compare_digest

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from app.auth.scope import Scope
from app.db.columns import now
from app.db.models import ApiKey
from app.db.session import Database
from app.errors import NotFound, Unauthorized

_KEY = re.compile(r"(sapnet_[0-9a-f]{8})_[\w-]{43}", re.ASCII)
_CACHED = 10_000  # callers remembered at once
LOGIN = "login"
"""Name of the keys that are sessions of the page: see `app.auth.oidc.login`."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is asking. Of a service without keys: nobody in particular, who may do anything.

    owner: whose data the caller sees; what he makes is this owner's. key: the key's prefix.
    """

    owner: str | None
    scope: Scope
    key: str | None = None

    @property
    def sees_all(self) -> bool:
        """Whether other owners' data are visible too."""
        return self.scope is Scope.ADMIN


ANYONE = Caller(None, Scope.ADMIN)


def create(
    session: Session,
    owner: str,
    scope: Scope,
    *,
    name: str = "",
    expires_at: datetime | None = None,
) -> tuple[str, ApiKey]:
    """A new key, as text, which nobody can find out again, and its row."""
    prefix = f"sapnet_{secrets.token_hex(4)}"
    text = f"{prefix}_{secrets.token_urlsafe(32)}"
    row = ApiKey(
        prefix=prefix,
        sha256=_digest(text),
        owner=owner,
        scope=scope,
        name=name,
        expires_at=expires_at,
    )
    session.add(row)
    session.flush()
    return text, row


def every(session: Session) -> list[ApiKey]:
    """All keys there ever were, in order of creation."""
    return list(session.scalars(select(ApiKey).order_by(ApiKey.id)))


def revoke(session: Session, prefix: str) -> None:
    """End a key, for good.

    The row stays: a service that once had a key is not open again.

    Raises:
        NotFound: there is no such key.
    """
    query = update(ApiKey).where(ApiKey.prefix == prefix, ApiKey.revoked_at.is_(None))
    if session.execute(query.values(revoked_at=now()).returning(ApiKey.id)).first() is None:
        raise NotFound("key that works, with prefix", prefix)


def forget_logins(session: Session) -> None:
    """Remove the sessions that are over, but the newest row, so that there was a key for ever."""
    newest = select(func.max(ApiKey.id)).scalar_subquery()
    over = ApiKey.expires_at < now() - timedelta(days=1)
    session.execute(delete(ApiKey).where(ApiKey.name == LOGIN, over, ApiKey.id != newest))


def any_exist(session: Session) -> bool:
    """Whether a key was ever made, revoked ones included."""
    return session.scalar(select(ApiKey.id).limit(1)) is not None


def find(session: Session, text: str) -> ApiKey | None:
    """The row of a key that works."""
    match = _KEY.fullmatch(text)
    query = select(ApiKey).where(ApiKey.prefix == (match[1] if match else ""))
    row = session.scalars(query).one_or_none()
    kept = row.sha256 if row else "0" * 64
    if not compare_digest(kept, _digest(text)) or row is None or row.revoked_at is not None:
        return None
    return None if row.expires_at is not None and row.expires_at <= now() else row


class Callers:
    """Who a key is, remembered for `seconds`: so long may a revoked key go on, in this process.

    Args:
        closed: whether a key is needed even while there is none, since people log in.
    """

    def __init__(self, database: Database, seconds: float, *, closed: bool = False) -> None:
        self._database, self._seconds, self._closed = database, seconds, closed
        self._known: dict[str, tuple[float, Caller]] = {}

    def remembered(self, key: str | None) -> Caller | None:
        """Asks no database. None: `look_up` must be asked."""
        until, caller = self._known.get(_digest(key or ""), (0.0, None))
        return caller if until > time.monotonic() else None

    def look_up(self, key: str | None) -> Caller:
        """Raises Unauthorized, or what SQLAlchemy raises where the database does not answer."""
        with self._database.read() as session:
            row = find(session, key) if key else None
            if row is None and (self._closed or any_exist(session)):
                raise _refusal(key)
        caller = Caller(row.owner, Scope(row.scope), row.prefix) if row else ANYONE
        self.remember(key, caller)
        return caller

    def remember(self, key: str | None, caller: Caller) -> None:
        """Keep who it is, for a while."""
        if len(self._known) >= _CACHED:
            self._known.clear()
        self._known[_digest(key or "")] = (time.monotonic() + self._seconds, caller)


def _refusal(key: str | None) -> Unauthorized:
    if key is None:
        detail = "Send a key of this service: 'Authorization: Bearer sapnet_…'."
        return Unauthorized(detail, headers={"WWW-Authenticate": 'Bearer realm="sapnet"'})
    challenge = 'Bearer realm="sapnet", error="invalid_token"'
    detail = "The key is not known here, was revoked, or is out of date."
    return Unauthorized(detail, headers={"WWW-Authenticate": challenge})


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
