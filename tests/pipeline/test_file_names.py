"""The command line finds images by the one rule for names."""

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sapnet.cli.main import app


def call(*arguments: Any) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def renamed(scenes: Any, tmp_path: Path) -> Any:
    """renamed(spelled): a points file whose names are `spelled(stem, number)`, beside photos/."""
    photos = tmp_path / "photos"
    shutil.copytree(scenes.images, photos)

    def write(spelled: Any) -> Path:
        document = json.loads(scenes.points.read_text())
        for number, image in enumerate(document["images"]):
            image["file_name"] = spelled(Path(image["file_name"]).stem, number)
        path = tmp_path / "points.json"
        path.write_text(json.dumps(document))
        return path

    return write


SPELLED = {
    "backslashes": lambda stem, _: f"photos\\{stem}.png",
    "upper case": lambda stem, _: f"{stem.upper()}.PNG",
    "frames": lambda stem, _: stem,
    "uploads": lambda stem, number: f"/data/upload/3/{number:08x}-{stem}.png",
    "another suffix": lambda stem, _: f"old/{stem}.jpg",
}


@pytest.mark.slow
@pytest.mark.parametrize("spelled", SPELLED)
def test_propose(renamed: Any, given: Any, tmp_path: Path, spelled: str) -> None:
    (tmp_path / "given.json").write_text(json.dumps(given["document"]))
    proposals = json.dumps({"kind": "given", "document": str(tmp_path / "given.json")})
    common = ["--images", tmp_path / "photos", "--store", tmp_path / "store"]
    common += ["--proposals", proposals]
    done = call("propose", "--points", renamed(SPELLED[spelled]), *common)
    assert done.exit_code == 0, done.output
    assert ("another kind of image" in done.output) == (spelled == "another suffix")


def refused(command: str, points: Path, folder: Path, tmp_path: Path) -> str:
    """What is written where a command refuses."""
    out = "--store" if command == "propose" else "--out"
    done = call(command, "--points", points, "--images", folder, out, tmp_path / "out")
    assert done.exit_code == 1
    assert "Traceback" not in done.output
    return str(done.output).replace("\n", "")


@pytest.mark.parametrize("command", ["propose", "train"])
def test_what_is_not_there_is_named(renamed: Any, tmp_path: Path, command: str) -> None:
    points, photos = renamed(lambda stem, _: f"{stem}_x.png"), tmp_path / "photos"
    names = sorted(path.name for path in photos.iterdir())
    written = refused(command, points, photos, tmp_path)
    assert f"there is no image '{Path(names[0]).stem}_x.png'" in written
    assert f"did you mean '{names[0]}'" in written
    assert "archives" not in written
    (photos / "rest.tar.xz").write_bytes(b"")
    assert "are not read: 'rest.tar.xz'" in refused(command, points, photos, tmp_path)
    assert "no folder" in refused(command, points, tmp_path / "nowhere", tmp_path)


@pytest.mark.parametrize("command", ["propose", "train"])
def test_which_of_two_is_not_guessed(renamed: Any, tmp_path: Path, command: str) -> None:
    points, photos = renamed(lambda stem, _: f"{stem}.png"), tmp_path / "photos"
    first, second = sorted(photos.iterdir())[:2]
    for folder, file in (("train", first), ("val", second)):
        (photos / folder).mkdir()
        shutil.copy(file, photos / folder / first.name)
    first.unlink()
    written = refused(command, points, photos, tmp_path)
    assert f"both 'train/{first.name}' and 'val/{first.name}' could be the image" in written


def test_export_with_images(renamed: Any, tmp_path: Path) -> None:
    points = renamed(lambda stem, number: f"photos\\{stem}.PNG" if number else "lost.png")
    document = json.loads(points.read_text())
    (tmp_path / "masks.ndjson").write_text("")
    files = ["--images", tmp_path / "photos", "--out", tmp_path / "out.zip"]
    done = call("export", tmp_path / "masks.ndjson", "--points", points, *files)
    assert done.exit_code == 0, done.output
    assert "there is no image 'lost.png'" in done.output
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        images = [name for name in archive.namelist() if name.startswith("images/")]
    assert len(images) == len(document["images"]) - 1
