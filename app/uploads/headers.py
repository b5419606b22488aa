"""The headers of tus, read and written. What is not as the protocol has it raises BadHeader."""

import base64
import binascii
import hashlib
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from typing import Any

from app.db.models import Upload
from app.errors import BadHeader

VERSION = "1.0.0"
EXTENSIONS = "creation,checksum,expiration,termination"
BODY = "application/offset+octet-stream"
ALGORITHMS = ("sha256", "sha1", "md5")
MAX_METADATA = 4_096


@dataclass(frozen=True)
class Checksum:
    """What the bytes of one request are said to hash to."""

    algorithm: str
    digest: bytes

    def new(self) -> Any:
        """Return a new hash object of the algorithm."""
        return hashlib.new(self.algorithm, usedforsecurity=False)


def read_checksum(text: str | None) -> Checksum | None:
    """Read an Upload-Checksum header, such as `sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=`; None for none.

    Raises:
        BadHeader: it is not of this form, or names an unknown algorithm.
    """
    if text is None:
        return None
    algorithm, _, digest = text.strip().partition(" ")
    if algorithm not in ALGORITHMS:
        raise BadHeader(
            f"Upload-Checksum: {algorithm[:20]!r} is not known, only {', '.join(ALGORITHMS)}."
        )
    checksum = Checksum(algorithm, _from_base64(digest.strip(), "Upload-Checksum"))
    if len(checksum.digest) != checksum.new().digest_size:
        raise BadHeader(f"Upload-Checksum: {len(checksum.digest)} bytes are no {algorithm}.")
    return checksum


def read_filename(metadata: str) -> str:
    """The `filename` (or `name`) in `filename d29ybGQuemlw,is_confidential`; "" for none."""
    if len(metadata) > MAX_METADATA:
        raise BadHeader(f"Upload-Metadata: at most {MAX_METADATA:,} characters are taken.")
    fields: dict[str, str] = {}
    for pair in metadata.split(",") if metadata.strip() else ():
        key, _, value = pair.strip().partition(" ")
        if not key or not key.isascii() or key in fields:
            raise BadHeader("Upload-Metadata: each key is ASCII, not empty, and comes once.")
        raw = _from_base64(value.strip(), "Upload-Metadata")
        fields[key] = raw.decode("utf-8", "replace")
    name = fields.get("filename") or fields.get("name") or ""
    return name if name.isprintable() else ""


def of_upload(upload: Upload) -> dict[str, str]:
    """What every answer about an upload says."""
    headers = {
        "Upload-Offset": str(upload.received),
        "Upload-Length": str(upload.length),
        "Upload-Expires": http_date(upload.expires_at),
        "Cache-Control": "no-store",
    }
    return headers | ({"Upload-Metadata": upload.about} if upload.about else {})


def http_date(moment: datetime) -> str:
    """Return a moment as HTTP's headers have it."""
    return format_datetime(moment, usegmt=True)


def _from_base64(text: str, header: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadHeader(f"{header}: it is not base64 ({error}).") from error
