"""Which addresses images may be fetched from, as far as their text tells.

`app.datasets.fetching` fetches them.
"""

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


def source_issues(settings: Settings, url: str) -> list[ValidationIssue]:
    """Return what is wrong with the address of a form's images, as far as its text tells."""
    if url == FROM_DOCUMENT:
        return []
    try:
        check_address(settings, url)
    except NotFetched as error:
        return [ValidationIssue("images_url", "", f"{url[:200]!r}: {error}", HINT)]
    return []


def check_address(settings: Settings, address: str) -> None:
    """Check that an address may be asked, as far as its text tells.

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
        check_url(address, allow_private=settings.import_private_addresses)
    except AddressRefused as error:
        raise NotFetched(str(error)) from error


def bucket_and_key(address: str) -> tuple[str, str]:
    """Split an address of the form s3://bucket/key."""
    bucket, _, key = address.removeprefix("s3://").partition("/")
    return bucket, key
