"""The API of a Label Studio: who the service is there, and a project's annotations."""

import base64
import binascii
import json
import threading
import time
from functools import lru_cache
from pathlib import Path

from app.datasets.image_sources import ImageHost
from app.db.models import LabelStudioProject
from app.errors import Unavailable
from app.outbound.url_policy import AddressRefused, check_url
from app.settings import Settings

_ACCESS_SECONDS = 200.0  # of an access token; Label Studio's last five minutes
_TIMEOUT = 20.0  # seconds for connecting, and between two pieces of an answer
_TOKEN_SECONDS, _EXPORT_SECONDS = 20.0, 120.0  # of a whole answer, however it comes
_TOKEN_BYTES = 1 << 16
_FAILED = (AddressRefused, ValueError, KeyError, TypeError, RecursionError)


def host_of(settings: Settings, project: LabelStudioProject) -> ImageHost:
    """Where a project's Label Studio is, with the credentials for it."""
    named = settings.label_studio_url is not None
    url = settings.label_studio_url or project.url
    own = settings.label_studio_token if named else None
    return ImageHost(url, named, _authorization(url, named, own or project.token))


@lru_cache(maxsize=256)
def _authorization(url: str, named: bool, token: str) -> "_Authorization":
    return _Authorization(url, named, token)


class _Authorization:
    """The header's value. A personal access token is exchanged for an access token in between."""

    def __init__(self, url: str, named: bool, token: str) -> None:
        self._host = ImageHost(url, named, lambda: None)
        self._token, self._access, self._until = token, "", 0.0
        self._lock = threading.Lock()

    def __call__(self) -> str | None:
        """Raises Unavailable where Label Studio gives no access token."""
        if not self._token:
            return None
        if not _is_personal(self._token):
            return f"Token {self._token}"
        with self._lock:
            if time.monotonic() >= self._until:
                self._access = self._exchanged()
                self._until = time.monotonic() + _ACCESS_SECONDS
            return f"Bearer {self._access}"

    def _exchanged(self) -> str:
        import httpx2

        url = f"{self._host.url}/api/token/refresh/"
        try:
            with (
                _client(self._host, _TOKEN_SECONDS) as client,
                client.stream("POST", url, json={"refresh": self._token}) as answer,
            ):
                answer.raise_for_status()
                content = b""
                for chunk in answer.iter_bytes():
                    content += chunk
                    if len(content) > _TOKEN_BYTES:
                        raise ValueError("its answer is too long")
            return str(json.loads(content)["access"])
        except httpx2.LocalProtocolError as error:  # its text quotes the header
            raise Unavailable("The token for Label Studio cannot be sent in a header.") from error
        except (*_FAILED, httpx2.HTTPError, httpx2.InvalidURL) as error:
            detail = f"Label Studio takes the personal access token for none: {error}"
            raise Unavailable(detail) from error


def _is_personal(token: str) -> bool:
    """Whether it is a JSON Web Token, as personal access tokens are; legacy ones are hex digits."""
    try:
        head = token.split(".")[0]
        return isinstance(json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4))), dict)
    except (ValueError, binascii.Error, RecursionError):
        return False


def download_annotations(settings: Settings, project: LabelStudioProject, path: Path) -> None:
    """Write the annotated tasks of a project into a file, as Label Studio's JSON export.

    Raises:
        Unavailable: says why they could not be had.
    """
    import httpx2

    host = host_of(settings, project)
    number = project.project.partition(".")[0]
    url = f"{host.url}/api/projects/{number}/export?exportType=JSON"
    try:
        check_url(host.url, allow_private=host.named)
        authorization = host.authorization() or ""
        with (
            _client(host, _EXPORT_SECONDS) as client,
            client.stream("GET", url, headers={"Authorization": authorization}) as answer,
            path.open("wb") as file,
        ):
            if answer.status_code != 200:
                raise Unavailable(_refused(host.url, answer.status_code))
            for chunk in answer.iter_bytes():
                file.write(chunk)
                if file.tell() > settings.max_document_bytes:
                    most = settings.max_document_bytes
                    raise Unavailable(f"The project's annotations have more than {most:,} bytes.")
    except AddressRefused as error:
        hint = "SAPNET_LABEL_STUDIO_URL names a Label Studio whose address is private."
        raise Unavailable(f"Label Studio cannot be asked: {error}. {hint}") from error
    except httpx2.LocalProtocolError as error:  # its text quotes the header
        raise Unavailable("The token for Label Studio cannot be sent in a header.") from error
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        detail = f"Label Studio at {host.url} cannot be asked: {error or type(error).__name__}"
        raise Unavailable(detail) from error


def _refused(url: str, status: int) -> str:
    remedy = ""
    if status in (401, 403):
        remedy = (
            " It takes no legacy tokens unless it is told to: set SAPNET_LABEL_STUDIO_URL and, to "
            "a personal access token, SAPNET_LABEL_STUDIO_TOKEN."
        )
    return f"Label Studio at {url} answers {status} when it is asked for the annotations.{remedy}"


def _client(host: ImageHost, lifetime: float):  # type: ignore[no-untyped-def]
    from app.outbound.client import safe_client

    trusted = [host.endpoint] if host.named else ()
    return safe_client(trusted=trusted, timeout=_TIMEOUT, lifetime=lifetime)
