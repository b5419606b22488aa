"""A file is there whole or not at all."""

import pytest

from sapnet.utils.files import atomic_write, write_text


def begin_and_fail(path):
    with atomic_write(path) as file:
        file.write(b"half of the n")
        raise RuntimeError


def test_what_was_there_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "new folder" / "a.json"
    write_text(path, "old é")
    with pytest.raises(RuntimeError):
        begin_and_fail(path)
    assert path.read_text(encoding="utf-8") == "old é"
    write_text(path, "new")
    assert path.read_text() == "new"
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]
