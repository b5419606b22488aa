"""Scores and losses, Eqs 1, 3 and 5 to 8, against loops over single numbers."""

import math

import pytest
import torch

from sapnet.labelers.sapnet.psm import EPS, bag_scores, class_scores, proposal_scores, psm_loss
from sapnet.labelers.sapnet.srm import negative_loss, positive_loss, srm_loss


def softmax(values):
    top = max(values)
    powers = [math.exp(v - top) for v in values]
    return [p / sum(powers) for p in powers]


def slow_scores(classes, instances, distance, valid, over_k):
    """S of Eq. 3 for each bag n, proposal m and class k."""
    count, longest, columns = classes.shape
    scores = torch.zeros(count, longest, columns - 1, dtype=torch.float64)
    for n in range(count):
        inside = [m for m in range(longest) if valid[n, m]]
        for k in range(columns - 1):
            shares = softmax([float(instances[n, m, k]) for m in inside])
            for m, share in zip(inside, shares, strict=True):
                row = classes[n, m].tolist()
                of_class = softmax(row[:-1] if over_k else row)[k]
                scores[n, m, k] = of_class * share * float(distance[n, m])
    return scores


def slow_bag(scores):
    return [[min(max(sum(column), EPS), 1 - EPS) for column in s.T.tolist()] for s in scores]


@pytest.mark.parametrize("over_k", [False, True])
@pytest.mark.parametrize("classes", [1, 2, 5])
@pytest.mark.parametrize("branch", [False, True])
def test_scores_and_bag_scores(tools, draw, classes, over_k, branch):
    bags = tools.make_bags(1, classes=classes)
    shape = bags.valid.shape
    logits = 3 * draw(*shape, classes + 1)
    instances = 3 * draw(*shape, classes) if branch else None
    got = proposal_scores(logits, instances, bags.distance.double(), bags.valid, over_k)
    even = torch.zeros(*shape, classes) if instances is None else instances
    expected = slow_scores(logits, even, bags.distance.double(), bags.valid, over_k)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(bag_scores(got), torch.tensor(slow_bag(expected)).double())


def test_padding_never_counts(tools, draw):
    bags = tools.make_bags(2)
    logits, instances = draw(4, 8, 4), draw(4, 8, 3)
    clean = proposal_scores(logits, instances, bags.distance.double(), bags.valid)
    logits[~bags.valid] = 50.0
    instances[~bags.valid] = 50.0
    spoilt = proposal_scores(logits, instances, bags.distance.double(), bags.valid)
    torch.testing.assert_close(clean, spoilt)
    assert (clean[~bags.valid] == 0).all()


@pytest.mark.parametrize("classes", [1, 4])
def test_psm_loss(tools, draw, classes):
    bag = draw(5, classes).sigmoid()
    labels = torch.arange(5) % classes
    expected = 0.0
    for n in range(5):
        for k in range(classes):
            p = float(bag[n, k])
            expected -= math.log(p) if k == labels[n] else math.log(1 - p)
    assert float(psm_loss(bag, labels)) == pytest.approx(expected / 5)


def test_the_clamp_keeps_the_loss_finite():
    bag = bag_scores(torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]))
    assert psm_loss(bag, torch.tensor([1, 0])).isfinite()


def test_one_class_alone_teaches_only_with_the_background_column(draw):
    """K = 1: softmax over K is constant 1 and blind; over K + 1, negatives and bags both teach."""
    for over_k in (True, False):
        logits = draw(2, 3, 2).requires_grad_()
        valid = torch.ones(2, 3, dtype=torch.bool)
        scores = proposal_scores(logits, None, torch.ones(2, 3), valid, over_k)
        psm_loss(bag_scores(scores), torch.tensor([0, 0])).backward()
        assert bool(logits.grad.any()) is not over_k
        rows = draw(4, 2).requires_grad_()
        negative_loss(rows, 1.0, "focal", over_k).backward()
        assert bool(rows.grad.any()) is not over_k
    rows = draw(4, 2).requires_grad_()
    negative_loss(rows, 1.0, "cross_entropy").backward()
    assert (rows.grad[:, 0] > 0).all()  # descent lowers the object's logit


@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("classes", [1, 3])
def test_positive_loss(draw, classes, gamma):
    """Eq. 5: the PSM bag score of the class times the focal loss of the SRM bag score."""
    bag, weight = draw(6, classes).sigmoid(), draw(6).sigmoid()
    labels = torch.arange(6) % classes
    expected = 0.0
    for n in range(6):
        for k in range(classes):
            p = float(bag[n, k])
            hit = (1 - p) ** gamma * math.log(p) if k == labels[n] else p**gamma * math.log(1 - p)
            expected -= float(weight[n]) * hit
    assert float(positive_loss(bag, labels, weight, gamma)) == pytest.approx(expected / 6)


@pytest.mark.parametrize("over_k", [False, True])
@pytest.mark.parametrize("classes", [1, 3])
def test_negative_loss(draw, classes, over_k):
    """Eq. 7, and the cross-entropy that may stand for it."""
    logits = draw(7, classes + 1)
    focal = entropy = 0.0
    for row in logits.tolist():
        for p in softmax(row[:-1] if over_k else row)[:classes]:
            p = min(p, 1 - EPS)
            focal -= 0.4 * p**2 * math.log(1 - p) / 7
        entropy -= 0.4 * math.log(softmax(row)[-1]) / 7
    assert float(negative_loss(logits, 0.4, "focal", over_k)) == pytest.approx(focal)
    assert float(negative_loss(logits, 0.4, "cross_entropy", over_k)) == pytest.approx(entropy)
    torch.testing.assert_close(class_scores(logits, over_k).shape, (7, classes))


def test_sum_of_both():
    """Eq. 8."""
    loss = srm_loss(torch.tensor(2.0), torch.tensor(4.0), 0.25)
    assert float(loss) == 0.25 * 2 + 0.75 * 4


@pytest.mark.parametrize("kind", ["focal", "cross_entropy"])
def test_nothing_gives_zero_with_a_graph(kind):
    bag = torch.zeros(0, 3, requires_grad=True)
    labels = torch.zeros(0, dtype=torch.int64)
    negatives = torch.zeros(0, 4, requires_grad=True)
    terms = [
        psm_loss(bag, labels),
        positive_loss(bag, labels, torch.zeros(0)),
        negative_loss(negatives, 1.0, kind),
    ]
    assert [t.item() for t in terms] == [0, 0, 0]
    torch.stack(terms).sum().backward()
