"""What a POST to /predict asks for: a form with an image or its address, or JSON."""

import base64
import binascii
import io
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Annotated, Any, BinaryIO, TypeVar

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import UploadFile

from app.datasets.image_sources import NotFetched, check_address
from app.errors import Invalid, TooLarge, ValidationIssue
from app.http.dependencies import SettingsDep
from app.predict.schemas import MIRROR, SMALLEST_TILE, TILES, ImageIn, PredictRequest, TilesIn
from app.settings import Settings

JSON = "application/json"

Body = TypeVar("Body", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Source:
    """Where an image is: in the request, at an address, or in a data set.

    Attributes:
        pointer: JSON pointer to it in the body.
        file: its bytes, where they came with the request.
        url: its address.
        id: its id in the data set.
    """

    pointer: str
    file: BinaryIO | None = None
    url: str | None = None
    id: int | None = None


@dataclass(frozen=True, slots=True)
class PredictArguments:
    """What a request to /predict asks for, whether it came as JSON or as a form.

    Attributes:
        model: its id, or an alias.
        score: confidence threshold of the results; None for the service's own.
        tiles, mirror: see `PredictOptions`.
        sources: images; none where a whole data set is meant.
        many: whether the answer is a list of images, also of one.
        dataset: id of the data set whose image ids are meant; None for the model's own.
        part: "body", or "form".
    """

    model: str
    score: float | None
    sources: tuple[Source, ...]
    many: bool = False
    dataset: str | None = None
    part: str = "body"
    tiles: str | int = "auto"
    mirror: bool = False

    def issue(self, source: Source, detail: str, hint: str = "") -> ValidationIssue:
        """Return what is wrong with one of the images."""
        if self.part == "body":
            return ValidationIssue("body", source.pointer, detail, hint)
        return ValidationIssue(source.pointer.removeprefix("/"), "", detail, hint)


class _Form(BaseModel):
    model_config = ConfigDict(extra="ignore")
    model: str = Field(min_length=1)
    score: float | None = Field(None, ge=0, le=1)
    tiles: TilesIn = "auto"
    mirror: bool = False
    url: str | None = None


FORM_SCHEMA = {
    "type": "object",
    "properties": {
        "model": {"type": "string", "minLength": 1, "description": "its id, or an alias"},
        "file": {"type": "string", "format": "binary", "description": "the image"},
        "url": {"type": "string", "description": "its address, in place of the file"},
        "score": {"type": "number", "minimum": 0, "maximum": 1},
        "tiles": {
            "anyOf": [
                {"type": "string", "enum": ["auto", "off"]},
                {"type": "integer", "minimum": SMALLEST_TILE},
            ],
            "description": TILES,
        },
        "mirror": {"type": "boolean", "description": MIRROR},
    },
    "required": ["model"],
}


def json_schema() -> dict[str, Any]:
    """Return the schema of the JSON body, in one piece: it is read here, not by the framework."""
    schema = PredictRequest.model_json_schema()
    parts = schema.pop("$defs")

    def whole(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                return whole(parts[node["$ref"].split("/")[-1]])
            return {name: whole(value) for name, value in node.items()}
        return [whole(item) for item in node] if isinstance(node, list) else node

    resolved: dict[str, Any] = whole(schema)
    return resolved


async def read(request: Request, settings: SettingsDep) -> AsyncIterator[PredictArguments]:
    """Read what a request asks for; its file is open until the request is over.

    Raises:
        Invalid: with all that is wrong.
        RequestValidationError: the body is not of the form it should have.
        TooLarge: the JSON is larger than `max_json_bytes`.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    async with AsyncExitStack() as stack:
        if kind == JSON:
            arguments = _from_json(await _json(request, settings))
        else:
            form = await stack.enter_async_context(request.form(max_files=1, max_fields=20))
            arguments = _from_form(form)
        if issues := address_issues(settings, arguments):
            raise Invalid(issues)
        yield arguments


PredictArgumentsDep = Annotated[PredictArguments, Depends(read)]


def address_issues(settings: Settings, arguments: PredictArguments) -> list[ValidationIssue]:
    """Return the addresses that must not be called, as far as their text tells."""
    issues = []
    for source in arguments.sources:
        if source.url is not None:
            try:
                check_address(settings, source.url)
            except NotFetched as error:
                hint = "https://host/image.jpg, s3://bucket/key, or a number: the id of an image"
                issues.append(arguments.issue(source, f"{source.url[:200]!r}: {error}", hint))
    return issues


async def _json(request: Request, settings: Settings) -> Any:
    """The body, of a size that memory can hold several times over."""
    limit = settings.max_json_bytes
    parts: list[bytes] = []
    total = 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > limit:
            hint = "send large images as files, or name their addresses"
            raise TooLarge(f"At most {limit:,} bytes of JSON are taken here: {hint}.", limit=limit)
        parts.append(chunk)
    raw = b"".join(parts)
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        position = getattr(error, "pos", 0)
        why = {"error": getattr(error, "msg", None) or str(error)}
        wrong = {"type": "json_invalid", "loc": ("body", position), "msg": "not JSON", "ctx": why}
        raise RequestValidationError([wrong]) from error


def _from_json(document: Any) -> PredictArguments:
    body = _checked(PredictRequest, document)
    if body.images is None:
        single = ImageIn.model_construct(id=None, url=body.url, image=body.image)
        entries = [] if body.url is None and body.image is None else [("", single)]
    else:
        entries = [(f"/images/{n}", entry) for n, entry in enumerate(body.images)]
    issues: list[ValidationIssue] = []
    sources = [_source(pointer, entry, issues) for pointer, entry in entries]
    if issues:
        raise Invalid(issues)
    many = body.images is not None or not sources
    return PredictArguments(
        body.model,
        body.score,
        tuple(sources),
        many,
        body.dataset,
        tiles=body.tiles,
        mirror=body.mirror,
    )


def _source(pointer: str, entry: ImageIn, issues: list[ValidationIssue]) -> Source:
    if entry.image is None:
        name = "url" if entry.url is not None else "id"
        return Source(f"{pointer}/{name}", None, entry.url, entry.id)
    text = entry.image
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return Source(f"{pointer}/image", io.BytesIO(base64.b64decode(text, validate=True)))
    except (binascii.Error, ValueError) as error:
        hint = "RFC 4648, section 4, without line breaks"
        issues.append(
            ValidationIssue("body", f"{pointer}/image", f"it is no base64: {error}", hint)
        )
        return Source(f"{pointer}/image")


def _from_form(form: Mapping[str, Any]) -> PredictArguments:
    texts = {name: form[name] for name in _Form.model_fields if name in form}
    errors: list[Any] = []
    try:
        values = _checked(_Form, texts)
    except RequestValidationError as error:
        errors = list(error.errors())
    file = form.get("file")
    if file is not None and not isinstance(file, UploadFile):
        errors.append({"type": "value_error", "loc": ("body", "file"), "msg": "an UploadFile"})
    elif (file is None) is ("url" not in texts):
        what = "it is missing, and so is url" if file is None else "url came too"
        errors.append({"type": "value_error", "loc": ("body", "file"), "msg": what})
    if errors:
        raise RequestValidationError(errors, body=texts)
    source = Source("/url", url=values.url) if file is None else Source("/file", file.file)
    return PredictArguments(
        values.model,
        values.score,
        (source,),
        part="form",
        tiles=values.tiles,
        mirror=values.mirror,
    )


def _checked(kind: type[Body], document: Any) -> Body:
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        problems: Sequence[Any] = error.errors(include_url=False, include_input=False)
        wrong = [{**e, "loc": ("body", *e["loc"])} for e in problems]
        raise RequestValidationError(wrong, body=document) from error
