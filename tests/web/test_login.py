"""Logging in on the page at a real OpenID provider, and out again."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from playwright.sync_api import BrowserContext, expect


@pytest.fixture
def provider() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    claims = '{"sub": "anna", "roles": ["staff"]}'
    command = [sys.executable, "-m", "oidc_provider_mock", "-p", str(port)]
    process = subprocess.Popen(
        [*command, "--user-claims", claims], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            assert process.poll() is None
            try:
                httpx2.get(url)
                break
            except httpx2.TransportError:
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait()


@pytest.mark.slow
def test_log_in_and_out(
    context: BrowserContext, start_service: Callable[..., Any], provider: str
) -> None:
    service = start_service(
        oidc_issuer=provider,
        oidc_client_id="page",
        oidc_client_secret="secret",
        oidc_roles='{"staff": "write"}',
    )
    page = context.new_page()
    page.goto(f"{service.url}/#/models")
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("button", name="anna").click()
    expect(page).to_have_url(f"{service.url}/#/models")
    expect(page.get_by_role("heading", level=1)).to_have_text("Models")
    cookies = {cookie["name"]: cookie for cookie in context.cookies(service.url)}
    assert cookies["sapnet_session"]["httpOnly"]
    assert cookies["sapnet_session"]["sameSite"] == "Lax"
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url(lambda url: not url.startswith(service.url) or url == f"{service.url}/")
    assert "sapnet_session" not in {cookie["name"] for cookie in context.cookies(service.url)}
    page.goto(f"{service.url}/#/jobs")
    page.reload()
    expect(page.get_by_role("button", name="Log in")).to_be_visible()
