import copy
import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from segment_anything import SamPredictor
from segment_anything.modeling import Sam

from sapnet.errors import WeightsUnavailable
from sapnet.proposals.bags import make_bags
from sapnet.proposals.cached import CachedProposals
from sapnet.proposals.sam import checkpoints as sam_checkpoints
from sapnet.proposals.sam import generator as sam
from sapnet.proposals.sam import masks as sam_masks
from sapnet.proposals.sam.checkpoints import find_checkpoint
from sapnet.proposals.sam.embedding_cache import EmbeddingCache
from sapnet.proposals.sam.generator import SamGenerator
from sapnet.proposals.sam.prompting import places_round
from sapnet.proposals.store import ProposalStore, key_of
from sapnet.types import Bag, ImageInfo, RawProposals

from .conftest import iou, points

AT = points((20.5, 30.5), (70.25, 9.0), (70.25, 9.0), (89.5, 59.5), (3.5, 50.5))


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (60, 90, 3)).astype(np.uint8)


INFO = ImageInfo(1, "a.png", 90, 60)


def dense(raw: RawProposals) -> np.ndarray:
    return np.moveaxis(coco_mask.decode(list(raw.masks)), 2, 0).astype(bool)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [1, 2, 32])
def test_batched_masks_equal_the_predictor_one_by_one(
    model: Sam, image: np.ndarray, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sam_masks, "SURELY_THE_SAME", 1.0)  # all of them, to compare
    raws = list(SamGenerator(model=model, chunk=chunk, negatives=2).propose(image, INFO, AT))
    predictor = SamPredictor(model)
    predictor.set_image(image)
    xy = np.array([(a.x, a.y) for a in AT]) - 0.5  # SAM counts pixels, we count from their border
    seen = 0.0
    for index, raw in enumerate(raws):
        away = np.hypot(*(xy - xy[index]).T)
        near = [j for j in np.argsort(away, kind="stable") if away[j] > 0][:2]
        for part, chosen in enumerate(([index], [index, *near])):
            labels = np.array([1, 0, 0][: len(chosen)])
            masks, quality, _ = predictor.predict(xy[chosen], labels)
            got = dense(raw)[3 * part : 3 * part + 3]
            assert got.shape == masks.shape == (3, 60, 90)
            # the same sums in batches of another size may move a logit that is 0 but for rounding
            assert (got != masks).mean() < 1e-3
            assert all(iou(a, b) > 0.999 or a.sum() < 20 for a, b in zip(got, masks, strict=True))
            np.testing.assert_allclose(
                raw.confidence[3 * part : 3 * part + 3], np.clip(quality, 0, 1), atol=1e-5
            )
            seen = max(seen, float(masks.mean()))
        assert raw.sources == ("sam",) * 3 + ("sam-negatives",) * 3
    assert seen > 0.05


@pytest.mark.slow
def test_one_point_has_no_negatives_and_they_can_be_off(model: Sam, image: np.ndarray) -> None:
    (alone,) = SamGenerator(model=model).propose(image, INFO, AT[:1])
    assert dense(alone).shape == (3, 60, 90)
    off = list(SamGenerator(model=model, negatives=0).propose(image, INFO, AT))
    assert [len(raw.masks) for raw in off] == [3] * 5
    twins = list(SamGenerator(model=model).propose(image, INFO, AT[1:3]))
    assert [len(raw.masks) for raw in twins] == [3, 3]
    assert twins[0].masks == twins[1].masks


@pytest.mark.slow
def test_an_image_is_encoded_once_and_a_second_run_encodes_none(
    model: Sam, image: np.ndarray, tmp_path: Path
) -> None:
    def run() -> SamGenerator:
        generator, store = SamGenerator(model=model), ProposalStore(tmp_path)
        for sha in ("one", "two"):
            key = key_of(sha, AT, generator.fingerprint())
            if store.get(key) is None:
                store.put(key, make_bags(generator, image, INFO, AT))
        return generator

    assert run().encodes == 2
    assert run().encodes == 0


@pytest.mark.slow
def test_kept_embeddings_spare_the_encoder(model: Sam, image: np.ndarray, tmp_path: Path) -> None:
    def run(negatives: int, megabytes: int) -> tuple[list[RawProposals], int]:
        generator = SamGenerator(
            model=model, negatives=negatives, embedding_cache_mb=megabytes, cache_dir=tmp_path
        )
        return list(generator.propose(image, INFO, AT)), generator.encodes

    plain, _ = run(2, 0)
    assert not (tmp_path / "embeddings").exists()
    first, encodes = run(2, 1)
    assert encodes == 1
    assert [raw.masks for raw in first] == [raw.masks for raw in plain]
    again, encodes = run(2, 1)
    assert encodes == 0
    assert [raw.masks for raw in again] == [raw.masks for raw in plain]
    assert run(0, 1)[1] == 0  # other prompts, the same image
    (kept,) = (tmp_path / "embeddings").iterdir()
    kept.write_bytes(b"damaged")
    assert run(0, 1)[1] == 1


@pytest.mark.slow
def test_several_images_at_a_time_are_as_one_after_the_other(model: Sam, tmp_path: Path) -> None:
    """As on a GPU: other images are read, and their masks written, beside the network."""
    pixels = np.random.default_rng(1).integers(0, 256, (5, 60, 90, 3)).astype(np.uint8)
    images = [(replace(INFO, id=i, file_name=f"{i}.png"), AT[: i + 1]) for i in range(5)]
    paths = {info.id: tmp_path / info.file_name for info, _ in images}
    for path, image in zip(paths.values(), pixels, strict=True):
        Image.fromarray(image).save(path)

    def bags(at_once: int) -> list[list[Bag]]:
        generator = SamGenerator(model=model, negatives=2)
        generator.images_at_once = at_once
        maker = CachedProposals(tmp_path / f"store{at_once}", generator, paths, 16)
        made = [(make(), AT[: info.id + 1]) for info, make in maker.make_all(images)]
        return [maker.read(key, annotations) for key, annotations in made]

    for alone, beside in zip(bags(1), bags(3), strict=True):
        assert [bag.masks for bag in alone] == [bag.masks for bag in beside]
        for one, other in zip(alone, beside, strict=True):
            assert np.array_equal(one.confidence, other.confidence)
    assert SamGenerator(model=model).images_at_once == 1  # on a CPU, whose cores it has


def test_embeddings_that_were_used_longest_ago_make_room(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path, 3 * 5_000)
    features = torch.randn(1, 8, 10, 10)  # 3,200 bytes, and the file's own
    for name in "abcd":
        cache.put(name, [features])
        os.utime(tmp_path / f"{name}.pt", (ord(name), ord(name)))
    held = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert held <= 15_000
    names = sorted(path.stem for path in tmp_path.iterdir())
    assert names == list("abcd")[-len(names) :]
    cache.put("e", [features, features + 1])
    found = cache.get("e")
    assert found is not None
    assert [torch.equal(a, b) for a, b in zip(found, (features, features + 1), strict=True)] == [
        True,
        True,
    ]
    assert cache.get("a") is None


@pytest.mark.slow
def test_an_encoder_in_bfloat16_draws_nearly_the_same(model: Sam, image: np.ndarray) -> None:
    exact = [dense(raw) for raw in SamGenerator(model=model, negatives=0).propose(image, INFO, AT)]
    other = SamGenerator(model=copy.deepcopy(model), negatives=0, encoder_bf16=True)
    assert other.fingerprint() != SamGenerator(model=model, negatives=0).fingerprint()
    rough = [dense(raw) for raw in other.propose(image, INFO, AT)]
    agree = [
        max(iou(a, b) for b in there)
        for here, there in zip(exact, rough, strict=True)
        for a in here
    ]
    assert np.mean(agree) > 0.9


@pytest.mark.parametrize(
    ("multiplies", "asked", "bf16"),
    [
        (True, None, True),
        (False, None, False),
        (True, False, False),
        (False, True, True),
    ],
)
def test_the_encoder_is_in_bfloat16_where_the_gpu_multiplies_it(
    model: Sam, monkeypatch: pytest.MonkeyPatch, multiplies: bool, asked: bool | None, bf16: bool
) -> None:
    monkeypatch.setattr(sam, "multiplies_bfloat16", lambda _device: multiplies)
    network = sam.SamNetwork(copy.deepcopy(model), "digest", "cpu", asked)
    kinds = {p.dtype for p in network.model.image_encoder.parameters()}
    assert kinds == {torch.bfloat16 if bf16 else torch.float32}
    assert network.digest == ("digest bf16" if bf16 else "digest")


def test_an_image_without_points_is_not_encoded(model: Sam, image: np.ndarray) -> None:
    generator = SamGenerator(model=model)
    assert list(generator.propose(image, INFO, [])) == []
    assert generator.encodes == 0


@pytest.mark.slow
def test_one_pixel_and_three_hundred_points(model: Sam) -> None:
    generator = SamGenerator(model=model)
    pixel = np.zeros((1, 1, 3), np.uint8)
    (bag,) = make_bags(generator, pixel, ImageInfo(1, "a", 1, 1), points((0.5, 0.5)))
    assert bag.sources == ("disc",)
    crowd = points(*np.random.default_rng(0).uniform(0, 40, (300, 2)).tolist())
    image = np.zeros((40, 40, 3), np.uint8)
    assert len(make_bags(generator, image, ImageInfo(1, "a", 40, 40), crowd)) == 300


def test_the_fingerprint_follows_weights_and_negatives_alone(model: Sam) -> None:
    first = SamGenerator(model=model).fingerprint()
    assert SamGenerator(model=model, chunk=3).fingerprint() == first
    assert SamGenerator(model=model, negatives=1).fingerprint() != first
    weight = model.mask_decoder.iou_token.weight
    with torch.no_grad():
        weight[0, 0] += 1
        assert SamGenerator(model=model).fingerprint() != first
        weight[0, 0] -= 1


def test_the_checkpoint_is_looked_for_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, named = tmp_path / "given.pth", tmp_path / "named.pth"
    cached = tmp_path / "sam_vit_b_01ec64.pth"
    for path in (given, named, cached):
        path.write_bytes(b"x")
    monkeypatch.setenv("SAPNET_SAM_CHECKPOINT", str(named))
    assert find_checkpoint("vit_b", given, tmp_path) == given
    assert find_checkpoint("vit_b", None, tmp_path) == named
    monkeypatch.delenv("SAPNET_SAM_CHECKPOINT")
    assert find_checkpoint("vit_b", None, tmp_path) == cached


def test_without_weights_the_message_says_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAPNET_SAM_CHECKPOINT", str(tmp_path / "no.pth"))
    with pytest.raises(WeightsUnavailable, match=r"no\.pth.*SAPNET_SAM_CHECKPOINT.*hierarchy"):
        SamGenerator()
    (tmp_path / "no.pth").write_bytes(b"no checkpoint")
    with pytest.raises(WeightsUnavailable, match=r"no\.pth is no checkpoint of SAM: torch did not"):
        SamGenerator()


def test_a_download_is_checked_and_leaves_nothing_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SAPNET_SAM_CHECKPOINT", raising=False)
    served, cache = tmp_path / "served", tmp_path / "cache"
    served.mkdir()
    monkeypatch.setattr(sam_checkpoints, "_URL", served.as_uri() + "/")
    with pytest.raises(WeightsUnavailable, match=r"could not download.*SAPNET_SAM_CHECKPOINT"):
        find_checkpoint("vit_b", None, cache)
    (served / "sam_vit_b_01ec64.pth").write_bytes(b"not these")
    with pytest.raises(WeightsUnavailable, match="came with sha256"):
        find_checkpoint("vit_b", None, cache)
    assert list(cache.iterdir()) == []
    right = hashlib.sha256(b"not these").hexdigest()[:6]
    monkeypatch.setitem(sam_checkpoints._FILES, "vit_b", ("sam_vit_b_01ec64.pth", right))
    path = find_checkpoint("vit_b", None, cache)
    assert path.read_bytes() == b"not these"
    assert list(cache.iterdir()) == [path]


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [1, 32])
def test_boxes_are_prompts(
    model: Sam, image: np.ndarray, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A box alone, one beside a point and a point without one, against the predictor."""
    monkeypatch.setattr(sam_masks, "SURELY_THE_SAME", 1.0)
    boxes = [(10.0, 12.0, 40.0, 50.0), (60.0, 2.0, 88.0, 30.0)]
    objects = [
        replace(AT[0], x=25.0, y=31.0, box=boxes[0], pointed=False),
        replace(AT[1], box=boxes[1]),
        AT[3],
    ]
    raws = list(SamGenerator(model=model, chunk=chunk, negatives=2).propose(image, INFO, objects))
    predictor = SamPredictor(model)
    predictor.set_image(image)
    xy = np.array([(a.x, a.y) for a in objects]) - 0.5
    for index, (raw, box) in enumerate(zip(raws, boxes, strict=False)):
        near = sorted({0, 1, 2} - {index}, key=lambda j: np.hypot(*(xy[j] - xy[index])))
        asked = [(None, False, "sam-box"), (None, True, "sam-box")]
        asked += [([index], True, "sam-box-point")] if objects[index].pointed else []
        asked += [(near, True, "sam-box-negatives")]
        masks, quality, sources = [], [], []
        for chosen, several, source in asked:
            labels = None if chosen is None else np.full(len(chosen), int(chosen == [index]))
            given = None if chosen is None else xy[chosen]
            corners = np.array(box) - 0.5
            answer = predictor.predict(given, labels, corners, multimask_output=several)
            masks += list(answer[0])
            quality += list(answer[1])
            sources += [source] * len(answer[1])
        assert raw.sources == tuple(sources)
        np.testing.assert_allclose(raw.confidence, np.clip(quality, 0, 1), atol=1e-5)
        assert (dense(raw) != np.stack(masks)).mean() < 1e-3
    alone = list(SamGenerator(model=model, chunk=chunk, negatives=2).propose(image, INFO, AT))[3]
    assert raws[2].sources == alone.sources == ("sam",) * 3 + ("sam-negatives",) * 3
    assert raws[2].masks[:3] == alone.masks[:3]


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [1, 32])
def test_wider_bags_against_the_predictor(
    model: Sam, image: np.ndarray, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Places round the point, and the box of the mask that was the most confident before."""
    monkeypatch.setattr(sam_masks, "SURELY_THE_SAME", 1.0)
    at = [AT[0], AT[1], AT[3]]
    plain = list(SamGenerator(model=model, chunk=chunk, negatives=1).propose(image, INFO, at))
    generator = SamGenerator(model=model, chunk=chunk, negatives=1, jitters=3, box_round=True)
    wide = list(generator.propose(image, INFO, at))
    predictor = SamPredictor(model)
    predictor.set_image(image)
    inside = np.array([1])
    for annotation, before, after in zip(at, plain, wide, strict=True):
        tags = ("sam",) * 3 + ("sam-negatives",) * 3 + ("sam-jitter",) * 9 + ("sam-round",) * 3
        assert after.sources == tags
        assert after.masks[:6] == before.masks
        earlier = after.confidence[:15]
        best = dense(after)[int(np.argmax(np.where(dense(after)[:15].any((1, 2)), earlier, -1)))]
        rows, columns = np.flatnonzero(best.any(1)), np.flatnonzero(best.any(0))
        box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) - 0.5
        xy = np.array([[annotation.x, annotation.y]]) - 0.5
        masks, quality, _ = predictor.predict(xy, inside, box)
        np.testing.assert_allclose(after.confidence[15:], np.clip(quality, 0, 1), atol=1e-4)
        assert (dense(after)[15:] != masks).mean() < 2e-3
        beside = np.array([[min(annotation.x + 0.9, 89.5), annotation.y]]) - 0.5
        near = predictor.predict(beside, inside)[1]
        np.testing.assert_allclose(after.confidence[6:9], np.clip(near, 0, 1), atol=1e-4)


def test_places_round_a_point_stay_in_the_image_and_away_from_others() -> None:
    points = np.array([[0.5, 50.0], [4.5, 50.0], [60.0, 20.0]])
    places = places_round(points, 0, 8, (60, 90))
    assert places.shape == (8, 2)
    assert (places[:, 0] >= 0.5).all()
    assert np.hypot(*(places - points[0]).T).max() <= 0.9 + 1e-9
    assert np.hypot(*(places_round(points[:2], 0, 4, (600, 900)) - points[0]).T).max() <= 1 + 1e-9
    alone = places_round(points[2:], 0, 4, (600, 900))
    np.testing.assert_allclose(np.hypot(*(alone - points[2]).T), 9)
    assert places_round(points, 1, 0, (60, 90)).shape == (0, 2)


@pytest.mark.parametrize("jitters", [-1, 17])
def test_jitters_out_of_range(model: Sam, jitters: int) -> None:
    with pytest.raises(ValueError, match="jitters"):
        SamGenerator(model=model, jitters=jitters)


def test_wider_bags_have_fingerprints_of_their_own(model: Sam) -> None:
    prints = {
        SamGenerator(model=model, jitters=j, box_round=b).fingerprint()
        for j, b in ((0, False), (2, False), (0, True), (2, True))
    }
    assert len(prints) == 4
