"""Names in documents and names of files: what belongs together, and what is left to people."""

import time
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sapnet.data.file_names import FileNames, is_address, relative
from sapnet.data.file_pairing import Pairing, files_in, pair


def paired(names: list[str], files: list[str], addresses: dict[str, str] | None = None) -> Any:
    return pair(names, {file: file for file in files}, addresses)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("a.png", "a.png"),
        ("photos\\a.png", "photos/a.png"),
        ("photos/a.png", "photos\\a.png"),
        (".\\photos\\a.png", "a.png"),
        ("./a.png", "top/folder/a.png"),
        ("x/../a.png", "a.png"),
        ("deep/only.png", "only.png"),
        ("IMG_1.JPG", "img_1.jpg"),
        ("Photos/A.PNG", "photos/a.png"),
        ("a.jpg", "a.JPEG"),
        ("scan.tif", "scan.tiff"),
        ("frame_000000", "frame_000000.PNG"),
        ("clip/frame.000012", "frame.000012.jpg"),
        ("a.jpg", "a"),
        ("my%20photo.png", "my photo.png"),
        ("my photo.png", "my%20photo.png"),
        ("100%.png", "100%.png"),
        ("sub%2Fa.png", "sub/a.png"),
        (unicodedata.normalize("NFD", "Zürich.png"), "Zürich.png"),
        ("Zürich.png", unicodedata.normalize("NFD", "ZÜRICH.png")),
        ("a.png", "1a2b3c4d-a.png"),
        ("1a2b3c4d-a.png", "a.png"),
        ("1A2B3C4D-a.png", "a.png"),
        ("my_photo_1.png", "my photo (1).png"),
        ("0f0f0f0f-my_photo.jpg", "My Photo.jpeg"),
        ("/data/upload/3/1a2b3c4d-a.png", "a.png"),
        ("/data/local-files/?d=set%20one/a.png", "set one/a.png"),
        ("http://localhost:8080/data/local-files/?d=a.png", "a.png"),
        ("s3://bucket/photos/a.png", "a.png"),
        ("https://host/x/my%20photo.png?sig=a%2Fb#c", "my photo.png"),
        ("C:\\Users\\me\\photos\\a.png", "photos/a.png"),
        ("..\\..\\media\\upload\\1\\1a2b3c4d-a.png", "1a2b3c4d-a.png"),
        ("file:///home/me/a.png", "a.png"),
    ],
)
def test_what_belongs_together(name: str, file: str) -> None:
    found = paired([name, "other.png"], ["z/zz.png", file, "zz.json"])
    assert found.matched == {name: file}
    assert found.warnings() == {}
    assert list(found.missing()) == ["other.png"]


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("a.png", "ba.png"),
        ("a.png", "a.json"),
        ("a", "a.txt"),
        ("a.png", "a.png.txt"),
        ("a-1.png", "a_1.png"),
        ("20240101-a.png", "20240102-a.png"),  # one prefix may be left out, not exchanged
        ("frame.000012", "frame.000013"),
        ("train/a.png", "val/a.png"),
        ("coco/train2017/a.png", "coco/val2017/a.png"),
        ("Valid/a.png", "x/test/a.jpg"),
        ("a.png", ""),
        ("a.png", "/"),
    ],
)
def test_what_does_not(name: str, file: str) -> None:
    assert paired([name], [file]).matched == {}


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("a.png", ["a.png", "A.png", "x/a.png", "a.jpg"]),
        ("a.png", ["A.png", "x/a.png", "a.jpg"]),
        ("a.png", ["x/a.png", "1a2b3c4d-a.png", "a.jpg"]),
        ("a.jpg", ["deep/images/a.jpg", "a.png"]),  # a mask beside its image is another kind
        ("a.jpg", ["1a2b3c4d-a.jpg", "a.jpeg", "a.png"]),
        ("x/a.png", ["top/x/a.png", "a.png", "y/a.png"]),
        ("x/a.png", ["a.png", "y/a.png"]),
        ("in/x/a.png", ["out/x/a.png", "out/y/a.png"]),
        ("a.jpg", ["a", "a.png"]),
        ("frame_7", ["frame_7.png", "frame_7.json", "frame_77.png"]),
    ],
)
def test_the_better_fit_wins_in_any_order(name: str, files: list[str]) -> None:
    for order in (files, files[::-1]):
        found = paired([name], order)
        assert found.matched == {name: files[0]}
        assert found.unclear() == {}


def test_folders_that_contradict_count_less_than_another_suffix() -> None:
    files = ["train/c.png", "val/c.png"]
    for order in (files, files[::-1]):
        found = paired(["train/c.jpg", "images/val/c.png"], order)
        assert found.matched == {"train/c.jpg": "train/c.png", "images/val/c.png": "val/c.png"}


def test_folders_that_are_no_subsets_may_be_renamed() -> None:
    for name, file in (("images/a.png", "photos/a.png"), ("train/a.png", "photos/a.png")):
        found = paired([name], [file])
        assert found.matched == {name: file}
        assert list(found.warnings()) == ["another folder"]
    assert (
        "did you mean 'val/a.png'"
        in paired(["train/a.png"], ["val/a.png"]).missing()["train/a.png"].hint
    )


def test_subsets_that_share_base_names() -> None:
    names = ["train/a.jpg", "val/a.jpg"]
    for top in ("", "set/", "set/images/"):
        files = {f"{top}val/a.JPG": 1, f"{top}train/a.JPG": 2}
        assert pair(names, files).matched == {"train/a.jpg": 2, "val/a.jpg": 1}
    found = paired(["images/train/a.jpg", "images/val/a.jpg"], ["b/train/a.jpg", "b/val/a.jpg"])
    assert found.matched == {
        "images/train/a.jpg": "b/train/a.jpg",
        "images/val/a.jpg": "b/val/a.jpg",
    }
    assert list(found.warnings()) == ["another folder"]


@pytest.mark.parametrize(
    ("names", "files"),
    [
        (["train/a.jpg", "val/a.jpg"], ["val/images/a.jpg", "train/images/a.jpg"]),
        (["train/photos/a.jpg", "val/photos/a.jpg"], ["x/val/a.jpg", "x/train/a.jpg"]),
        (["x/train/y/a.jpg", "x/test/y/a.jpg"], ["test/z/a.JPG", "train/z/a.JPG"]),
        (["train/a.png", "val/a.png"], ["val/images/a.jpg", "train/images/a.jpg"]),
    ],
)
def test_subsets_that_are_not_the_innermost_folder(names: list[str], files: list[str]) -> None:
    for order in (names, names[::-1]):
        found = paired(order, files)
        assert found.matched == {names[0]: files[1], names[1]: files[0]}
        assert found.unclear() == {}


@pytest.mark.parametrize(
    "files",
    [
        ["train/a.jpg", "val/a.jpg"],
        ["a.png", "a.webp"],
        ["1a2b3c4d-a.jpg", "9f8e7d6c-a.jpg"],
        ["A.jpg", "a.JPG"],
        ["x/a.jpg", "y/a.jpg", "z/a.jpg"],
    ],
)
def test_files_that_fit_equally_well_are_listed(files: list[str]) -> None:
    found = paired(["a.jpg"], files)
    assert found.matched == {} == found.missing()
    problem = found.unclear()["a.jpg"].problem
    assert all(repr(file) in problem for file in files)
    assert "could be the image 'a.jpg'" in problem
    assert list(found.candidates()) == files
    assert pair(["a.jpg"], dict.fromkeys(files, 0), equal=int.__eq__).matched == {"a.jpg": 0}


def test_a_better_file_settles_it() -> None:
    found = paired(["a.jpg"], ["x/a.jpg", "y/a.jpg", "a.jpg"])
    assert found.matched == {"a.jpg": "a.jpg"}
    assert found.unclear() == {}


def test_a_file_that_fits_several_names_is_named_with_them() -> None:
    found = paired(["train/a.jpg", "val/a.jpg"], ["a.jpg", "other.jpg"])
    assert found.matched == {}
    for unpaired in found.missing().values():
        assert "'a.jpg' could be any of 'train/a.jpg' and 'val/a.jpg'" in unpaired.problem
    assert list(found.candidates()) == ["a.jpg"]
    both = ["photos\\a.png", "photos/a.png"]
    assert paired(both, ["photos/a.png"]).matched == {"photos/a.png": "photos/a.png"}
    assert paired(both, ["Photos/a.png"]).matched == {}


@pytest.mark.parametrize(
    ("name", "files", "similar"),
    [
        ("cat_1.png", ["x/cat1.png", "dog.png"], "'x/cat1.png'"),
        ("IMG_0001.jpg", ["IMG_001.jpg", "other"], "'IMG_001.jpg'"),
        ("20240101-a.png", ["20240102-a.png"], "'20240102-a.png'"),
    ],
)
def test_near_misses_are_suggested(name: str, files: list[str], similar: str) -> None:
    found = paired([name], files)
    hint = found.missing()[name].hint
    assert hint == f"send it, or correct the name; did you mean {similar}?"
    assert list(found.candidates()) == files[:1]


def test_another_kind_of_image_is_taken_and_named() -> None:
    found = paired(["a.jpg", "b.HEIC"], ["a.png", "x/b.jpg"])
    assert found.matched == {"a.jpg": "a.png", "b.HEIC": "x/b.jpg"}
    assert found.warnings() == {
        "another kind of image": ["'a.png' for 'a.jpg'", "'x/b.jpg' for 'b.HEIC'"]
    }


def test_an_address_tells_uploads_of_one_name_apart() -> None:
    files = ["1a2b3c4d-a.png", "9f8e7d6c-a.png"]
    assert paired(["a.png"], files).matched == {}
    address = {"a.png": "/data/upload/7/9f8e7d6c-a.png", "not there": "x"}
    assert paired(["a.png"], files, address).matched == {"a.png": files[1]}
    assert paired(
        ["a.png", "b.png"], ["x/b.png", "a.png"], {"a.png": "http://h/b.png"}
    ).matched == {
        "a.png": "a.png",
        "b.png": "x/b.png",
    }


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("a\\b.png", "a/b.png"),
        ("/etc/passwd", "etc/passwd"),
        ("C:\\b.png", "b.png"),
        ("../../b.png", "b.png"),
        ("a/../../b.png", "b.png"),
        ("s3://bucket/../../b.png", "b.png"),
        ("/data/local-files/?d=../../b.png", "b.png"),
        ("/data/local-files/?d=/etc/passwd", "etc/passwd"),
        ("//host/share/b.png", "host/share/b.png"),
        ("a%20b.png", "a%20b.png"),  # may be its name
        ("http://[b.png", "http:/[b.png"),
        ("..", ""),
        ("", ""),
    ],
)
def test_a_relative_path_stays_below_its_folder(name: str, path: str) -> None:
    assert relative(name) == path


@pytest.mark.slow
@given(st.text(alphabet='ab./\\:%2F?=&d"{}é\u0308\ud800 3-\n', max_size=40))
def test_no_name_breaks_it_or_leaves_the_folder(name: str) -> None:
    path = relative(name)
    assert not Path(path).is_absolute()
    assert ".." not in Path(path).parts
    assert "\\" not in path
    assert relative(path) == path or is_address(path)
    found = paired([name], [name, name.upper(), f"x/{name}"])
    assert found.matched == {name: name}


@pytest.mark.slow
def test_many_images_of_one_base_name() -> None:
    """Frames of many clips: no comparison of each with each."""
    names = [f"clip{number}/frame.png" for number in range(30_000)]
    index = FileNames(names)
    began = time.process_time()
    for number in range(30_000):
        match = index.match(f"top/Clip{number}/frame.png")
        assert match is not None
        assert match.names == (f"clip{number}/frame.png",)
        lost = index.match(f"lost{number}/frame.png")
        assert lost is not None
        assert len(lost.names) > 1
    assert time.process_time() - began < 60


@pytest.mark.slow
def test_many_names_without_files_take_no_long_search() -> None:
    pairing: Pairing[str] = Pairing([f"image_{number:05}.png" for number in range(20_000)])
    for number in range(20_000):
        pairing.match(f"photo-{number:05}.png")
    began = time.process_time()
    assert len(pairing.missing()) == 20_000
    assert time.process_time() - began < 60


@pytest.mark.slow
def test_hostile_names_take_no_long_search() -> None:
    """Names that are long, deep, or all alike to a comparison of texts."""
    began = time.process_time()
    pairing: Pairing[str] = Pairing(["a" * (5_000 + number) for number in range(300)])
    for number in range(2_000):
        pairing.match("a" * (9_000 + number) + "b")
    assert len(pairing.missing()) == 300
    index = FileNames(f"{'x/' * 20_000}{number}/a.png" for number in range(100))
    for number in range(100):
        index.match(f"{'x/' * 20_000}lost{number}/a.png")
    assert time.process_time() - began < 60


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("photos/a.png", "Sub/B.JPG", "train/c.png", "val/c.png", "same/d.png", "x/d.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("same" if "d.png" in name else name)
    return tmp_path


def test_in_a_folder(folder: Path) -> None:
    found = files_in(folder, ["photos\\a.png", "sub/b.jpg", "train/c.png", "d.png", "c.png", "e"])
    assert {name: path.relative_to(folder).as_posix() for name, path in found.matched.items()} == {
        "photos\\a.png": "photos/a.png",
        "sub/b.jpg": "Sub/B.JPG",
        "train/c.png": "train/c.png",
        "d.png": "same/d.png",  # the other one has the same content
        "c.png": "val/c.png",  # the last that is left
    }
    assert list(found.missing()) == ["e"]


def test_in_a_folder_that_links_to_itself(folder: Path) -> None:
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "link.png").symlink_to(folder / "photos/a.png")
    (folder / "broken.png").symlink_to(folder / "nowhere")
    found = files_in(folder, ["LINK.png", "broken.png"])
    assert sorted(found.matched) == ["LINK.png", "broken.png"]
    assert files_in(folder / "none", ["a.png"]).matched == {}


def test_nothing_leaves_the_folder(folder: Path) -> None:
    names = ["../photos/a.png", str(folder / "photos/a.png")]
    assert files_in(folder / "train", names).matched == {}
