"""The order in which to look at images."""

import numpy as np
import pytest

from sapnet.data.ranking import Ranking, Weights, rank


def ranked(
    uncertainty: list[float],
    vectors: list[list[float]],
    done: list[list[float]] | None = None,
    disagreement: list[float] | None = None,
    chosen: int = 100,
    weights: Weights = Weights(),
) -> Ranking:
    own = np.array(vectors, np.float32).reshape(len(uncertainty), len(vectors[0]) if vectors else 2)
    others = np.array(done or [], np.float32).reshape(-1, own.shape[1])
    apart = np.zeros(len(own)) if disagreement is None else np.array(disagreement)
    return rank(np.array(uncertainty), apart, own, others, chosen=chosen, weights=weights)


def plain(base: np.ndarray, vectors: np.ndarray, done: np.ndarray, weight: float) -> list[int]:
    """The greedy choice, slowly: distances over the median distance of all pairs."""
    pairs = [np.linalg.norm(a - b) for i, a in enumerate(vectors) for b in vectors[:i]]
    unit, order = np.median(pairs), []
    while len(order) < len(base):
        before = [*done, *vectors[order]]
        apart = [min(min(np.linalg.norm(v - b) for b in before) / unit, 1) for v in vectors]
        score = base + weight * np.array(apart)
        order.append(max(set(range(len(base))) - set(order), key=lambda n: (score[n], -n)))
    return order


def test_unsure_images_come_first_where_all_look_alike() -> None:
    told = ranked([0.0, 3.0, 1.0], [[1.0]] * 3, done=[[1.0]])
    assert told.order.tolist() == [1, 2, 0]
    assert told.uncertainty[0] == 1.0
    assert told.diversity.tolist() == [0, 0, 0]
    assert told.score == pytest.approx(told.uncertainty)


def test_the_greedy_choice_is_that_of_plain_code() -> None:
    draw = np.random.default_rng(3)
    vectors, done = draw.normal(size=(30, 5)), draw.normal(size=(4, 5))
    weights = Weights(uncertainty=0, disagreement=0, novelty=0, diversity=1)
    told = ranked([0.0] * 30, vectors.tolist(), done.tolist(), weights=weights)
    assert told.order.tolist() == plain(np.zeros(30), vectors, done, 1)
    assert told.score == pytest.approx(told.diversity)


def test_copies_of_what_was_chosen_wait() -> None:
    vectors = [[0.0, 0.0], [0.0, 0.0], [3.0, 0.0], [0.0, 4.0]]
    told = ranked([2.0, 1.9, 1.0, 1.0], vectors, weights=Weights(diversity=2))
    assert told.order[-1] in (0, 1)
    assert np.isnan(told.diversity[0])  # nothing was done, and nothing came before it
    assert told.diversity[-1] == 0


def test_without_anything_done_the_most_typical_image_comes_first() -> None:
    vectors = [[0.0], [9.0], [5.0], [-9.0]]
    told = ranked([np.nan] * 4, vectors, disagreement=[np.nan] * 4)
    assert told.order[0] == 0 or told.order[0] == 2
    assert np.isnan(told.novelty).all()
    assert np.isnan(told.uncertainty).all()


def test_what_is_not_known_counts_as_the_mean() -> None:
    told = ranked([0.0, np.nan, 4.0], [[1.0], [np.nan], [1.0]], done=[[1.0]])
    assert told.order.tolist() == [2, 1, 0]
    assert np.isnan(told.uncertainty[1])
    assert np.isnan(told.novelty[1])


def test_those_beyond_the_chosen_follow_by_score() -> None:
    told = ranked([1.0, 2.0, 3.0, 4.0], [[float(n)] for n in range(4)], [[9.0]], chosen=1)
    assert sorted(told.order.tolist()) == [0, 1, 2, 3]
    assert np.isnan(told.diversity[1:]).all()
    assert (np.diff(told.score[1:]) <= 0).all()


@pytest.mark.parametrize("count", [0, 1])
def test_none_and_one(count: int) -> None:
    told = ranked([1.0] * count, [[1.0, 2.0]] * count)
    assert told.order.tolist() == list(range(count))


def test_the_order_does_not_depend_on_that_of_the_input() -> None:
    draw = np.random.default_rng(0)
    vectors, unsure = draw.normal(size=(40, 6)), draw.random(40)
    turned = draw.permutation(40)
    one = ranked(unsure.tolist(), vectors.tolist(), [[0.0] * 6])
    two = ranked(unsure[turned].tolist(), vectors[turned].tolist(), [[0.0] * 6])
    assert turned[two.order].tolist() == one.order.tolist()
