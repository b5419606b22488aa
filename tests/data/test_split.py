"""Which images are held out: by content and seed, stable when images are added, groups together."""

import pytest

from sapnet.data.split import hold_out, split_given


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    paths = {}
    for id_ in range(400):
        paths[id_] = folder / f"{id_}.bin"
        paths[id_].write_bytes(b"%d" % id_)
    return paths


def first(files, count):
    return {id_: path for id_, path in files.items() if id_ < count}


def test_a_share_is_held_out_by_the_seed(files):
    held = hold_out(files, share=0.1, at_least=5, seed=0)
    assert 20 < len(held) < 60
    assert held == hold_out(dict(reversed(files.items())), share=0.1, at_least=5, seed=0)
    assert held != hold_out(files, share=0.1, at_least=5, seed=1)
    assert held < hold_out(files, share=0.3, at_least=5, seed=0)


def test_an_image_stays_where_it_is_when_others_are_added(files):
    before = hold_out(first(files, 300), share=0.2, at_least=5, seed=3)
    after = hold_out(files, share=0.2, at_least=5, seed=3)
    assert before == {id_ for id_ in after if id_ < 300}


def test_a_name_and_an_id_have_no_say(files, tmp_path):
    renamed = {}
    for id_, path in files.items():
        renamed[1000 - id_] = tmp_path / f"other-{id_}"
        renamed[1000 - id_].write_bytes(path.read_bytes())
    held = hold_out(files, share=0.1, at_least=5, seed=0)
    assert hold_out(renamed, share=0.1, at_least=5, seed=0) == {1000 - id_ for id_ in held}


@pytest.mark.parametrize("count", [6, 20, 40])
def test_never_fewer_than_asked_nor_all(files, count):
    for seed in range(20):
        held = hold_out(first(files, count), share=0.1, at_least=5, seed=seed)
        assert 5 <= len(held) <= max(5, 0.2 * count)
    assert len(hold_out(first(files, 3), share=0.5, at_least=5, seed=0)) == 2


def test_copies_and_groups_stay_together(files, tmp_path):
    copies = dict(first(files, 40))
    for id_ in range(40):
        copies[id_ + 100] = tmp_path / f"{id_}.copy"
        copies[id_ + 100].write_bytes(files[id_].read_bytes())
    held = hold_out(copies, share=0.2, at_least=5, seed=0)
    assert {id_ % 100 for id_ in held if id_ < 100} == {id_ - 100 for id_ in held if id_ >= 100}
    groups = {id_: f"slide {id_ // 10}" for id_ in range(400)}
    held = hold_out(files, share=0.2, at_least=5, seed=0, groups=groups)
    assert held
    assert all(sum(id_ // 10 == slide for id_ in held) in (0, 10) for slide in range(40))


def test_nothing_is_held_out_without_a_share_nor_of_what_is_not_there(files, tmp_path):
    assert not hold_out(files, share=0, at_least=5, seed=0)
    missing = dict.fromkeys(range(50), tmp_path / "none")
    assert not hold_out(missing, share=0.5, at_least=5, seed=0)


def test_the_users_own_split():
    validated, untrained = split_given({1: "train", 2: "val", 3: "test", 4: "val"})
    assert validated == {2, 4}
    assert untrained == {2, 3, 4}
