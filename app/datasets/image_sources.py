"""Which addresses images may be fetched from, as far as their text tells.

`app.datasets.fetching` fetches them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from app.errors import ValidationIssue
from app.outbound.url_policy import AddressRefused, check_url
from app.settings import Settings

FROM_DOCUMENT = "document"
HINT = (
    "https://host/folder/, s3://bucket/folder/, or 'document' for the images' own coco_url or url"
)


class NotFetched(Exception):
    """Why an image could not be had, in plain words.

    Attributes:
        again: whether it may be had later.
    """

    def __init__(self, why: str, *, again: bool = False) -> None:
        super().__init__(why)
        self.again = again


@dataclass(frozen=True)
class ImageHost:
    """A server of images that is asked with credentials, such as a labelling tool.

    Attributes:
        url: http or https, without a slash at the end; a path is where the server begins.
        named: whether a setting names it; its address may then be private.
        authorization: gives the header's value, or None; asked for each image.
    """

    url: str
    named: bool
    authorization: Callable[[], str | None]

    def absolute(self, address: str) -> str:
        """An address of an image; a relative one is this server's."""
        try:
            if not address or urlsplit(address).scheme:
                return address
        except ValueError:  # it is refused where it is asked for
            return address
        path = urlsplit(self.url).path
        begins = f"{path}/" if path else ""
        relative = address.removeprefix(begins) if begins else address
        return f"{self.url}/{relative.lstrip('/')}"

    def owns(self, address: str) -> bool:
        """Whether an absolute address is of this server: the same scheme, host and port."""
        return _origin(address) == _origin(self.url)

    @property
    def endpoint(self) -> tuple[str, int]:
        """Host and port, as `app.outbound.client` takes them."""
        _, host, port = _origin(self.url)
        return host, port


def _origin(address: str) -> tuple[str, str, int]:
    try:
        parts = urlsplit(address)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    except ValueError:
        return "", "", 0
    return parts.scheme, (parts.hostname or "").rstrip("."), port


def source_issues(settings: Settings, url: str) -> list[ValidationIssue]:
    """Return what is wrong with the address of a form's images, as far as its text tells."""
    if url == FROM_DOCUMENT:
        return []
    try:
        check_address(settings, url)
    except NotFetched as error:
        return [ValidationIssue("images_url", "", f"{url[:200]!r}: {error}", HINT)]
    return []


def check_address(settings: Settings, address: str, host: ImageHost | None = None) -> None:
    """Check that an address may be asked, as far as its text tells.

    Args:
        host: whose images they are, where they are a server's.

    Raises:
        NotFetched: it may not.
    """
    if address.startswith("s3://"):
        bucket, _ = bucket_and_key(address)
        if bucket not in settings.import_buckets:
            raise NotFetched(
                f"the service may not read the bucket {bucket!r}: "
                "SAPNET_IMPORT_BUCKETS names those that it may"
            )
        return
    try:
        named = host is not None and host.named and host.owns(address)
        check_url(address, allow_private=settings.import_private_addresses or named)
    except AddressRefused as error:
        raise NotFetched(str(error)) from error


def bucket_and_key(address: str) -> tuple[str, str]:
    """Split an address of the form s3://bucket/key."""
    bucket, _, key = address.removeprefix("s3://").partition("/")
    return bucket, key
