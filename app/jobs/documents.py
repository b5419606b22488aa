"""Large documents in the body of a request: kept as text, and never whole as Python objects.

Decoding or encoding megabytes of JSON is one call that holds the interpreter, so that no other
request is answered meanwhile, in whichever thread it runs. Finding where a member ends is a
fifteenth of that; what is in it is then checked a part at a time.
"""

import json
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import msgspec
from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute
from pydantic import PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

LARGE = 1 << 16
"""Bytes of a body from which on its documents are not decoded."""
_OBJECT = {"type": "object", "additionalProperties": True}
_LIST: dict[str, Any] = {"type": "array", "items": {}}


def _object(value: Any) -> msgspec.Raw:
    if isinstance(value, dict):
        return _as_text(value)
    if isinstance(value, msgspec.Raw) and text_of(value).startswith(b"{"):
        return value
    raise PydanticCustomError("dict_type", "Input should be a valid dictionary")


def _object_or_list(value: Any) -> msgspec.Raw:
    if isinstance(value, dict | list):
        return _as_text(value)
    if isinstance(value, msgspec.Raw) and text_of(value).startswith((b"{", b"[")):
        return value
    raise PydanticCustomError("document_type", "Input should be a valid dictionary or list")


ObjectText = Annotated[msgspec.Raw, PlainValidator(_object), WithJsonSchema(_OBJECT)]
"""An object, as the text of its JSON."""
DocumentText = Annotated[
    msgspec.Raw, PlainValidator(_object_or_list), WithJsonSchema({"anyOf": [_OBJECT, _LIST]})
]
"""An object or a list, as the text of its JSON."""


def text_of(raw: msgspec.Raw) -> bytes:
    """The text of a document."""
    return bytes(memoryview(raw))


def _as_text(value: Any) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(value).encode())


class LargeDocuments(APIRoute):
    """A route whose body may hold large documents: `truth`, and `document` of `proposals`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's own, for a request that reads its JSON so."""
        handle = super().get_route_handler()

        async def handler(request: Request) -> Response:
            return await handle(_Request(request.scope, request.receive))

        return handler


class _Request(Request):
    async def json(self) -> Any:
        body = await self.body()
        return await (run_in_threadpool(_parse, body) if len(body) > LARGE else super().json())


def _parse(body: bytes) -> Any:
    """The body, with documents as text.

    Raises:
        json.JSONDecodeError: it is no JSON.
    """
    try:
        if not body.lstrip().startswith(b"{"):
            return msgspec.json.decode(body)
        members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        return {
            key: _PARSERS.get(key, msgspec.json.decode)(value) for key, value in members.items()
        }
    except (msgspec.DecodeError, UnicodeError) as error:
        raise json.JSONDecodeError(str(error), "", 0) from error


def _proposals(raw: msgspec.Raw) -> Any:
    if not text_of(raw).startswith(b"{"):
        return msgspec.json.decode(raw)
    members = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    return {
        k: _document(v) if k == "document" else msgspec.json.decode(v) for k, v in members.items()
    }


def _document(raw: msgspec.Raw) -> msgspec.Raw | None:
    """The text itself; None where it says null, as in a small body."""
    return None if text_of(raw) == b"null" else raw


_PARSERS: dict[str, Callable[[msgspec.Raw], Any]] = {"truth": _document, "proposals": _proposals}
