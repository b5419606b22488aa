"""A client that calls no address but those that `app.outbound.url_policy` allows.

For what fetches and posts. It stands apart because httpx2 takes a while to load, and most processes
never call.
"""

import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import httpcore2
import httpx2

from app.outbound.url_policy import resolve

Endpoint = tuple[str, int]
"""A host in lower case, and a port."""


def safe_client(
    *,
    allow_private: bool = False,
    trusted: Collection[Endpoint] = (),
    timeout: float = 10.0,
    lifetime: float | None = None,
    keep_alive: bool = True,
) -> httpx2.Client:
    """A client that connects to checked addresses alone, whatever a name says.

    It follows no redirect unless it is told to, and then the redirect's address is checked as
    well. It asks no proxy, which would resolve names for itself. TLS is verified as ever, against
    the name.

    allow_private: check nothing. trusted: hosts, with their ports, whose addresses are not checked,
    as a setting names them; where they redirect to another, that one is.
    timeout: seconds for connecting, and for each read and write.
    lifetime: seconds until a connection is cut, whatever it is doing: a server that sends a byte
    now and then passes every `timeout`. keep_alive: use connections again.
    Requests raise AddressRefused beside httpx2's own errors.
    """
    transport = _CheckedTransport(_Policy(allow_private, frozenset(trusted)), lifetime, keep_alive)
    return httpx2.Client(transport=transport, timeout=timeout, trust_env=False)


@dataclass(frozen=True, slots=True)
class _Policy:
    """Which addresses may be called: all, those of some hosts, and public ones."""

    allow_private: bool
    trusted: frozenset[Endpoint]

    def allows_private(self, host: str, port: int) -> bool:
        return self.allow_private or (host.rstrip(".").lower(), port) in self.trusted


class _CheckedTransport(httpx2.HTTPTransport):
    def __init__(self, policy: _Policy, lifetime: float | None, keep_alive: bool) -> None:
        self._pool = httpcore2.ConnectionPool(
            ssl_context=httpx2.create_ssl_context(),
            max_connections=10,
            max_keepalive_connections=10 if keep_alive else 0,
            network_backend=_CheckedBackend(policy, lifetime),
        )


class _CheckedBackend(httpcore2.NetworkBackend):
    def __init__(self, policy: _Policy, lifetime: float | None) -> None:
        self._policy, self._lifetime = policy, lifetime
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
            private = self._policy.allows_private(host, port)
            addresses = resolve(host, port, allow_private=private)
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
