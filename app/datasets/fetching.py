"""Images that are fetched, from the web or from S3; each is then checked like one that was sent.

What a user names is not to be trusted: only public addresses are called
(`app.outbound.url_policy`), only buckets that the settings name are read, and size, time, redirects
and kind have limits. What is wrong with one image is said of that image; the others are fetched all
the same.
"""

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import obstore
from obstore.exceptions import BaseError as StoreError
from obstore.store import from_url

from app.datasets.image_collection import ImageFile, ImageFiles, inspect_file
from app.datasets.image_sources import (
    FROM_DOCUMENT,
    ImageHost,
    NotFetched,
    bucket_and_key,
    check_address,
)
from app.datasets.validation import Fetch, ReportProgress
from app.outbound.client import safe_client
from app.outbound.url_policy import AddressRefused
from app.settings import Settings
from app.storage.store import CHUNK
from sapnet.data.annotations.coco import PointDocument
from sapnet.data.file_names import relative
from sapnet.utils.files import file_sha256

_TRIES = 3
_REQUEST_SECONDS = 5.0  # after which a failure is final where a request waits for the image
_PAUSE = 0.5  # seconds before the second, doubled before the third
_REDIRECTS = 3
_TOGETHER = 64  # images a client fetches, whose connections do not live longer than one may take
_KINDS = ("image/", "application/octet-stream", "binary/octet-stream")
_AGAIN = (408, 425, 429, 500, 502, 503, 504)


def fetcher(settings: Settings, url: str, host: ImageHost | None = None) -> Fetch:
    """Return a function that fetches a document's images.

    Those that are there from an attempt before are not fetched again.

    Args:
        url: the folder below which the images are, or `FROM_DOCUMENT` for the addresses in the
            document.
        host: the server of relative addresses, asked with its credentials.
    """

    def fetch(document: PointDocument, folder: Path, report_progress: ReportProgress) -> ImageFiles:
        image_files = ImageFiles()
        target = folder / "fetched"
        target.mkdir(exist_ok=True)
        wanted = [
            (
                image.file_name,
                _absolute(host, address or _below(url, image.file_name)),
                target / str(index),
            )
            for index, image, address in zip(
                document.image_indices,
                document.images,
                document.addresses if url == FROM_DOCUMENT else [None] * len(document.images),
                strict=True,
            )
        ]
        for start in range(0, len(wanted), _TOGETHER):
            _fetch_some(settings, wanted[start : start + _TOGETHER], image_files, host)
            report_progress("images", min(start + _TOGETHER, len(wanted)), len(wanted))
        return image_files

    return fetch


def _fetch_some(
    settings: Settings,
    wanted: Iterable[tuple[str, str, Path]],
    image_files: ImageFiles,
    host: ImageHost | None,
) -> None:
    with _client(settings, host) as client, ThreadPoolExecutor(settings.fetch_connections) as pool:
        futures = {
            pool.submit(_image_file, settings, client, address, path, host): name
            for name, address, path in wanted
        }
        for future in as_completed(futures):
            image_files.by_name[futures[future]] = future.result()


def fetch_all(
    settings: Settings, wanted: Mapping[Path, str], report_progress: ReportProgress
) -> dict[Path, str]:
    """Fetch each address into its file, unless that is there already.

    Returns:
        The reason, in plain words, for each file that could not be fetched.
    """
    refused: dict[Path, str] = {}
    items = list(wanted.items())
    for start in range(0, len(items), _TOGETHER):
        some = [(path, url) for path, url in items[start : start + _TOGETHER] if not path.exists()]
        with _client(settings) as client, ThreadPoolExecutor(settings.fetch_connections) as pool:
            futures = {pool.submit(_fetch, settings, client, url, path): path for path, url in some}
            for future in as_completed(futures):
                try:
                    future.result()
                except NotFetched as error:
                    refused[futures[future]] = str(error)
        report_progress("fetch", min(start + _TOGETHER, len(items)), len(items))
    return refused


def fetch_one(settings: Settings, address: str, path: Path, host: ImageHost | None = None) -> None:
    """Fetch into `path`, for a request that waits for it: what failed late is not tried again.

    Args:
        host: the server of a relative address, asked with its credentials.

    Raises:
        NotFetched: the image could not be had.
    """
    with _client(settings, host) as client:
        _fetch(settings, client, _absolute(host, address), path, host, patience=_REQUEST_SECONDS)


def _absolute(host: ImageHost | None, address: str) -> str:
    return address if host is None else host.absolute(address)


def _client(settings: Settings, host: ImageHost | None = None) -> httpx2.Client:
    client = safe_client(
        allow_private=settings.import_private_addresses,
        trusted=[host.endpoint] if host is not None and host.named else (),
        timeout=min(10.0, settings.fetch_timeout_seconds),
        lifetime=settings.fetch_timeout_seconds,
    )
    client.max_redirects = _REDIRECTS
    return client


def _image_file(
    settings: Settings, client: httpx2.Client, address: str, path: Path, host: ImageHost | None
) -> ImageFile:
    try:
        if not path.exists():
            _fetch(settings, client, address, path, host)
    except NotFetched as error:
        where = f"from {address[:300]}: " if address else ""
        return ImageFile(address, path, "", f"it could not be fetched {where}{error}")
    inspection = inspect_file(path, settings.max_image_pixels)
    return ImageFile(address, path, file_sha256(path), inspection)


def _fetch(
    settings: Settings,
    client: httpx2.Client,
    address: str,
    path: Path,
    host: ImageHost | None = None,
    patience: float = float("inf"),
) -> None:
    """Fetch into `path`, whole or not at all.

    Args:
        patience: seconds until which a failure that may pass is tried again.

    Raises:
        NotFetched: the image could not be had.
    """
    began = time.monotonic()
    if not address:
        raise NotFetched("the document names no coco_url and no url for it")
    check_address(settings, address, host)
    get = _from_bucket if address.startswith("s3://") else _from_web
    part = path.with_suffix(".part")
    for attempt in range(_TRIES):
        try:
            with part.open("wb") as file:
                for chunk in get(settings, client, address, host):
                    file.write(chunk)
                    if file.tell() > settings.max_fetch_bytes:
                        raise NotFetched(f"it has more than {settings.max_fetch_bytes:,} bytes")
            part.rename(path)
            return
        except NotFetched as error:
            part.unlink()
            late = time.monotonic() - began > patience
            if not error.again or attempt == _TRIES - 1 or late:
                raise
            time.sleep(_PAUSE * 2**attempt)


def _from_web(
    settings: Settings, client: httpx2.Client, address: str, host: ImageHost | None
) -> Iterable[bytes]:
    deadline = time.monotonic() + settings.fetch_timeout_seconds
    headers = {"Accept": "image/*, */*;q=0.5", "Accept-Encoding": "identity"}
    if host is not None and host.owns(address) and (credentials := host.authorization()):
        headers["Authorization"] = credentials  # which httpx2 leaves out of a redirect elsewhere
    try:
        with client.stream("GET", address, headers=headers, follow_redirects=True) as answer:
            _check_answer(settings, answer)
            for chunk in answer.iter_raw(CHUNK):
                if time.monotonic() > deadline:
                    raise NotFetched(f"it took more than {settings.fetch_timeout_seconds:g} s")
                yield chunk
    except AddressRefused as error:
        raise NotFetched(str(error)) from error
    except httpx2.TooManyRedirects as error:
        raise NotFetched(f"it redirects more than {_REDIRECTS} times") from error
    except (httpx2.HTTPError, httpx2.InvalidURL, UnicodeError) as error:
        raise NotFetched(str(error) or type(error).__name__, again=True) from error


def _check_answer(settings: Settings, answer: httpx2.Response) -> None:
    status = answer.status_code
    if status != 200:
        raise NotFetched(f"the answer is {status}", again=status in _AGAIN)
    kind = answer.headers.get("content-type", _KINDS[-1]).split(";")[0].strip().lower()
    if not kind.startswith(_KINDS):
        raise NotFetched(f"it is {kind[:50]}, no image")
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise NotFetched("it comes compressed, although that was not asked for")
    length = answer.headers.get("content-length", "")
    if length.isdecimal() and int(length) > settings.max_fetch_bytes:
        raise NotFetched(f"it has more than {settings.max_fetch_bytes:,} bytes")


def _from_bucket(
    settings: Settings, _client: httpx2.Client, address: str, _host: ImageHost | None
) -> Iterable[bytes]:
    bucket, key = bucket_and_key(address)
    deadline = time.monotonic() + settings.fetch_timeout_seconds
    try:
        for chunk in obstore.get(_store(bucket), key).stream(min_chunk_size=CHUNK):
            if time.monotonic() > deadline:
                raise NotFetched(f"it took more than {settings.fetch_timeout_seconds:g} s")
            yield bytes(chunk)
    except FileNotFoundError as error:
        raise NotFetched("there is no such object") from error
    except (StoreError, OSError, ValueError) as error:
        raise NotFetched(str(error).splitlines()[0][:200], again=True) from error


def _below(url: str, file_name: str) -> str:
    if url == FROM_DOCUMENT:
        return ""
    path = relative(file_name)
    return f"{url.rstrip('/')}/{path if url.startswith('s3://') else quote(path)}"


@cache
def _store(bucket: str) -> Any:
    return from_url(f"s3://{bucket}")
