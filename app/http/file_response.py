"""Answers that are stored files: ETag, If-None-Match, Range and HEAD."""

from fastapi import Request, Response
from fastapi.responses import FileResponse
from starlette import responses

from app.errors import RangeNotSatisfiable
from app.storage.store import Storage

IMMUTABLE = "private, max-age=31536000, immutable"


class _StoredFile(FileResponse):
    """Starlette's, which knows Range and If-Range, with our own answer to a bad range."""

    @classmethod
    def _parse_range_header(cls, http_range: str, file_size: int) -> list[tuple[int, int]]:
        try:
            return super()._parse_range_header(http_range, file_size)
        except responses.RangeNotSatisfiable:
            raise RangeNotSatisfiable(file_size) from None
        except responses.MalformedRangeHeader:
            return []  # as if there were none: RFC 9110, 14.2


def blob_response(
    request: Request,
    storage: Storage,
    sha: str,
    *,
    media_type: str,
    filename: str | None = None,
    immutable: bool = True,
) -> Response:
    """Return a response with a blob, whole or by Range. Its digest is its ETag.

    Args:
        filename: makes it a download by that name.
        immutable: whether the address always names this blob.

    Raises:
        BlobMissing: storage does not have it.
        RangeNotSatisfiable: the blob has no such bytes.
    """
    headers = {"ETag": f'"{sha}"', "Cache-Control": IMMUTABLE if immutable else "no-cache"}
    if _matches(request.headers.get("if-none-match"), sha):
        return Response(status_code=304, headers=headers)
    path = storage.local_path(sha)
    return _StoredFile(path, headers=headers, media_type=media_type, filename=filename)


def _matches(if_none_match: str | None, sha: str) -> bool:
    tags = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    return "*" in tags or f'"{sha}"' in tags
