"""A URL of a user's reaches the public internet or nothing."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2
import pytest

from app.outbound.client import safe_client
from app.outbound.url_policy import AddressRefused, check_url, is_public, resolve

PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700::1", "::ffff:8.8.8.8", "64:ff9b::808:808"]
NOT_PUBLIC = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "192.88.99.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::7f00:1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "2002:a00:1::",
    "2001:0:1::",
    "2001:db8::1",
    "3fff::1",
    "fc00::1",
    "fd12::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "100::1",
    "5f00::1",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://example.org/x", "begin with"),
        ("file:///etc/passwd", "begin with"),
        ("gopher://127.0.0.1:6379/_x", "begin with"),
        ("example.org", "begin with"),
        ("", "begin with"),
        ("http://", "no host"),
        ("http://user:word@example.org/", "password"),
        ("http://exa mple:port/", "not a URL"),
        ("http://[::1", "not a URL"),
        ("http://example.org:99999/", "port"),
        ("http://example.org:0/", "port"),
        ("http://localhost:8000/", "not a public"),
        ("http://LocalHost./", "not a public"),
        ("http://api.localhost/", "not a public"),
        ("http://127.0.0.1/", "not a public"),
        ("http://127.1/", "not a public"),
        ("http://0x7f000001/", "not a public"),
        ("http://0177.0.0.1/", "not a URL"),
        ("http://2130706433/", "not a public"),
        ("http://[::1]:80/", "not a public"),
        ("http://[::ffff:10.0.0.1]/", "not a public"),
        ("https://169.254.169.254/latest/meta-data", "not a public"),
    ],
)
def test_urls_refused_by_their_text(url: str, why: str) -> None:
    with pytest.raises(AddressRefused, match=why):
        check_url(url)


def test_urls_taken() -> None:
    check_url("https://example.org/hook?a=1")
    check_url("https://8.8.8.8:8443/")
    check_url("http://127.0.0.1:1/", allow_private=True)
    with pytest.raises(AddressRefused):
        check_url("ftp://127.0.0.1/", allow_private=True)


def answers(monkeypatch: pytest.MonkeyPatch, *rounds: list[str]) -> list[str]:
    """The name `rebind.test` resolves to each of these in turn, then to the last; who was asked."""
    real, left, asked = socket.getaddrinfo, list(rounds), []

    def fake(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        if host != "rebind.test":
            return real(host, port, *args, **options)
        asked.append(host)
        addresses = left.pop(0) if len(left) > 1 else left[0]
        kinds = [socket.AF_INET6 if ":" in a else socket.AF_INET for a in addresses]
        return [
            (kind, socket.SOCK_STREAM, 6, "", (a, port))
            for kind, a in zip(kinds, addresses, strict=True)
        ]

    monkeypatch.setattr(socket, "getaddrinfo", fake)
    return asked


def test_one_private_address_among_public_ones_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, ["8.8.8.8", "10.0.0.1"])
    with pytest.raises(AddressRefused, match=r"rebind\.test is at 10\.0\.0\.1") as caught:
        resolve("rebind.test", 80)
    assert (caught.value.host, caught.value.address) == ("rebind.test", "10.0.0.1")
    assert resolve("rebind.test", 80, allow_private=True) == ["8.8.8.8", "10.0.0.1"]


@pytest.mark.parametrize("host", ["a" * 64 + ".org", "a..b", "\udcff"])
def test_what_is_no_name_is_an_os_error(host: str) -> None:
    with pytest.raises(OSError):
        resolve(host, 80)


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """An HTTP server on loopback: its port, and the Host headers it saw."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers["Host"])
            self.send_response(302 if self.path == "/away" else 200)
            self.send_header("Location", "http://rebind.test/")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    yield str(http.server_port), seen
    http.shutdown()
    http.server_close()
    thread.join()


def test_a_name_that_leads_home_is_refused_at_the_connection(
    server: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, seen = server
    answers(monkeypatch, ["127.0.0.1"])
    with safe_client() as client:
        for host in ("rebind.test", "127.0.0.1", "[::1]", "127.1", "localhost"):
            with pytest.raises(AddressRefused):
                client.get(f"http://{host}:{port}/")
    assert seen == []


def test_the_checked_address_is_the_one_called(
    server: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rebinding: a second look-up would give another address, so there must be none."""
    port, seen = server
    monkeypatch.setattr("app.outbound.url_policy.is_public", lambda address: address == "127.0.0.1")
    asked = answers(monkeypatch, ["127.0.0.1"], ["127.0.0.2"])
    with safe_client() as client:
        assert client.get(f"http://rebind.test:{port}/").text == "ok"
    assert (len(asked), seen) == (1, [f"rebind.test:{port}"])
    with safe_client() as client, pytest.raises(AddressRefused):
        client.get(f"http://rebind.test:{port}/")
    assert len(seen) == 1


def test_a_redirect_that_is_followed_is_checked(
    server: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, seen = server
    monkeypatch.setattr("app.outbound.url_policy.is_public", lambda address: address == "127.0.0.1")
    answers(monkeypatch, ["10.0.0.1"])
    with safe_client() as client:
        assert client.get(f"http://127.0.0.1:{port}/away").status_code == 302
        with pytest.raises(AddressRefused):
            client.get(f"http://127.0.0.1:{port}/away", follow_redirects=True)
    assert len(seen) == 2


def test_the_next_address_is_tried(
    server: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, _ = server
    answers(monkeypatch, ["127.0.0.9", "127.0.0.1"])  # nobody listens at the first
    with safe_client(allow_private=True) as client:
        assert client.get(f"http://rebind.test:{port}/").text == "ok"


def test_no_proxy_is_asked(server: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    port, seen = server
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
    with safe_client() as client, pytest.raises(AddressRefused):
        client.get("http://10.0.0.1/")
    assert seen == []


@pytest.fixture
def drip() -> Iterator[Callable[[], int]]:
    """A server that sends a byte of a header every 50 ms, for 90 s; its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            try:
                connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
                for _ in range(1800):
                    connection.sendall(b"x")
                    time.sleep(0.05)
            except OSError:
                pass

    thread = threading.Thread(target=serve)
    thread.start()
    yield lambda: int(listener.getsockname()[1])
    thread.join()
    listener.close()


@pytest.mark.slow
def test_a_server_that_drips_is_cut_off(drip: Callable[[], int]) -> None:
    began = time.monotonic()
    with (
        safe_client(allow_private=True, lifetime=0.4, timeout=60) as client,
        pytest.raises(httpx2.ReadTimeout),
    ):
        client.get(f"http://127.0.0.1:{drip()}/")
    assert 0.35 < time.monotonic() - began < 50
