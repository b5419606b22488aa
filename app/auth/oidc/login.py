"""Logging in on the page, and out again: authorization code with PKCE, state and nonce.

What belongs to a login that is under way (state, nonce, verifier) is in a cookie of the browser
that began it: no other can end it, and it ends once. The session afterwards is a key
(`app.auth.keys`) that the browser keeps in a cookie no script can read.
"""

import secrets
from datetime import timedelta
from hmac import compare_digest
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from app.auth import keys, own_site
from app.auth.access import open_but_counted
from app.auth.oidc.claims import has_roles, identity
from app.auth.oidc.cookies import (
    ATTEMPT,
    LOGIN,
    NAME,
    SESSION,
    clear_cookie,
    cookie_of,
    page_address,
    session_key,
    set_cookie,
)
from app.auth.oidc.provider import Provider
from app.auth.scope import Scope
from app.db.columns import now
from app.db.session import Database
from app.errors import Forbidden, Unauthorized
from app.settings import Settings

router = APIRouter(prefix="/auth", tags=["login"])

ATTEMPT_SECONDS = 600
AT_ONCE = 4
"""Logins that may wait for the provider's answers, each in a thread of the API."""
NOT_STORED = {"Cache-Control": "no-store"}


class LoggedOut(BaseModel):
    """Where the session with the provider ends, too; null where it does not say."""

    provider: str | None


@router.get("/login", status_code=302, response_class=Response)
@open_but_counted
def login(request: Request) -> Response:
    """Go to the provider, to log in there."""
    from authlib.common.urls import add_params_to_uri
    from authlib.oauth2.rfc7636 import create_s256_code_challenge

    provider, settings = _provider(request), _settings(request)
    state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
    params = {
        "response_type": "code",
        "client_id": provider.client_id,
        "redirect_uri": f"{page_address(request)}auth/callback",
        "scope": settings.oidc_scopes,
        "state": state,
        "nonce": nonce,
        "code_challenge": create_s256_code_challenge(verifier),
        "code_challenge_method": "S256",
    }
    endpoint = provider.address("authorization_endpoint") or ""
    url = add_params_to_uri(endpoint, params)
    answer = Response(status_code=302, headers={**NOT_STORED, "Location": url})
    request.state.goes_elsewhere = url  # else a redirect names no host: app.http.middleware
    value = f"{state}.{nonce}.{verifier}"
    set_cookie(answer, request, ATTEMPT, value, ATTEMPT_SECONDS)
    return answer


@router.get("/callback", status_code=303, response_class=Response)
@open_but_counted
def callback(
    request: Request,
    state: Annotated[str, Query(max_length=200)] = "",
    code: Annotated[str, Query(max_length=4000)] = "",
    error: Annotated[str, Query(max_length=200)] = "",
    iss: Annotated[str | None, Query(max_length=2000)] = None,
) -> Response:
    """Where the provider sends the browser back to; it goes on to the page, logged in."""
    provider, settings = _provider(request), _settings(request)
    begun = (cookie_of(request, ATTEMPT) or "").split(".")
    if len(begun) != 3 or not state or not compare_digest(begun[0].encode(), state.encode()):
        raise Forbidden(
            "This login was not begun in this browser, is over, or took too long. Begin again at "
            f"{LOGIN}."
        )
    _, nonce, verifier = begun
    if error or (iss is not None and iss != provider.issuer):
        raise Unauthorized(f"The provider did not log you in: {error or 'another issuer'!r}.")
    with request.app.state.logins.slot():
        tokens = provider.redeem(code, verifier, f"{page_address(request)}auth/callback")
        claims = provider.id_claims(tokens, nonce)
        if not has_roles(claims, settings) and isinstance(tokens.get("access_token"), str):
            userinfo = provider.userinfo(tokens["access_token"])
            if userinfo.get("sub") == claims["sub"]:
                claims = {**userinfo, **claims}
    owner, scope = identity(claims, settings)
    key = _begin(request.app.state.database, owner, scope, settings)
    answer = Response(status_code=303, headers={**NOT_STORED, "Location": page_address(request)})
    seconds = int(settings.oidc_session_hours * 3600)
    set_cookie(answer, request, SESSION, key, seconds)
    set_cookie(answer, request, NAME, owner.encode("ascii", "replace").hex(), seconds, script=True)
    clear_cookie(answer, request, ATTEMPT)
    return answer


@router.post("/logout")
@open_but_counted
def logout(request: Request, response: Response) -> LoggedOut:
    """End the session. The page goes on to the provider, where its session ends."""
    from authlib.common.urls import add_params_to_uri

    own_site.from_own_page(request.headers)
    key = session_key(request, _settings(request))
    if key is not None:
        with request.app.state.database.begin() as session:
            row = keys.find(session, key)
            if row is not None:
                keys.revoke(session, row.prefix)
    for name in (SESSION, NAME, ATTEMPT):
        clear_cookie(response, request, name)
    response.headers.update(NOT_STORED)
    provider = _provider(request)
    end = provider.address("end_session_endpoint")
    params = {"client_id": provider.client_id, "post_logout_redirect_uri": page_address(request)}
    return LoggedOut(provider=add_params_to_uri(end, params) if end else None)


def _begin(database: Database, owner: str, scope: Scope, settings: Settings) -> str:
    expires = now() + timedelta(hours=settings.oidc_session_hours)
    with database.begin() as session:
        text, _ = keys.create(session, owner, scope, name=keys.LOGIN, expires_at=expires)
        keys.forget_logins(session)
    return text


def _provider(request: Request) -> Provider:
    provider: Provider = request.app.state.oidc
    return provider


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings
