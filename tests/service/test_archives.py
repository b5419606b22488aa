"""Archives that a stranger made."""

import contextlib
import gzip
import io
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.datasets.archives import (
    RATIO_FROM,
    ArchiveProblem,
    Limits,
    Member,
    is_archive,
    is_large,
    members,
)

LIMITS = Limits(files=100, size=100 * 2**20, ratio=200)


def read(path: Path, limits: Limits = LIMITS) -> dict[str, bytes]:
    return {m.name: b"".join(m.chunks()) for m in members(path, limits)}


def outcome(path: Path) -> dict[str, bytes] | str:
    """What was read, or why it was not."""
    try:
        return read(path)
    except ArchiveProblem as problem:
        return str(problem)


def make_zip(path: Path, *entries: tuple[zipfile.ZipInfo | str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for info, data in entries:
            archive.writestr(info, data)
    return path


def make_tar(path: Path, *entries: tuple[tarfile.TarInfo | str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for info, data in entries:
            if isinstance(info, str):
                info = tarfile.TarInfo(info)
            if info.isreg():
                info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_plain_ones(tmp_path: Path, kind: str) -> None:
    entries = [
        ("a.png", b"1"),
        ("./b/c.png", b"2" * 3_000_000),
        ("b\\d.png", b""),
        ("__MACOSX/a.png", b"x"),
        (".git/a.png", b"x"),
        ("b/.DS_Store", b"x"),
    ]
    path = tmp_path / "archive"
    if kind == "zip":
        make_zip(path, *entries)
    else:
        make_tar(path, *entries, mode="w:gz" if kind == "tar.gz" else "w")
    assert is_archive(path)
    assert read(path) == {"a.png": b"1", "b/c.png": b"2" * 3_000_000, "b/d.png": b""}


def test_members_that_nobody_reads_are_passed_over(tmp_path: Path) -> None:
    entries = [(f"{i}.png", bytes([i]) * 5_000) for i in range(4)]
    for path in (make_zip(tmp_path / "a", *entries), make_tar(tmp_path / "b", *entries)):
        got = [b"".join(m.chunks()) for m in members(path, LIMITS) if m.name == "2.png"]
        assert got == [b"\2" * 5_000]


def test_empty_archives_hold_nothing(tmp_path: Path) -> None:
    assert read(make_zip(tmp_path / "a")) == {}
    assert read(make_tar(tmp_path / "b")) == {}


@pytest.mark.parametrize("name", ["/etc/passwd", "../up.png", "a/../../up.png", "C:\\x.png"])
def test_names_that_leave_the_folder(tmp_path: Path, name: str) -> None:
    for path in (
        make_zip(tmp_path / "a", (name, b"x")),
        make_tar(tmp_path / "b", (name, b"x")),
    ):
        with pytest.raises(ArchiveProblem, match="leaves the folder"):
            read(path)


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_of_tar(tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo("a.png")
    info.type, info.linkname = kind, "/etc/passwd"
    with pytest.raises(ArchiveProblem, match="link"):
        read(make_tar(tmp_path / "a", (info, b"")))


def test_links_of_zip(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("a.png")
    info.create_system, info.external_attr = 3, 0o120777 << 16
    with pytest.raises(ArchiveProblem, match="link"):
        read(make_zip(tmp_path / "a", (info, b"/etc/passwd")))


def test_encrypted_zip(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a", ("a.png", b"x"))
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    data[6] |= 1
    path.write_bytes(data)
    with pytest.raises(ArchiveProblem, match="encrypted"):
        read(path)


def test_too_many_files(tmp_path: Path) -> None:
    entries = [(f"{i}.png", b"") for i in range(101)]
    for path in (make_zip(tmp_path / "a", *entries), make_tar(tmp_path / "b", *entries)):
        with pytest.raises(ArchiveProblem, match="100 files"):
            read(path)


@pytest.mark.slow
def test_too_many_bytes_and_bombs(tmp_path: Path) -> None:
    bomb = [("a.png", bytes(RATIO_FROM + 1))]
    for path in (
        make_zip(tmp_path / "a", *bomb),
        make_tar(tmp_path / "b", *bomb, mode="w:gz"),
    ):
        with pytest.raises(ArchiveProblem, match="200 times"):
            read(path)
        with pytest.raises(ArchiveProblem, match="more than 5,000 bytes"):
            read(path, Limits(files=100, size=5_000, ratio=1e9))


def test_a_bomb_in_a_member_that_nobody_reads(tmp_path: Path) -> None:
    """To skip a member of a packed tar is to unpack it."""
    path = make_tar(tmp_path / "a", ("bomb", bytes(RATIO_FROM + 1)), ("a", b""), mode="w:gz")
    with pytest.raises(ArchiveProblem, match="200 times"):
        list(members(path, LIMITS))


@pytest.mark.slow
def test_a_bomb_in_a_header(tmp_path: Path) -> None:
    """Names in tar headers are read into memory: 50 MB of one must not be."""
    info = tarfile.TarInfo("x" * 50_000_000)
    path = tmp_path / "a"
    path.write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024), 1))
    with pytest.raises(ArchiveProblem, match="header of more than"):
        read(path)


@pytest.mark.slow
def test_sizes_in_headers_are_not_believed(tmp_path: Path) -> None:
    """A zip whose entry says it has 1 byte and unpacks to 20 MiB."""
    path = make_zip(tmp_path / "a", ("a.png", bytes(20 * 2**20)))
    data = bytearray(path.read_bytes())
    for magic, offset in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        struct.pack_into("<I", data, data.index(magic) + offset, 1)
    path.write_bytes(data)
    with pytest.raises(ArchiveProblem, match="damaged"):
        read(path)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["a.png", ".hidden", "folder/"])
@pytest.mark.parametrize("size", [10**6, 10**12, 2**70])
def test_members_that_claim_to_be_endless(
    tmp_path: Path, size: int, name: str, packed: bool
) -> None:
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
    info.pax_headers = {"size": str(size)}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info)
        archive.addfile(tarfile.TarInfo("b.png"))
    path = tmp_path / "a.tar"
    path.write_bytes(gzip.compress(buffer.getvalue()) if packed else buffer.getvalue())
    assert not is_large(path, LIMITS)  # its members are not read
    assert name == "folder/" or "damaged" in outcome(path)
    assert sum(1 for _ in passed_over(path)) <= 1


def passed_over(path: Path) -> Iterator[Member]:
    """The members, none of which is read."""
    with contextlib.suppress(ArchiveProblem):
        yield from members(path, LIMITS)


def test_overlapping_entries(tmp_path: Path) -> None:
    """Two names for the same packed bytes (David Fifield's better zip bomb, in small)."""
    path = make_zip(tmp_path / "a", ("a.png", bytes(1_000_000)))
    data = path.read_bytes()
    start, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    entry, tail = data[start:end], bytearray(data[end:])
    struct.pack_into("<HHI", tail, 8, 50, 50, 50 * len(entry))
    path.write_bytes(data[:start] + 50 * entry + tail)
    with zipfile.ZipFile(path) as archive:
        assert len(archive.infolist()) == 50
    with pytest.raises(ArchiveProblem, match="overlap"):
        read(path)


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize("keep", [0.2, 0.6, 0.95])
def test_cut_off(tmp_path: Path, kind: str, keep: float) -> None:
    import random

    noise = random.Random(0).randbytes(50_000)
    entries = [("a.png", noise), ("b.png", noise)]
    path = tmp_path / "archive"
    if kind == "zip":
        make_zip(path, *entries)
    else:
        make_tar(path, *entries, mode="w:gz" if kind == "tar.gz" else "w")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    assert "damaged" in outcome(path)


@pytest.mark.parametrize("data", [b"", b"x", b"PK\3\4", b"\x1f\x8b" + b"x" * 99])
def test_no_archives(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(data)
    assert "damaged" in outcome(path)


def test_what_is_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for data in (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM" + bytes(300)):
        path.write_bytes(data)
        assert not is_archive(path)


def test_names_in_utf8_that_do_not_say_so(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a", ("ä.png", b"1"))
    data = bytearray(path.read_bytes())
    data[7] &= ~0x08
    data[data.index(b"PK\1\2") + 9] &= ~0x08
    path.write_bytes(data)
    assert read(path) == {"ä.png": b"1"}


def test_dates_that_no_zip_and_no_calendar_has(tmp_path: Path) -> None:
    """Before 1980 there are none in a zip, but a month of 0; nobody reads them here."""
    zipped, tarred = tmp_path / "a.zip", tmp_path / "a.tar"
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("a.png", b"image")
    raw = zipped.read_bytes()
    for signature, at in ((b"PK\x03\x04", 10), (b"PK\x01\x02", 12)):
        place = raw.index(signature) + at
        raw = raw[:place] + bytes(4) + raw[place + 4 :]
    zipped.write_bytes(raw)
    with tarfile.open(tarred, "w", format=tarfile.GNU_FORMAT) as archive:
        info = tarfile.TarInfo("a.png")
        info.size, info.mtime = 5, -(2**40)
        archive.addfile(info, io.BytesIO(b"image"))
    for path in (zipped, tarred):
        assert read(path) == {"a.png": b"image"}
