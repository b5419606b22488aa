"""Masks that are known: trained from as they are, delivered as they are, part of the run."""

import json
from dataclasses import replace

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from sapnet.data.annotations.coco import load_points
from sapnet.errors import InvalidConfig
from sapnet.pipeline.run import Run
from sapnet.proposals import build_generator
from sapnet.proposals.cached import CachedProposals, masks_digest
from sapnet.types import CONFIRMED


def rle(mask):
    found = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": found["counts"].decode()}


@pytest.fixture
def spec(make_spec, scenes, given, tmp_path):
    """The scenes with two masks that are known, neither of them a proposal; one image has no
    other object."""
    document = json.loads(scenes.points.read_text())
    first, *others = document["annotations"]
    document["annotations"] = [first] + [a for a in others if a["image_id"] != first["image_id"]]
    for annotation, size in zip(document["annotations"][:2], (9, 14), strict=True):
        mask = np.zeros((96, 128), bool)
        x, y = (int(v) for v in annotation["point"])
        mask[max(y - size, 0) : y + size, max(x - 6, 0) : x + 6] = True
        annotation["mask"] = rle(mask)
    points = tmp_path / "points.json"
    points.write_text(json.dumps(document))
    ids = {str(annotation["id"]) for annotation in document["annotations"]}
    ours = {key: masks for key, masks in given["document"].items() if key in ids}
    proposals = {"kind": "given", "document": ours}
    return make_spec(tmp_path / "run", points=points, truth=None, proposals=proposals)


def test_the_bag_is_the_mask_alone(spec):
    points = load_points(spec.points)
    generator = build_generator(spec.proposals, points)
    asked = []
    propose = generator.propose
    generator.propose = lambda *args: asked.append(args[1].id) or propose(*args)
    maker = CachedProposals(spec.proposal_store, generator, spec.image_paths, 16)
    bags = {b.annotation_id: b for info, group in points for b in maker(info, group)}
    known = {a.id: a.mask for a in points.annotations if a.mask}
    assert len(known) == 2
    for annotation in points.annotations:
        bag = bags[annotation.id]
        if annotation.id in known:
            assert (bag.masks, bag.sources) == ((known[annotation.id],), (CONFIRMED,))
            assert bag.confidence.tolist() == [1.0]
            assert bag.overlaps.tolist() == [[1.0]]
        else:
            assert CONFIRMED not in bag.sources
    # nobody was asked about an image of which all is known; the others' bags are the points' own
    assert points.images[0].id not in asked
    assert len(asked) == len(points.images) - 1
    without = [
        (info, [replace(a, mask=None) for a in group]) for info, group in points if info.id in asked
    ]
    for info, group in without:
        maker(info, group)
    assert len(asked) == len(points.images) - 1


@pytest.mark.slow
def test_it_is_delivered_as_it_is(spec):
    events = []
    Run(spec, events.append, lambda: False)()
    points = load_points(spec.points)
    lines = (spec.workdir / "result" / "pseudo_masks.ndjson").read_text().splitlines()
    rows = {row["id"]: row for row in map(json.loads, lines)}
    assert len(rows) == len(points.annotations)
    for annotation in points.annotations:
        row = rows[annotation.id]
        if annotation.mask is None:
            assert row["source"] != CONFIRMED
            continue
        assert (row["segmentation"], row["selected"]) == (annotation.mask, annotation.mask)
        assert (row["quality"], row["source"]) == (1.0, CONFIRMED)
        assert (row["refined"], row["candidates"]) == (None, [])
    document = json.loads(spec.points.read_text())
    document["annotations"][0].pop("mask")
    spec.points.write_text(json.dumps(document))
    with pytest.raises(InvalidConfig, match="masks was"):
        Run(spec, events.append, lambda: False)()


def test_runs_without_masks_are_what_they_were(scenes, spec):
    assert masks_digest(load_points(scenes.points)) is None
    assert masks_digest(load_points(spec.points))
