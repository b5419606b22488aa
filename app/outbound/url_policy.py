"""Which addresses the service may call when a user names a URL.

`app.outbound.client` calls no other. A URL of a user's could name this machine, its neighbours, or
a cloud's metadata (server-side request forgery). Looking at the name is not enough: it may resolve
to anything, and to something else a moment later (DNS rebinding). So the address is checked where
the connection is made: the name is resolved once, all its addresses are checked, and the socket
goes to one of those.
"""

import ipaddress
import socket

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_UNICAST = ipaddress.IPv6Network("2000::/3")  # all that IANA has given out of global unicast
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: an IPv4 address in the last 32 bits
_NOT_FOR_USE = (
    ipaddress.ip_network("192.88.99.0/24"),  # RFC 7526, old 6to4 relays
    ipaddress.ip_network("3fff::/20"),  # RFC 9637, documentation; not yet known to Python 3.11
)


class AddressRefused(Exception):
    """A host that is, or resolves to, an address that is not public.

    Attributes:
        address: None where the URL itself was refused.
    """

    def __init__(self, host: str, address: str | None, why: str) -> None:
        super().__init__(why)
        self.host, self.address = host, address


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet.

    It is not loopback, private, link-local, shared, multicast, reserved or for documentation, also
    where an IPv6 address wraps an IPv4 one (mapped, 6to4, NAT64).

    Raises:
        ValueError: it is no address.
    """
    return _is_public(ipaddress.ip_address(address))


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if inner is not None:
            return _is_public(inner)
        if address not in _UNICAST:
            return False
    if address.is_multicast or any(address in network for network in _NOT_FOR_USE):
        return False
    return address.is_global


def resolve(host: str, port: int, *, allow_private: bool = False) -> list[str]:
    """All addresses of a host, each of them checked, in the order to try them.

    Raises AddressRefused if one of them is not public, OSError where the name does not resolve.
    """
    try:
        entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (UnicodeError, OverflowError) as error:  # a label that is empty, a port too large
        raise OSError(f"{host!r} is no name of a host") from error
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in entries))
    refused = [a for a in addresses if not (allow_private or is_public(a))]
    if refused:
        raise AddressRefused(host, refused[0], f"{host} is at {refused[0]}, which is not public")
    return addresses


def check_url(url: str, *, allow_private: bool = False) -> None:
    """Whether a URL may be called as far as its text tells: http or https, a host, no password.

    Resolves no name, so that a request need not wait for DNS; `app.outbound.client` does, each
    time. Raises AddressRefused, which says what is wrong.
    """
    import httpx2  # what calls must be what reads; not at the start, which it slows by a twentieth

    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, UnicodeError, ValueError):
        raise AddressRefused(url, None, "it is not a URL") from None
    host = parsed.host.rstrip(".").lower()
    if parsed.scheme not in ("http", "https"):
        raise AddressRefused(host, None, "it does not begin with https:// or http://")
    if not host:
        raise AddressRefused(host, None, "it names no host")
    if parsed.port is not None and not 0 < parsed.port < 65536:
        raise AddressRefused(host, None, "it names a port that does not exist")
    if parsed.userinfo:
        raise AddressRefused(host, None, "it holds a user or a password")
    if not allow_private and _is_private_text(host):
        raise AddressRefused(host, host, f"{host} is not a public address")


def _is_private_text(host: str) -> bool:
    """Whether a host is private by its text alone.

    It is an address that is not public in any of the forms that inet_aton takes (127.1, 0x7f.1,
    2130706433), or a name that means this machine wherever it is looked up.
    """
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return not is_public(host)
    except ValueError:
        pass
    try:
        return not _is_public(ipaddress.IPv4Address(socket.inet_aton(host)))
    except (OSError, UnicodeError):
        return False
