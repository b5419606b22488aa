"""What each route asks of a request before it is read: a scope, and a body of at most so much.

A route says so at its own definition, by a decorator below FastAPI's:

    @router.post("/predict")
    @access(scope=Scope.READ, body=lambda settings: settings.max_image_bytes)

One that says nothing asks for the scope that its method tells, READ for GET and WRITE else, and
takes a small body; so does a path that no route has. Only what says so itself is open to all.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi.routing import iter_route_contexts
from starlette.routing import BaseRoute

from app.auth.keys import Caller
from app.auth.own_site import SAFE
from app.auth.scope import Scope
from app.db.session import Database
from app.settings import Settings

T = TypeVar("T", bound=Callable[..., Any])
_NAME = "__access__"


@dataclass(frozen=True, slots=True)
class Access:
    """What a route demands of a request before its body is read.

    Attributes:
        scope: that the key must have; None where no key is asked for.
        body: gives the most bytes that the body may have.
        first: is called before the body is read, with the bytes that the request announces, and
            raises where there is no room.
        counted: whether requests without a key count as writes of their address.
        basic: whether the key may come as the password of HTTP's basic authentication, for tools
            that have no other.
    """

    scope: Scope | None
    body: Callable[[Settings], int] = lambda settings: settings.max_json_bytes
    first: Callable[[Database, Settings, Caller, int], None] | None = None
    basic: bool = False
    counted: bool = False


UNSAID = {True: Access(Scope.READ), False: Access(Scope.WRITE)}
"""By whether the method is a safe one."""
OPEN, COUNTED = Access(None), Access(None, counted=True)


def access(
    *,
    scope: Scope | None = Scope.WRITE,
    body: Callable[[Settings], int] = UNSAID[False].body,
    first: Callable[[Database, Settings, Caller, int], None] | None = None,
    basic: bool = False,
) -> Callable[[T], T]:
    """Of the endpoint that it decorates; the default scope is that of what changes something."""
    return lambda endpoint: declare(endpoint, Access(scope, body, first, basic))


def open_to_all(endpoint: T) -> T:
    """No key is needed."""
    return declare(endpoint, OPEN)


def open_but_counted(endpoint: T) -> T:
    """No key is needed; for what costs more than a look at what is there."""
    return declare(endpoint, COUNTED)


def declare(endpoint: T, wanted: Access) -> T:
    """Of an endpoint, or of an application that is mounted."""
    setattr(endpoint, _NAME, wanted)
    return endpoint


class AccessTable:
    """Of all routes of an app, in the order in which the router tries them."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self._rows = list(_rows(routes))

    def of(self, method: str, path: str) -> Access:
        """Return what the route that answers this request demands.

        Where an open path does not know the method, it is open to say so.
        """
        others = None
        for pattern, methods, wanted in self._rows:
            if pattern.match(path):
                if methods is None or method in methods:
                    return wanted or UNSAID[method in SAFE]
                others = others or wanted
        return others if others and others.scope is None else UNSAID[method in SAFE]


def _rows(
    routes: Iterable[BaseRoute],
) -> Iterator[tuple[re.Pattern[str], frozenset[str] | None, Access | None]]:
    for route in iter_route_contexts(list(routes)):
        target = route.endpoint or getattr(route.original_route, "app", None)
        methods = frozenset(route.methods) if route.methods else None
        yield route.path_regex, methods, getattr(target, _NAME, None)
