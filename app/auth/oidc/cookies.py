"""The cookies of a login, and what every request reads of them.

Apart from `app.auth.oidc.login`, which only a service with a provider loads.
"""

from fastapi import Request, Response

from app.settings import Settings

LOGIN = "/auth/login"
SESSION, ATTEMPT, NAME = "sapnet_session", "sapnet_attempt", "sapnet_login"
"""Cookies: the session; a login under way; whose session it is, which the page may read."""


def session_key(request: Request, settings: Settings) -> str | None:
    """The key in a browser's cookie; None where nobody logs in, or it has none."""
    if settings.oidc_issuer is None:
        return None
    return cookie_of(request, SESSION) or None


def page_address(request: Request) -> str:
    """Address of the page, with a slash at its end: that of the settings, or as it was asked."""
    public = request.app.state.settings.public_url
    return f"{public.rstrip('/')}/" if public else str(request.base_url)


def cookie_of(request: Request, cookie: str) -> str | None:
    """Value of a cookie that no script may read."""
    return request.cookies.get(_name(request, cookie))


def set_cookie(
    answer: Response, request: Request, cookie: str, value: str, seconds: int, script: bool = False
) -> None:
    """Have the browser keep a cookie for so long; `script` tells whether the page may read it."""
    secure = _is_secure(request)
    name = cookie if script else _name(request, cookie)
    answer.set_cookie(
        name, value, seconds, path="/", secure=secure, httponly=not script, samesite="lax"
    )


def clear_cookie(answer: Response, request: Request, cookie: str) -> None:
    """Have the browser forget it."""
    name = cookie if cookie == NAME else _name(request, cookie)
    answer.delete_cookie(name, path="/", secure=_is_secure(request), samesite="lax")


def _is_secure(request: Request) -> bool:
    return page_address(request).startswith("https://")


def _name(request: Request, cookie: str) -> str:
    """The prefix has browsers take it over https alone, from this host alone."""
    return f"__Host-{cookie}" if _is_secure(request) else cookie
