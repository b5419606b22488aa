"""What the service says when it refuses."""

from typing import Any


def problem(answer: Any, status: int) -> dict[str, Any]:
    kind = answer.headers["content-type"]
    assert (answer.status_code, kind) == (status, "application/problem+json"), answer.text
    body: dict[str, Any] = answer.json()
    return body


def pointers(answer: Any) -> list[str]:
    return [e["pointer"] for e in problem(answer, 422)["errors"]]
