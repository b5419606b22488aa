"""Models and data sets to a hub and back, by the hub's own client and HTTP API."""

import asyncio
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub import constants
from PIL import Image as Pillow

from sapnet_client import AsyncClient, Client, Segmentation
from sapnet_client.hub import HubError
from sapnet_client.hub_cards import model_card, proposals_in_words, weights_in_words
from sapnet_client.imagefolder import NotAFolder, read_folder
from sapnet_client.types import Category, Job, Model
from tests.integrations.hub_server import TOKEN, Hub, serve

Photos = tuple[Path, Path]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with serve() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
        yield running


def front_matter(card: str) -> dict[str, Any]:
    _, head, _ = card.split("---\n", 2)
    found: dict[str, Any] = yaml.safe_load(head)
    return found


@pytest.mark.slow
def test_a_data_set_goes_up_and_comes_back(client: Client, photos: Photos, hub: Hub) -> None:
    folder, path = photos
    exif = Pillow.Exif()
    exif[0x0112] = 6
    with Pillow.open(folder / "deep" / "c.png") as photo:
        photo.save(folder / "deep" / "c.png", exif=exif)
    document = json.loads(path.read_text())
    for image, subset in zip(document["images"], ("train", "val", None), strict=True):
        image |= ({"subset": subset} if subset else {}) | {"group": f"day {image['id']}"}
    array = np.zeros((30, 40), bool)
    array[5:20, 2:12] = True
    document["annotations"][0]["mask"] = Segmentation.of(array).document()
    document["annotations"][1] |= {"bbox": [20.0, 5.0, 12.0, 9.0]}
    dataset = client.create_dataset(folder, document, name="cells | <day>")
    url = client.push_dataset(dataset, "anna/cells", licence="cc-by-4.0", private=True)
    assert url == f"{hub.url}/datasets/anna/cells"
    repository = hub.repositories["datasets/anna/cells"]
    assert repository.private
    assert {n.partition("/")[0] for n in repository.files} >= {"README.md", "train", "validation"}
    card = repository.files["README.md"].decode()
    head = front_matter(card)
    assert head["license"] == "cc-by-4.0"
    assert [f["split"] for f in head["configs"][0]["data_files"]] == ["train", "validation"]
    assert "cells \\| &lt;day>" in card
    rows = [json.loads(r) for r in repository.files["train/metadata.jsonl"].splitlines()]
    assert f"train/{rows[0]['file_name']}" in repository.files
    Path(folder / "numbers.png").write_bytes(repository.files["train/masks/1.png"])
    numbers = np.asarray(Pillow.open(folder / "numbers.png"))
    assert ((numbers == 1) == array).all()

    back = client.pull_dataset("anna/cells")
    assert (back.name, back.images, back.annotations) == ("anna/cells", 3, 6)
    assert [(i.subset, i.group) for i in client.images(back)] == [
        ("train", "day 1"),
        ("val", "day 2"),
        (None, "day 3"),
    ]
    assert list(client.annotations(back)) == list(client.annotations(dataset))
    assert back.categories == dataset.categories
    before, after = ({i.id: i.sha256 for i in client.images(d)} for d in (dataset, back))
    assert [id_ for id_ in before if before[id_] != after[id_]] == [3]
    (turned,) = (data for name, data in repository.files.items() if name.endswith("/3.png"))
    with Pillow.open(io.BytesIO(turned)) as photo:
        assert photo.getexif().get(0x0112, 1) == 1, "shown as points and masks have it"
        assert photo.size == (40, 30)
    assert turned == client.image_bytes(dataset, 3, as_stored=True)


@pytest.mark.slow
def test_masks_of_a_job_go_with_it_and_a_model(client: Client, photos: Photos, hub: Hub) -> None:
    job = client.wait(client.train(client.create_dataset(*photos), preset="demo", seed=3))
    client.push_dataset(job.dataset_id, "masks", job=job)
    repository = hub.repositories["datasets/anna/masks"]
    (row, *_) = [json.loads(r) for r in repository.files["train/metadata.jsonl"].splitlines()]
    assert row["objects"]["quality"][0] is not None
    assert client.pull_dataset("anna/masks").report.masks == 0  # a program chose them

    async def push() -> str:
        async with AsyncClient(client.url, progress=False) as other:
            return await other.push_model(job.model_id, "anna/model", licence="apache-2.0")

    assert asyncio.run(push()) == f"{hub.url}/anna/model"
    files = hub.repositories["models/anna/model"].files
    assert sorted(files) == [".gitattributes", "README.md", "config.json", "model.safetensors"][1:]
    assert json.loads(files["config.json"])["id2label"] == {"7": "cell"}
    head = front_matter(files["README.md"].decode())
    assert (head["license"], head["pipeline_tag"]) == ("apache-2.0", "image-segmentation")
    assert "photos" in files["README.md"].decode()


@pytest.mark.slow
def test_what_the_hub_refuses_is_said(
    client: Client, photos: Photos, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = client.create_dataset(*photos)
    with pytest.raises(HubError, match="401"):
        client.push_dataset(dataset, "anna/cells", token="hf_wrong")
    with pytest.raises(HubError, match=r"(?i)not found"):
        client.pull_model("anna/nothing")
    with pytest.raises(HubError, match="epo"):
        client.push_dataset(dataset, "no repository/at all/")
    client.push_dataset(dataset, "anna/cells")
    with pytest.raises(HubError):
        client.pull_model("anna/cells")
    hub.repositories["datasets/anna/cells"].files.pop("train/metadata.jsonl")
    with pytest.raises(NotAFolder, match="no imagefolder"):
        client.pull_dataset("anna/cells")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError):
        client.push_dataset(dataset, "anna/cells")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "not of this layout"),
        ("[]", "not of this layout"),
        ({"file_name": "../out.png"}, "no image"),
        ({"file_name": "b.png"}, "no image"),
        ({"objects": {"id": [1]}}, "not of this layout"),
    ],
)
def test_folders_of_another_layout(line: Any, problem: str, tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "out.png").write_bytes(b"")
    (tmp_path / "train" / "a.png").write_bytes(b"")
    row = {"file_name": "a.png", "image_id": 1, "width": 4, "height": 3, "objects": {"id": []}}
    text = line if isinstance(line, str) else json.dumps({**row, **line})
    (tmp_path / "train" / "metadata.jsonl").write_text(text)
    with pytest.raises(NotAFolder, match=problem):
        read_folder(tmp_path)


def test_what_a_card_says() -> None:
    model = Model(
        id="m",
        job_id="j",
        name="cells",
        created_at="2026-11-30T00:00:00Z",  # type: ignore[arg-type]
        categories=[Category(id=7, name="a|b")],
        meta={"weights": {"kind": "random", "detail": "x"}},
    )
    figures = {"on": "4 images of the subset test", "against": "ground truth", "AP": 0.5, "AP50": 1}
    agreed = {"on": "5 images held out", "against": "delivered masks", "AP": 0.4}
    job = Job(id="j", state="succeeded", method="sapnet++", preset="cpu")
    card = model_card(
        "anna/x", model, job, None, {"test": figures, "validation": agreed}, licence=None
    )
    head = front_matter(card)
    assert "license" not in head
    (result,) = head["model-index"][0]["results"]
    assert [m["value"] for m in result["metrics"]] == [0.5, 1]
    assert "| images held out of training | delivered masks | 0.400 | – | – |" in card
    assert "a\\|b" in card
    assert "random weights" in card
    torchvision = {"kind": "torchvision", "detail": "https://x/mobilenet_v2.pth"}
    assert "BSD-3-Clause" in weights_in_words(torchvision)
    assert "not known here" in weights_in_words({"kind": "file", "detail": "mine.pt"})
    assert "SAM 2.1" in proposals_in_words({"generator": "sam2"})
    assert "SAM," not in proposals_in_words({"generator": "sam2"})
