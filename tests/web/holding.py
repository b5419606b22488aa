"""Requests of a page that are held back until a test lets them go: what is slow by chance is slow
for certain."""

import re
import time
from typing import Any

from playwright.sync_api import Page, Route


class Held:
    """Requests of a page of this method and address: they wait here until they are let go."""

    def __init__(self, page: Page, method: str, pattern: str) -> None:
        self.page, self.method = page, method
        self.bodies: list[Any] = []
        self.addresses: list[str] = []
        self._waiting: list[Route] = []
        self._closed = True
        page.route(re.compile(pattern), self._take)
        self._wait_for_routing()

    def _wait_for_routing(self) -> None:
        """The first route of a page takes hold a moment after it is set: what is sent before that
        passes by unseen."""
        self.page.route("**/icon.svg?routed", lambda route: route.fulfill(status=204))
        for _ in range(1000):
            if self.page.evaluate("fetch('/web/icon.svg?routed').then((r) => r.status)") == 204:
                return
        raise AssertionError("no request of the page is routed")

    def _take(self, route: Route) -> None:
        if route.request.method != self.method:
            route.fallback()
            return
        json_sent = route.request.headers.get("content-type") == "application/json"
        self.bodies.append(route.request.post_data_json if json_sent else None)
        self.addresses.append(route.request.url)
        if self._closed:
            self._waiting.append(route)
        else:
            route.continue_()

    def came(self, count: int = 1) -> None:
        """Wait until so many have come in all."""
        deadline = time.monotonic() + 60
        while len(self.bodies) < count:
            assert time.monotonic() < deadline, f"{len(self.bodies)} of {count} requests came"
            self.page.wait_for_timeout(20)

    def let_go(self) -> None:
        """These and all that follow."""
        self._closed = False
        while self._waiting:
            self._waiting.pop(0).continue_()

    def answer(self, document: Any, status: int = 200) -> None:
        """Those that wait get this; the ones that follow are let through."""
        self._closed = False
        while self._waiting:
            self._waiting.pop(0).fulfill(status=status, json=document)

    def refuse(self) -> None:
        self.answer({"title": "Busy", "detail": "Come again later."}, 503)
