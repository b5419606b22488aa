"""What the service refuses, and how it says so: RFC 9457 problem+json, always.

The classes carry data and know no HTTP; `PROBLEMS` alone says which status each one is.
"""

import json
import re
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from obstore.exceptions import BaseError as StoreError
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from sapnet import errors as sapnet_errors

MEDIA_TYPE = "application/problem+json"
_POSTGRES_DISK_FULL = "53100"
_POSTGRES_BUSY = ("08", "53", "57P", "40001", "40P01", "55P03")
"""Of its SQLSTATE codes: connection, resources, shutdown, serialization, deadlock, lock."""


@dataclass(frozen=True, slots=True)
class ValidationIssue:
    """One thing that is wrong with a request.

    part: the form part or place it is in ("annotations", "images", "body", "query", …).
    pointer: RFC 6901 pointer within that part; "" is the whole of it.
    detail: what is wrong. hint: how to fix it.
    """

    part: str
    pointer: str
    detail: str
    hint: str = ""


class AppError(Exception):
    """Root of the service's own errors. `extra` becomes members of the problem."""

    def __init__(
        self, detail: str, *, headers: Mapping[str, str] | None = None, **extra: Any
    ) -> None:
        super().__init__(detail)
        self.detail, self.headers, self.extra = detail, dict(headers or {}), extra


class NotFound(AppError):
    """There is no such thing, or the caller may not see it."""

    def __init__(self, kind: str, id: object) -> None:
        super().__init__(f"There is no {kind} {str(id)!r}.")


class Conflict(AppError):
    """The thing is not in a state in which this can be done; `extra` says in which it is."""


class Invalid(AppError):
    """The request is understood and wrong. `issues` lists everything found, in order."""

    def __init__(self, issues: Sequence[ValidationIssue], detail: str | None = None) -> None:
        few = "; ".join(f.detail for f in issues[:3])
        more = f" (and {len(issues) - 3} more)" if len(issues) > 3 else ""
        super().__init__(f"{detail}: {few}{more}" if detail else f"{few}{more}")
        self.issues = tuple(issues)


class BadHeader(AppError):
    """A header is not as the protocol has it."""


class PreconditionFailed(AppError):
    """What the request rests on is not so.

    It names another revision, or another version of a protocol.
    """


class PreconditionRequired(AppError):
    """A change must say which revision it was made from."""


class ChecksumMismatch(AppError):
    """The bytes that came are not those that were sent."""


class BadForm(AppError):
    """The body is not the multipart form it says it is."""


class TooDeep(HTTPException):
    """A JSON body is nested too deeply.

    FastAPI passes an HTTPException on while it reads a body, and makes others a 400.
    """

    def __init__(self) -> None:
        from sapnet.data.depth import MAX_DEPTH, TOO_DEEP  # loads numpy

        super().__init__(422, f"The body cannot be used: {TOO_DEEP}.")
        hint = f"nest objects and lists at most {MAX_DEPTH} levels deep"
        self.issues = (ValidationIssue("body", "", TOO_DEEP, hint),)


class TooLarge(AppError):
    """The body, or one of its parts, has more bytes than the route accepts."""


class UnsupportedMedia(AppError):
    """The body is of a media type that the route does not read."""


class NotAcceptable(AppError):
    """The route has no representation that the Accept header allows."""


class RangeNotSatisfiable(AppError):
    """The Range header names bytes that there are not. `size` is how many there are."""

    def __init__(self, size: int) -> None:
        super().__init__(
            f"The range lies outside the {size} bytes there are.",
            headers={"Content-Range": f"bytes */{size}"},
        )


class Unavailable(AppError):
    """Something the service needs does not answer; the same request may do later."""


class Unauthorized(AppError):
    """Nobody known is asking."""


class ForeignRequest(AppError):
    """There is no key, and a page of another site may have sent this, or have had it sent."""


class Forbidden(AppError):
    """Who is asking may not do this."""


class TooManyRequests(AppError):
    """More a minute than this caller may make; Retry-After says when to ask again."""


class QuotaExceeded(AppError):
    """The owner has as much as may be had."""


class DiskFull(AppError):
    """The system refused to write for want of space. Nothing of the request was kept."""

    def __init__(self) -> None:
        super().__init__(
            "There is no room left on the service's disk, and nothing of this request was kept. "
            "The same request may do once room has been made, or for fewer and smaller files."
        )


class BlobMissing(AppError):
    """A row names a blob that storage does not have."""

    def __init__(self, sha: str) -> None:
        super().__init__("A stored file is missing from the service's storage.", sha256=sha)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problem; with no slug it is no more than its HTTP status."""

    status: int
    slug: str
    title: str


PROBLEMS: dict[type[Exception], Kind] = {
    Unauthorized: Kind(401, "unauthorized", "A key is needed"),
    ForeignRequest: Kind(403, "foreign-request", "The request may come from another site"),
    Forbidden: Kind(403, "forbidden", "The key does not allow this"),
    NotFound: Kind(404, "not-found", "There is no such thing"),
    Conflict: Kind(409, "conflict", "Not possible in the present state"),
    Invalid: Kind(422, "invalid-input", "The input is not usable"),
    RequestValidationError: Kind(422, "invalid-input", "The input is not usable"),
    BadHeader: Kind(400, "bad-header", "A header is not as the protocol has it"),
    PreconditionFailed: Kind(412, "precondition-failed", "What the request rests on is not so"),
    PreconditionRequired: Kind(428, "precondition-required", "The revision must be named"),
    ChecksumMismatch: Kind(460, "checksum-mismatch", "The bytes are not those that were sent"),
    BadForm: Kind(400, "bad-form", "The body is not a well-formed multipart form"),
    TooLarge: Kind(413, "too-large", "The body is larger than the service takes"),
    UnsupportedMedia: Kind(415, "unsupported-media-type", "The body is of another kind"),
    NotAcceptable: Kind(406, "not-acceptable", "There is no such representation"),
    RangeNotSatisfiable: Kind(416, "range-not-satisfiable", "There are no such bytes"),
    QuotaExceeded: Kind(429, "quota-exceeded", "There is no room for more"),
    TooManyRequests: Kind(429, "too-many-requests", "Too many requests at once"),
    Unavailable: Kind(503, "unavailable", "The service cannot do this at the moment"),
    ClientDisconnect: Kind(400, "client-disconnected", "The client left before its body ended"),
    DiskFull: Kind(507, "insufficient-storage", "The service has no room left on its disk"),
    BlobMissing: Kind(500, "blob-missing", "A stored file is missing"),
    Exception: Kind(500, "internal-error", "The service failed"),
}


def problem(
    request: Request,
    kind: Kind,
    detail: str,
    *,
    issues: Iterable[ValidationIssue] = (),
    headers: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> JSONResponse:
    """Return a problem as the response.

    Args:
        issues: become `errors`, a list of part, pointer, detail, hint; there is no such member
            where there are none.
        extra: more members.
    """
    body: dict[str, Any] = {
        "type": f"/problems/{kind.slug}" if kind.slug else "about:blank",
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        "instance": request.url.path,
        **(extra or {}),
    }
    if errors := [
        {"part": f.part, "pointer": f.pointer, "detail": f.detail, "hint": f.hint} for f in issues
    ]:
        body["errors"] = errors
    return _ProblemResponse(body, kind.status, headers=dict(headers or {}))


class _ProblemResponse(JSONResponse):
    media_type = MEDIA_TYPE

    def render(self, content: Any) -> bytes:
        """What a request said may come back in it, so lone surrogates are written as JSON does."""
        return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode(
            "utf-8", "backslashreplace"
        )


def kind_of(error: Exception) -> Kind:
    """Return the kind of problem that an error is: that of its nearest class in `PROBLEMS`."""
    return next(PROBLEMS[c] for c in type(error).__mro__ if c in PROBLEMS)


def install(app: FastAPI) -> None:
    """Make every error of the app a problem."""
    app.add_exception_handler(AppError, app_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(OSError, _system)
    app.add_exception_handler(MemoryError, _system)
    app.add_exception_handler(RuntimeError, _system)  # torch's, for a GPU's memory
    app.add_exception_handler(OperationalError, _system)
    app.add_exception_handler(PoolTimeout, _system)
    app.add_exception_handler(StoreError, _system)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _bug)


def app_error(request: Request, error: Exception) -> JSONResponse:
    """The problem of one of our own errors."""
    assert isinstance(error, AppError)
    kind = kind_of(error)
    if kind.status >= 500:
        import structlog  # loads rich

        structlog.get_logger().error(kind.slug, path=request.url.path, detail=error.detail)
    issues = getattr(error, "issues", ())
    return problem(
        request, kind, error.detail, issues=issues, headers=error.headers, extra=error.extra
    )


def _validation_error(request: Request, error: Exception) -> JSONResponse:
    """FastAPI's own validation, without the input, which may be large or secret."""
    assert isinstance(error, RequestValidationError)
    all_issues = [_to_issue(e, error.body) for e in error.errors()]
    issues = list({(f.part, f.pointer): f for f in reversed(all_issues)}.values())[::-1]
    detail = "; ".join(f"{f.part}{f.pointer}: {f.detail}" for f in issues[:3])
    return problem(request, kind_of(error), detail, issues=issues)


_CLEARER_TEXTS = {
    "missing": ("it is missing", "add it"),
    "extra_forbidden": ("there is no such field", "remove it, or correct its name: see /docs"),
    "model_attributes_type": ("it should be a JSON object", 'write it in this form: {"name": …}'),
    "union_tag_not_found": ("it names no kind", "see /docs"),
    "union_tag_invalid": ("its {discriminator} must be one of {expected_tags}", "see /docs"),
}


def _to_issue(error: Mapping[str, Any], body: Any) -> ValidationIssue:
    part, *path = error["loc"]
    if error["type"] == "json_invalid":
        why = error.get("ctx", {}).get("error", "syntax error")
        position = path[0] if path else 0
        return ValidationIssue(
            "body", "", f"not JSON from character {position} on: {why}", "check it there"
        )
    if "UploadFile" in error["msg"]:
        return ValidationIssue(
            str(part), _pointer(path), "it should be a file", "-F file=@image.jpg"
        )
    detail = error["msg"].removeprefix("Input ").removeprefix("Value error, ")
    detail, hint = _CLEARER_TEXTS.get(error["type"], (detail, ""))
    detail = detail.format(**error.get("ctx", {})) if hint else detail
    places = _without_tags(path, body) if part == "body" and isinstance(body, dict) else path
    return ValidationIssue(str(part), _pointer(places), detail, hint)


def _pointer(path: Sequence[object]) -> str:
    return "".join("/" + str(p).replace("~", "~0").replace("/", "~1") for p in path)


def _without_tags(path: Sequence[object], body: Any) -> list[object]:
    """Drop the steps of a path that the body does not have.

    Pydantic names the `kind` or `decision` it took, and the types it tried, among the steps.
    """
    kept: list[object] = []
    for step in path:
        if isinstance(body, str) and body == step:
            body = {}  # a kind alone stands for an object
        elif isinstance(body, dict) and step not in (body.get("kind"), body.get("decision")):
            kept.append(step)
            body = body.get(step, {})
        elif isinstance(body, list) and isinstance(step, int):
            kept.append(step)
            body = body[step]
    return kept


def http_error(request: Request, error: Exception) -> JSONResponse:
    """Return the problem of what the framework itself raises.

    No such path, method not allowed, too large, and others.
    """
    assert isinstance(error, HTTPException)
    kinds = {k.status: k for k in PROBLEMS.values() if k.status not in (400, 500)}
    phrase = HTTPStatus(error.status_code).phrase
    fallback = Kind(error.status_code, "", phrase)
    kind = kinds.get(error.status_code, fallback)
    detail, headers = str(error.detail), dict(error.headers or {})
    path = request.url.path
    if error.status_code == 404:
        detail = f"There is nothing at {path!r}; /docs lists what there is."
    elif error.status_code == 405:  # Starlette names the methods of one route alone
        headers["Allow"] = ", ".join(request.app.methods_of(path))
        detail = f"{request.method} is not possible here, only {headers['Allow']}."
    issues = getattr(error, "issues", ())
    return problem(request, kind, detail, issues=issues, headers=headers)


def is_disk_full(error: BaseException) -> bool:
    """Return whether an error, or one that led to it, is a refusal for want of space.

    The refusal may be the system's, the database's or the object store's.
    """
    return any(
        sapnet_errors.is_disk_full(one) or _database_is_full(one) or _store_is_full(one)
        for one in sapnet_errors.chain_of(error)
    )


def _database_is_full(error: BaseException) -> bool:
    """SQLAlchemy keeps the driver's own error as `orig`."""
    own = getattr(error, "orig", None) or error
    sqlite_full = getattr(own, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return sqlite_full or getattr(own, "sqlstate", None) == _POSTGRES_DISK_FULL


def _store_is_full(error: BaseException) -> bool:
    """Errors of obstore have no code, only the text of the system's error or of the answer."""
    if not isinstance(error, StoreError):
        return False
    codes = {int(code) for code in re.findall(r"\(os error (\d+)\)", str(error))}
    return bool(codes & sapnet_errors.DISK_FULL_ERRNOS) or "507 Insufficient" in str(error)


def _system(request: Request, error: Exception) -> JSONResponse:
    """Answer what is no bug of ours: a full disk, no memory, a busy database.

    What else the system refused may be one.
    """
    if is_disk_full(error):
        return app_error(request, DiskFull())
    if sapnet_errors.is_out_of_memory(error):
        detail = "There is not enough memory at the moment, as other work holds it. Ask again soon."
        return app_error(request, Unavailable(detail, headers={"Retry-After": "5"}))
    if _database_is_busy(error):
        detail = "The database does not answer at the moment; the same request may do later."
        return app_error(request, Unavailable(detail, headers={"Retry-After": "5"}))
    raise error


def _database_is_busy(error: BaseException) -> bool:
    """Locked for longer than was waited, out of connections, restarting, or not to be reached."""
    if isinstance(error, PoolTimeout):
        return True
    if not isinstance(error, OperationalError):
        return False
    if isinstance(error.orig, sqlite3.Error):
        code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF  # without what extends it
        return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    state = getattr(error.orig, "sqlstate", None)
    return state is None or state.startswith(_POSTGRES_BUSY)


def _gone(request: Request, error: Exception) -> JSONResponse:
    """Nobody reads this answer; it is here so that the log holds no traceback."""
    return problem(request, kind_of(error), "The body ended early.")


def _bug(request: Request, error: Exception) -> JSONResponse:
    """Anything else. The traceback goes to the log (Starlette raises it again), never out."""
    if is_disk_full(error):  # in the words of some library
        return app_error(request, DiskFull())
    return problem(request, PROBLEMS[Exception], "An unexpected error; the log has it.")
