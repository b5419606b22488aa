"""Whose browser is asking, as long as there is no key.

Without keys, being on this machine is all that lets a request in; and every web page that somebody
on this machine opens can have their browser send requests here. So the request must name the
service by a name of this machine (a page's own name may be pointed at it: DNS rebinding), a
request that may change something must not come from another site's page, and one that a proxy
hands on does not come from this machine at all.
"""

import ipaddress
import re

from starlette.datastructures import Headers
from starlette.requests import Request

from app.errors import ForeignRequest, Unauthorized
from app.settings import Settings

SAFE = ("GET", "HEAD", "OPTIONS")
_LOCAL = "localhost"
_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+?)\.?(?::([0-9]{1,5}))?")
_PORTS = {"http": 80, "https": 443}
_OF_PROXIES = frozenset(
    [
        "forwarded",
        "via",
        "x-real-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-original-forwarded-for",
        "cf-connecting-ip",
        "true-client-ip",
    ]
)
_OWN_SITES = ("same-origin", "none")
_MAKE_A_KEY = "sapnet-service keys create NAME --scope admin"
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="sapnet"'}


def admit(request: Request, settings: Settings) -> None:
    """Check a request without a key.

    Raises:
        ForeignRequest: no user of this machine need have sent it; says what to do.
        Unauthorized: the same, from another machine.
    """
    headers = request.headers
    trusting = settings.allow_without_keys
    address = request.client.host if request.client else ""
    if not trusting:
        _by_itself(request)
        if not is_local(address):
            raise Unauthorized(
                "There is no key yet, so the service answers its own machine alone. "
                f"There, make one: {_MAKE_A_KEY}",
                headers=CHALLENGE,
            )
    in_process = _is_name(address) and _of_a_proxy(headers) is None
    if not in_process and (settings.allowed_hosts or not trusting):
        _called_by_its_name(headers, settings)
    if request.method not in SAFE:
        _from_its_own_page(headers, trusting)


def from_own_page(headers: Headers) -> None:
    """Check a request that may change something and that a cookie speaks for.

    Browsers send a cookie by themselves, and with such a request always Origin, or Sec-Fetch-Site
    beside it; so one without either is refused, too.

    Raises:
        ForeignRequest: another site's page may have sent it.
    """
    if headers.get("origin") is None and headers.get("sec-fetch-site") is None:
        raise ForeignRequest(
            "Who is logged in by a cookie changes things on the service's own page alone; other "
            "programs send a key or a token: 'Authorization: Bearer …'."
        )
    _from_its_own_page(headers, trusting=True)


def is_local(address: str) -> bool:
    """Whether a peer or a bound address is of this machine.

    What is no IP address is: a Unix socket, or a caller in this process.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return True
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).is_loopback


def _by_itself(request: Request) -> None:
    """Whether no proxy hands the request on.

    Such a header is proof enough that there is one, whether or not the server believes it; and
    nginx, which adds none unless configured to, has long spoken HTTP/1.0.
    """
    name = _of_a_proxy(request.headers)
    if name or request.scope.get("http_version") == "1.0":
        what = f"The header {name}" if name else "HTTP/1.0"
        raise Unauthorized(
            f"{what} says that a proxy hands this request on, and there is no key, so the service "
            f"answers its own machine alone. Make a key: {_MAKE_A_KEY}. Or, where the proxy keeps "
            "strangers out, set SAPNET_ALLOW_WITHOUT_KEYS=true.",
            headers=CHALLENGE,
        )


def _of_a_proxy(headers: Headers) -> str | None:
    """The name of a header that proxies add."""
    for name in headers:
        if name.startswith("x-forwarded-") or name in _OF_PROXIES:
            return name
    return None


def _called_by_its_name(headers: Headers, settings: Settings) -> None:
    sent = headers.getlist("host")
    parsed = _authority(sent[0]) if len(sent) == 1 else None
    if parsed is not None and _is_ours(parsed[0], settings):
        return
    what = "names no host" if not sent else f"calls it {', '.join(sent)[:200]!r}"
    raise ForeignRequest(
        "There is no key, so the service answers to localhost, 127.0.0.1 and [::1], and to what "
        f"SAPNET_ALLOWED_HOSTS names. This request {what}. Use one of them, name this host in that "
        f"setting, or make a key: {_MAKE_A_KEY}"
    )


def _is_ours(host: str, settings: Settings) -> bool:
    if host == _LOCAL or host in settings.allowed_hosts:
        return True
    bare = host.strip("[]")
    return not _is_name(bare) and is_local(bare)


def _from_its_own_page(headers: Headers, trusting: bool) -> None:
    """Judge by what browsers say and no page can change: Sec-Fetch-Site and Origin.

    Older ones send Origin alone. Other programs send neither.
    """
    sites = headers.getlist("sec-fetch-site")
    own = all(site.strip().lower() in _OWN_SITES for site in sites)
    # Behind a proxy Host may be another than the browser's, which has compared them by itself.
    compared = own and bool(sites) and trusting
    if own and (compared or _same_origin(headers)):
        return
    raise ForeignRequest(
        "A page of another site sent this, and there is no key to tell who did. Do it on the "
        f"service's own page, or make a key and send it along: {_MAKE_A_KEY}"
    )


def _same_origin(headers: Headers) -> bool:
    origins = headers.getlist("origin")
    if not origins:
        return True
    scheme, _, rest = origins[0].strip().lower().partition("://")
    origin, host = _authority(rest), _authority(headers.get("host", ""))
    if len(origins) > 1 or scheme not in _PORTS or origin is None or host is None:
        return False  # "null" too: a sandboxed frame's, a file's
    port = _PORTS[scheme]
    return (origin[0], origin[1] or port) == (host[0], host[1] or port)


def _authority(text: str) -> tuple[str, int | None] | None:
    """Host in lower case, an IPv6 address in brackets, and port; None for what is none."""
    parsed = _AUTHORITY.fullmatch(text.strip().lower())
    if parsed is None:
        return None
    return parsed[1], int(parsed[2]) if parsed[2] else None


def _is_name(address: str) -> bool:
    """Of a peer: one in this process, which alone has a name."""
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return bool(address) and "/" not in address
    return False
