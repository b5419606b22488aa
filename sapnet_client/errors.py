"""What can go wrong between a program and the service. All of it is a `SapnetError`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sapnet_client.types import Dataset, Job

SHOWN = 20
"""So many faults are spelled out in a message; `errors` has them all."""


class SapnetError(Exception):
    """Root of the client's errors."""


class Unreachable(SapnetError):
    """Nobody answers at the address, or the line broke again and again."""


class NotUnderstood(SapnetError):
    """The answer is not one that this version of the client knows."""


class BrokenUpload(SapnetError):
    """An upload that did not come to its end.

    `upload_id` and the bytes received stay for a day: `upload(path, resume=error.upload_id)` goes
    on.
    """

    def __init__(self, upload_id: str, why: Exception) -> None:
        super().__init__(f"The upload {upload_id} broke off; it can be resumed. {why}")
        self.upload_id = upload_id


class JobFailed(SapnetError):
    """The job came to another end than success. `log` is the end of what its trainer wrote."""

    def __init__(self, job: "Job", log: str = "") -> None:
        why = f" ({job.reason})" if job.reason else ""
        what = f": {job.error}" if job.error else "."
        super().__init__(f"The job {job.id} {job.state}{why}{what}\n{log}".rstrip())
        self.job, self.log = job, log


class DatasetInvalid(SapnetError):
    """What was imported is not usable; `dataset.report.errors` lists why."""

    def __init__(self, dataset: "Dataset") -> None:
        issues = [
            ValidationIssue(f.part, f.pointer, f.detail, f.hint) for f in dataset.report.errors
        ]
        super().__init__(f"The data set {dataset.id} is not usable.{_listed(issues)}")
        self.dataset = dataset


class StillRunning(SapnetError, TimeoutError):
    """The time that `wait` was given is over, and the job is not."""


@dataclass(frozen=True, slots=True)
class ValidationIssue:
    """One thing that is wrong with a request: part of it, JSON pointer there, what, and a hint."""

    part: str
    pointer: str
    detail: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.part}{self.pointer}: {self.detail}" + (
            f" → {self.hint}" if self.hint else ""
        )


class Problem(SapnetError):
    """The service refused (RFC 9457).

    Attributes:
        status: of HTTP.
        slug: the stable code, such as "not-found".
        detail: what went wrong, for people.
        errors: everything that is wrong with the request.
        retry_after: seconds after which to try again, where the service says so.
        document: the whole answer.
    """

    def __init__(
        self,
        status: int,
        slug: str,
        detail: str,
        errors: tuple[ValidationIssue, ...] = (),
        retry_after: float | None = None,
        document: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{detail}{_listed(errors)}")
        self.status, self.slug, self.detail = status, slug, detail
        self.errors, self.retry_after, self.document = errors, retry_after, dict(document or {})


class Unauthorized(Problem):
    """401: a key is needed, or this one is no good."""


class Forbidden(Problem):
    """403: the key does not allow this."""


class NotFound(Problem):
    """404: there is no such thing, or it is another owner's."""


class Conflict(Problem):
    """409: not in a state in which this can be done."""


class ChangedMeanwhile(Problem):
    """412: somebody else was quicker; read it again."""


class Invalid(Problem):
    """422: `errors` says what is wrong, where, and how to fix it."""


class TooManyRequests(Problem):
    """429: too often, or more than the quota."""


class Unavailable(Problem):
    """503: the service, or what it needs, cannot answer now."""


_BY_STATUS: dict[int, type[Problem]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    412: ChangedMeanwhile,
    422: Invalid,
    429: TooManyRequests,
    503: Unavailable,
}


def problem(status: int, headers: Mapping[str, str], body: bytes) -> Problem:
    """The exception for an answer of 400 or above, whoever gave it: a proxy sends no problem."""
    try:
        document = json.loads(body)
    except ValueError:
        document = {}
    if not isinstance(document, dict):
        document = {}
    kind = str(document.get("type", ""))
    errors = tuple(
        ValidationIssue(
            *(str(issue.get(name, "")) for name in ("part", "pointer", "detail", "hint"))
        )
        for issue in document.get("errors", ())
        if isinstance(issue, dict)
    )
    return _BY_STATUS.get(status, Problem)(
        status,
        kind.rpartition("/")[2] if "/problems/" in kind else "",
        str(document.get("detail") or f"{status} {_phrase(status)}"),
        errors,
        _seconds(headers.get("retry-after")),
        document,
    )


def _listed(issues: tuple[ValidationIssue, ...] | list[ValidationIssue]) -> str:
    more = [f"… and {len(issues) - SHOWN} more"] if len(issues) > SHOWN else []
    return "".join(f"\n  {line}" for line in [*map(str, issues[:SHOWN]), *more])


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "(no HTTP status that is known)"


def _seconds(retry_after: str | None) -> float | None:
    """Of the header Retry-After: seconds, or a date (RFC 9110, 10.2.3)."""
    if retry_after is None:
        return None
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
