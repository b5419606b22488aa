"""Which addresses the service may call when a user names a URL, and a client that calls no other.

A URL of a user's could name this machine, its neighbours, or a cloud's metadata (server-side
request forgery). Looking at the name is not enough: it may resolve to anything, and to something
else a moment later (DNS rebinding). So the address is checked where the connection is made: the
name is resolved once, all its addresses are checked, and the socket goes to one of those.
"""

import ipaddress
import socket
import time
from collections.abc import Iterable
from typing import Any

import httpcore2
import httpx2

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_UNICAST = ipaddress.IPv6Network("2000::/3")  # all that IANA has given out of global unicast
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: an IPv4 address in the last 32 bits
_NOT_FOR_USE = (
    ipaddress.ip_network("192.88.99.0/24"),  # RFC 7526, old 6to4 relays
    ipaddress.ip_network("3fff::/20"),  # RFC 9637, documentation; not yet known to Python 3.11
)


class AddressRefused(Exception):
    """A host that is, or resolves to, an address that is not public. `address` is None where the
    URL itself was refused."""

    def __init__(self, host: str, address: str | None, why: str) -> None:
        super().__init__(why)
        self.host, self.address = host, address


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet: not loopback, private, link-local,
    shared, multicast, reserved or for documentation, also where an IPv6 address wraps an IPv4
    one (mapped, 6to4, NAT64). Raises ValueError for what is no address."""
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
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (UnicodeError, OverflowError) as error:  # a label that is empty, a port too large
        raise OSError(f"{host!r} is no name of a host") from error
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    refused = [a for a in addresses if not (allow_private or is_public(a))]
    if refused:
        raise AddressRefused(host, refused[0], f"{host} is at {refused[0]}, which is not public")
    return addresses


def check_url(url: str, *, allow_private: bool = False) -> httpx2.URL:
    """The URL, if it may be called as far as its text tells: http or https, a host, no password.

    Resolves no name, so that a request need not wait for DNS; `safe_client` does, each time.
    Raises AddressRefused, which says what is wrong.
    """
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
    return parsed


def _is_private_text(host: str) -> bool:
    """An address that is not public in any of the forms that inet_aton takes (127.1, 0x7f.1,
    2130706433), or a name that means this machine wherever it is looked up."""
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


def safe_client(
    *,
    allow_private: bool = False,
    timeout: float = 10.0,
    lifetime: float | None = None,
    keep_alive: bool = True,
) -> httpx2.Client:
    """A client that connects to checked addresses alone, whatever a name says.

    It follows no redirect unless it is told to, and then the redirect's address is checked as
    well. It asks no proxy, which would resolve names for itself. TLS is verified as ever, against
    the name.

    allow_private: check nothing. timeout: seconds for connecting, and for each read and write.
    lifetime: seconds until a connection is cut, whatever it is doing: a server that sends a byte
    now and then passes every `timeout`. keep_alive: use connections again.
    Requests raise AddressRefused beside httpx2's own errors.
    """
    transport = _CheckedTransport(allow_private, lifetime, keep_alive)
    return httpx2.Client(transport=transport, timeout=timeout, trust_env=False)


class _CheckedTransport(httpx2.HTTPTransport):
    def __init__(self, allow_private: bool, lifetime: float | None, keep_alive: bool) -> None:
        self._pool = httpcore2.ConnectionPool(
            ssl_context=httpx2.create_ssl_context(),
            max_connections=10,
            max_keepalive_connections=10 if keep_alive else 0,
            network_backend=_CheckedBackend(allow_private, lifetime),
        )


class _CheckedBackend(httpcore2.NetworkBackend):
    def __init__(self, allow_private: bool, lifetime: float | None) -> None:
        self._allow_private, self._lifetime = allow_private, lifetime
        self._sockets = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        try:
            addresses = resolve(host, port, allow_private=self._allow_private)
        except OSError as error:
            raise httpcore2.ConnectError(f"{host} does not resolve: {error}") from error
        deadline = time.monotonic() + self._lifetime if self._lifetime is not None else None
        failure: Exception | None = None
        for address in addresses:
            try:
                stream = self._sockets.connect_tcp(
                    address, port, _left(deadline, timeout), local_address, socket_options or ()
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
            else:
                return stream if deadline is None else _Mortal(stream, deadline)
        raise failure or httpcore2.ConnectError(f"{host} has no address")


class _Mortal(httpcore2.NetworkStream):
    """A stream whose every wait ends by one deadline."""

    def __init__(self, stream: httpcore2.NetworkStream, deadline: float) -> None:
        self._stream, self._deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(self._deadline, timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(self._deadline, timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        left = _left(self._deadline, timeout)
        return _Mortal(self._stream.start_tls(ssl_context, server_hostname, left), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(deadline: float | None, timeout: float | None) -> float | None:
    """Seconds that may be waited. Zero would mean a socket that does not wait at all."""
    if deadline is None:
        return timeout
    return max(0.001, min(deadline - time.monotonic(), timeout or float("inf")))
