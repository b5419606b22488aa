"""The branch whole: what it picks does not depend on order, padding or company."""

from dataclasses import fields, replace

import pytest
import torch

from sapnet.config.methods import METHODS
from sapnet.config.schema import Config, MilConfig
from sapnet.labelers.sapnet.bag_batch import Bags
from sapnet.labelers.sapnet.heads import RoiFeatures
from sapnet.labelers.sapnet.positive_negative_sampling import with_image
from sapnet.labelers.sapnet.selection import take
from sapnet.labelers.sapnet.selector import MilBranch, take_class

STRIDES = (4, 8, 16)
BASE = MilConfig(fc_channels=24, roi_sampling=1, background_negatives=8, prior_medoid=0.5)
OF_METHOD = {
    method: apply(Config(mil=BASE)).mil
    for method, apply in METHODS.items()
    if apply(Config()).mil.rule == "learned"
}


def make_branch(config, classes=3, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        branch = MilBranch(num_classes=classes, in_channels=4, strides=STRIDES, config=config)
        for parameter in branch.parameters():  # far from the near-equal scores of the start
            if parameter.shape[0] < 24:
                torch.nn.init.normal_(parameter, std=0.5)
    return branch


def make_levels(images=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(images, 4, 96 // s, 96 // s, generator=generator) for s in STRIDES]


def sizes_of(images=2):
    return torch.full((images, 2), 96)


def generators(seed, images=2):
    return [torch.Generator().manual_seed(10 * seed + image) for image in range(images)]


@pytest.mark.parametrize("method", OF_METHOD)
@pytest.mark.parametrize("seed", range(6))
def test_order_of_arrival(tools, method, seed):
    """Whatever the order in a bag, ties among them, the same mask is picked."""
    bags, levels = tools.make_bags(seed), make_levels(seed=seed)
    config = replace(OF_METHOD[method], instance_branch=seed % 2 == 0)
    branch = make_branch(config, seed=seed)
    straight = branch(levels, bags, sizes_of())
    for again in range(3):
        mixed, order = tools.shuffle(bags, 10 * seed + again)
        got = branch(levels, mixed, sizes_of())
        assert take(order, got.selected).tolist() == straight.selected.tolist()
        torch.testing.assert_close(got.boxes, straight.boxes)
        torch.testing.assert_close(got.expected_iou, straight.expected_iou)


@pytest.mark.parametrize("method", OF_METHOD)
def test_twins_of_one_box(tools, method):
    """Masks of one box have the same features and scores: medoid, then size decide."""
    bags = tools.make_bags(0, (6, 6), images=2)
    bags.boxes[:] = torch.tensor([10.0, 20, 50, 60])
    bags.medoid[:] = 0.5
    bags.distance[:] = 1.0
    bags.contains_other_point[:] = False
    bags.medoid[0, 4] = 0.75
    got = make_branch(OF_METHOD[method])(make_levels(), bags, sizes_of())
    assert got.selected.tolist() == [4, int(bags.size_rank[1].argmin())]


@pytest.mark.parametrize("method", OF_METHOD)
def test_padding_is_never_picked_and_never_counts(tools, method):
    bags, branch = tools.make_bags(3), make_branch(OF_METHOD[method])
    spoilt = {f.name: getattr(bags, f.name).clone() for f in fields(bags)}
    spoilt["boxes"][~bags.valid] = torch.tensor([3.0, 3, 90, 90])
    for name in ("medoid", "confidence"):
        spoilt[name][~bags.valid] = 1.0
    spoilt["size_rank"][~bags.valid] = -1
    results = [branch(make_levels(), b, sizes_of(), generators(0)) for b in (bags, Bags(**spoilt))]
    assert torch.equal(results[0].selected, results[1].selected)
    assert (results[0].selected < bags.valid.sum(1)).all()
    assert results[0].losses.keys() == results[1].losses.keys()
    for name, loss in results[0].losses.items():
        torch.testing.assert_close(loss, results[1].losses[name])
    torch.testing.assert_close(results[0].expected_iou, results[1].expected_iou)


@pytest.mark.parametrize("method", OF_METHOD)
def test_alone_or_in_a_batch(tools, method):
    """An image's bags get the same picks whatever stands beside them, longer bags too."""
    bags, levels = tools.make_bags(4, (2, 5, 8, 3)), make_levels()
    branch = make_branch(OF_METHOD[method])
    together = branch(levels, bags, sizes_of())
    for index in range(2):
        rows = bags.image == index
        longest = int(bags.valid[rows].sum(1).max())
        own = {f.name: getattr(bags, f.name)[rows] for f in fields(bags)}
        own = {k: v[:, :longest] if v.ndim > 1 else v for k, v in own.items()}
        own["image"] = torch.zeros_like(own["image"])
        alone = branch([m[index : index + 1] for m in levels], Bags(**own), sizes_of(1))
        assert torch.equal(alone.selected, together.selected[rows])
        torch.testing.assert_close(alone.boxes, together.boxes[rows])
        torch.testing.assert_close(alone.expected_iou, together.expected_iou[rows])


def test_foreign_proposals_are_not_picked(tools):
    bags = tools.make_bags(5, (8, 8, 8, 8, 8, 8))
    branch = make_branch(OF_METHOD["sapnet++"])
    picked = branch(make_levels(), bags, sizes_of()).selected
    assert not take(bags.contains_other_point, picked).any()
    bags.contains_other_point[:] = True
    free = replace(OF_METHOD["sapnet++"], exclude_foreign_points=False)
    everywhere = branch(make_levels(), bags, sizes_of()).selected
    assert torch.equal(everywhere, make_branch(free)(make_levels(), bags, sizes_of()).selected)


@pytest.mark.parametrize(
    ("method", "terms"),
    [("mil", {"psm"}), ("sapnet", {"psm", "srm"}), ("sapnet++", {"psm", "srm", "sasd"})],
)
@pytest.mark.parametrize("lengths", [(), (1,), (1, 1), (5, 1, 8, 3)])
@pytest.mark.parametrize("classes", [1, 3])
def test_losses_of_each_method(tools, method, terms, lengths, classes):
    """They are finite, seeded, and reach the pyramid end to end; no bags and K = 1 among them."""
    bags = tools.make_bags(6, lengths, classes)
    levels = [level.requires_grad_() for level in make_levels()]
    branch = make_branch(OF_METHOD[method], classes)
    first, second = (branch(levels, bags, sizes_of(), generators(3)) for _ in range(2))
    assert set(first.losses) == terms
    total = torch.stack(list(first.losses.values())).sum()
    assert total.isfinite()
    assert float(total.detach()) == float(torch.stack(list(second.losses.values())).sum().detach())
    total.backward()
    assert all(level.grad is None or level.grad.isfinite().all() for level in levels)
    assert any(level.grad is not None and level.grad.any() for level in levels)
    assert first.selected.shape == first.expected_iou.shape == (len(lengths),)
    assert ((first.expected_iou >= 0) & (first.expected_iou <= 1 + 1e-5)).all()
    assert not first.expected_iou.requires_grad


def test_without_a_generator_nothing_is_lost(tools):
    bags = tools.make_bags(6)
    assert make_branch(BASE)(make_levels(), bags, sizes_of()).losses == {}


def test_completeness_is_not_trusted_at_first(tools):
    """While SASD warms up, its factor is left out of the picks."""
    bags, levels = tools.make_bags(1, (8,) * 8), make_levels()
    config = replace(OF_METHOD["sapnet++"], box_mining=False, completeness_floor=0.0)
    branch = make_branch(config)
    cold = branch(levels, bags, sizes_of(), use_completeness=False)
    warm = branch(levels, bags, sizes_of(), use_completeness=True)
    plain = make_branch(replace(config, completeness=False))
    assert torch.equal(cold.selected, plain(levels, bags, sizes_of()).selected)
    assert not torch.equal(cold.selected, warm.selected)


@pytest.mark.parametrize(("classes", "same_as"), [(1, False), (3, True)])
def test_the_instance_branch_waits_for_a_second_class(tools, classes, same_as):
    """null takes it where there are two classes or more: certainties are those of that setting."""
    bags = tools.make_bags(5, (6,) * 4, classes=classes)
    found = [
        make_branch(replace(BASE, instance_branch=setting), classes)(
            make_levels(), bags, sizes_of()
        ).expected_iou
        for setting in (None, same_as, not same_as)
    ]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_a_dead_predictor_is_counted(tools):
    bags = tools.make_bags(1, (8, 1, 2))
    branch = make_branch(replace(OF_METHOD["sapnet++"], completeness_floor=0.0))
    for stage in (branch.psm, branch.srm):
        torch.nn.init.zeros_(stage.complete.fc.weight)
        torch.nn.init.constant_(stage.complete.fc.bias, -50.0)
    assert int(branch(make_levels(), bags, sizes_of()).undecided) == 2
    alive = make_branch(OF_METHOD["sapnet++"])(make_levels(), bags, sizes_of())
    assert int(alive.undecided) == 0


def test_level_of_a_box():
    features = RoiFeatures(in_channels=2, channels=3, strides=(4, 8, 16, 32, 64))
    sides = torch.tensor([0.0, 1, 55.9, 56, 111, 112, 224, 448, 896, 1e5])
    boxes = torch.stack([sides * 0, sides * 0, sides, sides], dim=1)
    assert features.level_of(boxes).tolist() == [0, 0, 0, 0, 0, 1, 2, 3, 4, 4]
    long = torch.tensor([[0.0, 0, 28, 448]])  # sqrt(area) = 112
    assert features.level_of(long).tolist() == [1]


def test_features_are_read_from_the_boxs_own_image_and_level():
    """On constant maps, RoIAlign gives the constant: 1 + image + 10 · level."""
    levels = [
        torch.stack([torch.full((1, 96 // s, 96 // s), 1.0 + i + 10 * n) for i in range(2)])
        for n, s in enumerate(STRIDES)
    ]
    features = RoiFeatures(in_channels=1, channels=49, strides=STRIDES)
    for layer in (features.fc1, features.fc2):
        torch.nn.init.eye_(layer.weight)
    rois = torch.tensor([[0.0, 4, 4, 20, 20], [1, 4, 4, 60, 60], [1, 0, 0, 112, 96]])
    rois[2, 3:] = 112
    got = features(features.pyramid(levels), rois).detach()
    torch.testing.assert_close(got[0], torch.full((49,), 1.0))
    torch.testing.assert_close(got[1], torch.full((49,), 2.0))
    assert float(got[2].max()) == pytest.approx(12.0)  # part of it lies beyond the border
    normal = RoiFeatures(in_channels=1, channels=16, strides=STRIDES, normalize=True)
    lengths = normal(normal.pyramid(levels), rois).norm(dim=1)
    torch.testing.assert_close(lengths, torch.full((3,), 4.0))


def test_rois_and_rows(tools):
    bags = tools.make_bags(2)
    rois = bags.rois()
    assert rois.shape == (5 + 1 + 8 + 3, 5)
    row = 0
    for n in range(4):
        for m in range(8):
            if bags.valid[n, m]:
                assert rois[row].tolist() == [float(bags.image[n]), *bags.boxes[n, m].tolist()]
                row += 1
    spread = bags.spread(rois, bags.places())
    assert torch.equal(spread[..., 1:], bags.boxes)
    assert (spread[~bags.valid] == 0).all()


def test_small_helpers(draw):
    scores, labels = draw(3, 4, 5), torch.tensor([4, 0, 2])
    got = take_class(scores, labels)
    for n in range(3):
        assert torch.equal(got[n], scores[n, :, labels[n]])
    boxes = torch.arange(16.0).reshape(2, 2, 4)
    rois = with_image(boxes, torch.tensor([1, 0]))
    assert rois[:, 0].tolist() == [1, 1, 0, 0]
    assert torch.equal(rois[:, 1:], boxes.reshape(4, 4))
