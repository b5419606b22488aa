"""Download of a file of weights: to a temporary name, checked, then renamed."""

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from sapnet.errors import WeightsUnavailable

TIMEOUT = 30.0
"""Seconds without an answer."""
_BLOCK = 1 << 20


def default_cache_dir() -> Path:
    """The folder of downloads and kept embeddings."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sapnet"


def download(
    url: str,
    path: Path,
    prefix: str,
    otherwise: str,
    report: Callable[[int, int], None] = lambda _done, _of: None,
    max_bytes: int = 8 << 30,
) -> str:
    """Fetch a file, whole and with the sha256 that it should have, or not at all.

    Args:
        url: its address.
        path: where it goes.
        prefix: the first hexadecimal digits of its sha256.
        otherwise: what to do instead, for people.
        report: told the bytes so far, and of how many; 0 where that is not said.
        max_bytes: after which a server that goes on sending is left.

    Returns:
        The whole sha256.

    Raises:
        WeightsUnavailable: there is no network, no such file, or it is another one.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    digest, done = hashlib.sha256(), 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer, partial.open("wb") as file:
            of = int(answer.headers.get("Content-Length") or 0)
            while block := answer.read(_BLOCK):
                digest.update(block)
                done += file.write(block)
                if done > max_bytes:
                    raise WeightsUnavailable(f"{url} has more than {max_bytes:,} bytes")
                report(done, of)
        if done < of:
            raise WeightsUnavailable(f"{url} broke off after {done:,} of {of:,} bytes; {otherwise}")
        if not digest.hexdigest().startswith(prefix):
            raise WeightsUnavailable(
                f"{url} came with sha256 {digest.hexdigest()}, not {prefix}…; {otherwise}"
            )
        partial.rename(path)
    except (OSError, urllib.error.URLError, ValueError) as error:
        raise WeightsUnavailable(f"could not download {url}: {error}; {otherwise}") from error
    finally:
        partial.unlink(missing_ok=True)
    return digest.hexdigest()
