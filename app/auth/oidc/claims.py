"""Who a token's claims are about, and what he may do here."""

import hashlib
from collections.abc import Mapping
from typing import Any

from app.auth.scope import Scope
from app.errors import Forbidden, Unauthorized
from app.settings import Settings

_OWNER = 64  # characters, as the tables have them
_RANK = (Scope.ADMIN, Scope.WRITE, Scope.READ, Scope.METRICS)


def identity(claims: Mapping[str, Any], settings: Settings) -> tuple[str, Scope]:
    """Return owner and scope.

    Raises:
        Unauthorized: the claims name nobody.
        Forbidden: none of his roles may do anything here.
    """
    owner, scope = _owner(claims, settings), _scope(claims, settings)
    if scope is None:
        what = ", ".join(sorted(settings.oidc_roles)) or "none is set"
        raise Forbidden(
            f"None of the roles of {owner!r} may use this service. Roles that may, of the claim "
            f"{settings.oidc_role_claim!r}: {what}."
        )
    return owner, scope


def has_roles(claims: Mapping[str, Any], settings: Settings) -> bool:
    """Whether the claim of the roles is there."""
    return _at_path(claims, settings.oidc_role_claim) is not None


def _owner(claims: Mapping[str, Any], settings: Settings) -> str:
    name = settings.oidc_owner_claim
    value = _at_path(claims, name)
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise Unauthorized(f"The token has no claim {name!r}, which names the owner.")
    if name == "email" and claims.get("email_verified") is not True:
        raise Unauthorized("The provider has not verified the e-mail address.")
    # A longer one is a name all the same, and another than every shorter one.
    return value if len(value) <= _OWNER else hashlib.sha256(value.encode()).hexdigest()


def _scope(claims: Mapping[str, Any], settings: Settings) -> Scope | None:
    value = _at_path(claims, settings.oidc_role_claim)
    roles = value.split() if isinstance(value, str) else value if isinstance(value, list) else []
    scopes: set[str] = {
        settings.oidc_roles[role]
        for role in roles
        if isinstance(role, str) and role in settings.oidc_roles
    }
    if settings.oidc_default_scope is not None:
        scopes.add(settings.oidc_default_scope)
    return next((scope for scope in _RANK if scope in scopes), None)


def _at_path(claims: Mapping[str, Any], path: str) -> Any:
    """The claim of that name, or else at that path: "realm_access.roles"."""
    if path in claims:
        return claims[path]
    value: Any = claims
    for step in path.split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
    return value
