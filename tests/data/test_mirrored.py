"""Predictions of an image and its mirror image, joined."""

import numpy as np
import pytest

from sapnet.data.masks import decode, encode, tight_box
from sapnet.data.mirrored import predict_mirrored
from sapnet.types import ByteArray

SIZE = (20, 30)


def result(box: tuple[int, int, int, int], score: float, category: int = 1) -> dict:
    mask = np.zeros(SIZE, bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    rle = encode(mask)
    return {"segmentation": rle, "bbox": tight_box(rle), "score": score, "category_id": category}


def predictor(plain: list[dict], mirrored: list[dict]):
    """Gives `mirrored` for an image whose first column is white."""

    def predict(image: ByteArray, threshold: float) -> list[dict]:
        results = mirrored if image[0, 0, 0] else plain
        return [r for r in results if r["score"] >= threshold]

    return predict


def joined(plain: list[dict], mirrored: list[dict], threshold: float = 0.1) -> list[dict]:
    image = np.zeros((*SIZE, 3), np.uint8)
    image[:, -1] = 255
    return predict_mirrored(image, predictor(plain, mirrored), threshold)


def test_an_object_in_both_has_the_mean_score_and_the_better_mask() -> None:
    (one,) = joined([result((2, 3, 10, 9), 0.6)], [result((21, 3, 28, 9), 0.9)])
    assert one["score"] == pytest.approx(0.75)
    assert one["bbox"] == [2, 3, 7, 6]
    assert decode(one["segmentation"])[3:9, 2:9].all()


def test_an_object_in_one_alone_loses_half_of_its_score() -> None:
    first, second = joined([result((2, 3, 10, 9), 0.5)], [result((0, 3, 6, 9), 0.8)])
    assert (first["score"], second["score"]) == (pytest.approx(0.4), pytest.approx(0.25))
    assert first["bbox"] == [24, 3, 6, 6]
    assert joined([result((2, 3, 10, 9), 0.5)], [], threshold=0.3) == []


def test_classes_are_not_joined_and_nobody_is_in_two_pairs() -> None:
    other = joined([result((2, 3, 10, 9), 0.6, 1)], [result((20, 3, 28, 9), 0.6, 2)])
    assert [r["score"] for r in other] == pytest.approx([0.3, 0.3])
    plain = [result((2, 3, 10, 9), 0.8), result((2, 3, 9, 9), 0.4)]
    one, two = joined(plain, [result((20, 3, 28, 9), 0.6)])
    assert (one["score"], two["score"]) == (pytest.approx(0.7), pytest.approx(0.2))


def test_a_faint_instance_counts_where_the_mean_reaches_the_threshold() -> None:
    (one,) = joined([result((2, 3, 10, 9), 0.2)], [result((20, 3, 28, 9), 0.6)], threshold=0.4)
    assert one["score"] == pytest.approx(0.4)
    assert joined([], [], 0.1) == []


def test_a_predictor_that_does_not_care_gives_the_same() -> None:
    """Of one whose masks turn with the image every instance comes back as it is."""

    def bright(image: ByteArray, threshold: float) -> list[dict]:
        mask = image[..., 0] > 100
        rle = encode(mask)
        return [{"segmentation": rle, "bbox": tight_box(rle), "score": 0.7, "category_id": 3}]

    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3)).astype(np.uint8)
    assert predict_mirrored(image, bright, 0.1) == bright(image, 0.1)
