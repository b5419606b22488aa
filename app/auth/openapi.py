"""What the OpenAPI document says about keys and limits."""

from typing import Any

from app.auth.access import AccessTable
from app.errors import MEDIA_TYPE

_SCHEME = "key"
_KEY = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "sapnet_…",
    "description": "A key of this service, made by `sapnet-service keys create`. While there is "
    "none, the service answers its own machine without one. An operation names the scope it needs: "
    "read, write (which may read too) or admin (which sees all owners' data).",
}
_CHALLENGE = {"WWW-Authenticate": "what is wrong with the key: RFC 6750"}
_WAIT = {"Retry-After": "seconds"}
_REFUSALS: dict[str, tuple[str, dict[str, str]]] = {
    "401": ("A key is needed, or it works no more", _CHALLENGE),
    "403": (
        "The key's scope does not allow it; without keys, another site may have sent it",
        _CHALLENGE,
    ),
    "413": ("The body is too large", {}),
    "429": ("Too many requests, or the owner's quota is used up", _WAIT),
}
_WITH_BODY = ("post", "put", "patch")


def describe(document: dict[str, Any], routes: AccessTable) -> None:
    """Add to the document: the key, who needs it, and how each operation may refuse."""
    components = document["components"]
    components["securitySchemes"] = {_SCHEME: _KEY}
    components["responses"] = {
        f"Refused{s}": _refusal(*refusal) for s, refusal in _REFUSALS.items()
    }
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            scope = routes.of(method.upper(), path).scope
            operation["security"] = [] if scope is None else [{_SCHEME: [scope.value]}]
            statuses = [] if scope is None else ["401", "403", "429"]
            if method in _WITH_BODY:
                statuses.append("413")
            for status in statuses:
                reference = {"$ref": f"#/components/responses/Refused{status}"}
                operation["responses"].setdefault(status, reference)


def _refusal(description: str, headers: dict[str, str]) -> dict[str, Any]:
    return {
        "description": description,
        "headers": {
            name: {"description": about, "schema": {"type": "string"}}
            for name, about in headers.items()
        },
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
