import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

from sapnet.proposals.bags import make_bags
from sapnet.proposals.store import ProposalStore, key_of
from sapnet.types import Bag, ImageInfo, PointAnnotation, RawProposals

from .conftest import Fixed, disc, points


def bags_of(seed: int, count: int = 2) -> list[Bag]:
    rng = np.random.default_rng(seed)
    size = (30, 40)
    at = points(*[(20.5, 15.5)] * count)
    raws = [
        RawProposals(
            np.array([disc(size, 20.5, 15.5, r) for r in rng.uniform(2, 12, 5)]),
            rng.random(5).astype(np.float32),
            ("a", "b", "c", "d", "é"),
        )
        for _ in at
    ]
    return make_bags(Fixed(*raws), np.zeros((*size, 3), np.uint8), ImageInfo(1, "a", 40, 30), at)


def same(one: list[Bag] | None, two: list[Bag]) -> bool:
    assert one is not None
    return len(one) == len(two) and all(
        a.annotation_id == b.annotation_id
        and a.masks == b.masks
        and a.sources == b.sources
        and all(
            getattr(a, name).dtype == np.float32
            and np.array_equal(getattr(a, name), getattr(b, name))
            for name in ("boxes", "confidence", "overlaps")
        )
        for a, b in zip(one, two, strict=True)
    )


def key(i: int) -> str:
    return f"{i:064x}"


def shards(root: Path) -> list[Path]:
    return sorted(root.glob("*.bags"))


def test_round_trip_and_reopen(tmp_path: Path) -> None:
    store = ProposalStore(tmp_path)
    assert store.get(key(0)) is None
    for i in range(5):
        store.put(key(i), bags_of(i))
    store.put(key(9), [])
    for reader in (store, ProposalStore(tmp_path)):
        assert len(reader) == 6
        assert all(same(reader.get(key(i)), bags_of(i)) for i in range(5))
        assert reader.get(key(9)) == []
        assert key(9) in reader
        assert key(77) not in reader


def test_a_second_put_changes_nothing(tmp_path: Path) -> None:
    store = ProposalStore(tmp_path)
    store.put(key(1), bags_of(1))
    size = shards(tmp_path)[0].stat().st_size
    ProposalStore(tmp_path).put(key(1), bags_of(2))
    assert shards(tmp_path)[0].stat().st_size == size
    assert same(store.get(key(1)), bags_of(1))


def test_shards_hold_many_images_and_then_a_new_one_begins(tmp_path: Path) -> None:
    store = ProposalStore(tmp_path, shard_bytes=4000)
    for i in range(12):
        store.put(key(i), bags_of(i))
    assert 1 < len(shards(tmp_path)) < 12
    reader = ProposalStore(tmp_path, shard_bytes=4000)
    assert all(same(reader.get(key(i)), bags_of(i)) for i in range(12))


def test_an_open_reader_sees_what_another_writes(tmp_path: Path) -> None:
    reader, writer = ProposalStore(tmp_path), ProposalStore(tmp_path)
    writer.put(key(1), bags_of(1))
    assert same(reader.get(key(1)), bags_of(1))


def test_a_torn_tail_is_cut_wherever_it_was_torn(tmp_path: Path) -> None:
    store = ProposalStore(tmp_path / "whole")
    store.put(key(0), bags_of(0))
    first = shards(store.root)[0].stat().st_size
    store.put(key(1), bags_of(1))
    content = shards(store.root)[0].read_bytes()
    for cut in (first, first + 1, first + 47, first + 48, first + 200, len(content) - 1):
        root = tmp_path / f"cut{cut}"
        root.mkdir()
        (root / "shard-00000.bags").write_bytes(content[:cut])
        torn = ProposalStore(root)
        assert same(torn.get(key(0)), bags_of(0))
        assert torn.get(key(1)) is None
        torn.put(key(1), bags_of(1))
        assert (root / "shard-00000.bags").read_bytes() == content


def test_damage_inside_is_noticed_and_repaired(tmp_path: Path) -> None:
    store = ProposalStore(tmp_path)
    for i in range(3):
        store.put(key(i), bags_of(i))
    shard = shards(tmp_path)[0]
    content = bytearray(shard.read_bytes())
    content[80] ^= 0xFF  # in the payload of the first record
    shard.write_bytes(content)
    damaged = ProposalStore(tmp_path)
    assert damaged.get(key(0)) is None
    assert same(damaged.get(key(2)), bags_of(2))
    damaged.put(key(0), bags_of(0))
    assert same(ProposalStore(tmp_path).get(key(0)), bags_of(0))


@pytest.mark.slow
def test_threads_and_stores_share_a_folder(tmp_path: Path) -> None:
    def write(part: int) -> None:
        store = ProposalStore(tmp_path, shard_bytes=20_000)
        for i in range(8):
            store.put(key(part * 4 + i), bags_of(part * 4 + i))  # half of them are another's too

    threads = [threading.Thread(target=write, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store = ProposalStore(tmp_path)
    assert len(store) == 20
    assert all(same(store.get(key(i)), bags_of(i)) for i in range(20))


@pytest.mark.slow
def test_a_killed_writer_loses_at_most_the_image_it_was_at(tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import sys
        import numpy as np
        from sapnet.proposals.store import ProposalStore
        from sapnet.types import Bag
        store = ProposalStore(sys.argv[1])
        ones = np.ones((1, 4), np.float32)
        rle = {"size": [9, 9], "counts": "x" * 300_000}
        bag = Bag(7, ones, (rle,), ones[0, :1], ("sam",), ones[:, :1])
        for i in range(1_000_000):
            store.put(f"{i:064x}", [bag])
            print(i, flush=True)
    """)
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(40):
            process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
        written = 40 + len(process.stdout.read().split())
    store = ProposalStore(tmp_path)
    assert written <= len(store) <= written + 1
    for i in range(written):
        bags = store.get(key(i))
        assert bags is not None
        assert len(bags[0].masks[0]["counts"]) == 300_000
    store.put(key(10**6), bags_of(0))
    assert same(ProposalStore(tmp_path).get(key(10**6)), bags_of(0))


@pytest.mark.parametrize(
    ("sha", "at", "fingerprint", "limit"),
    [
        ("b", ((1, 2), (3, 4)), "f", 16),
        ("a", ((1, 2.5), (3, 4)), "f", 16),
        ("a", ((3, 4), (1, 2)), "f", 16),
        ("a", ((1, 2),), "f", 16),
        ("a", ((1, 2), (3, 4)), "g", 16),
        ("a", ((1, 2), (3, 4)), "f", 8),
    ],
)
def test_every_part_counts_in_the_key(
    sha: str, at: tuple[tuple[float, float], ...], fingerprint: str, limit: int
) -> None:
    base = key_of("a", points((1, 2), (3, 4)), "f", 16)
    assert key_of(sha, points(*at), fingerprint, limit) != base


def test_classes_do_not_count_in_the_key_and_ids_do() -> None:
    def one(id_: int, category: int) -> str:
        return key_of("a", [PointAnnotation(id_, 1, category, 2.0, 3.0)], "f")

    assert one(1, 1) == one(1, 2)
    assert one(1, 1) != one(2, 1)


def test_what_one_store_exports_another_takes_in(tmp_path: Path) -> None:
    one, two = ProposalStore(tmp_path / "one"), ProposalStore(tmp_path / "two")
    for i in range(5):
        one.put(key(i), bags_of(i))
    two.put(key(1), bags_of(1))
    one.export([key(3), key(1), key(3), key(0)], tmp_path / "some.bags")
    assert two.merge(tmp_path / "some.bags") == 2
    assert two.merge(tmp_path / "some.bags") == 0
    for reader in (two, ProposalStore(tmp_path / "two")):
        assert len(reader) == 3
        assert all(same(reader.get(key(i)), bags_of(i)) for i in (0, 1, 3))
    with pytest.raises(KeyError):
        two.export([key(4)], tmp_path / "none.bags")
    assert not (tmp_path / "none.bags").exists()


def test_a_damaged_record_is_not_taken_in(tmp_path: Path) -> None:
    one, two = ProposalStore(tmp_path / "one"), ProposalStore(tmp_path / "two")
    for i in range(3):
        one.put(key(i), bags_of(i))
    file = tmp_path / "all.bags"
    one.export(map(key, range(3)), file)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert two.merge(file) == 2
    assert [two.get(key(i)) is None for i in range(3)] == [False, True, False]
    file.write_bytes(content[:-5])
    assert ProposalStore(tmp_path / "three").merge(file) == 1


def test_a_merge_keeps_to_the_size_of_a_shard(tmp_path: Path) -> None:
    one = ProposalStore(tmp_path / "one")
    for i in range(4):
        one.put(key(i), bags_of(i))
    one.export(map(key, range(4)), tmp_path / "all.bags")
    two = ProposalStore(tmp_path / "two", shard_bytes=1)
    assert two.merge(tmp_path / "all.bags") == 4
    assert len(shards(tmp_path / "two")) == 4
