"""A training that goes on from a model: the segmenter begins with what fits of its weights."""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from sapnet.config.resolve import architecture_differences, body_difference
from sapnet.config.schema import Config
from sapnet.errors import InvalidConfig
from sapnet.segmenters.backbones import BackboneWithFpn, WeightsOrigin
from sapnet.segmenters.importing import read_model
from sapnet.training.model import BUILDERS, Builders, JointModel, assemble
from sapnet.types import Category
from sapnet.utils.files import file_sha256

SIMILAR = 0.75
"""From which likeness of their names on a class begins as another one, 0 to 1."""
_NAMED = 8  # tensors and classes in a note


def go_on_from(
    path: Path,
    config: Config,
    categories: Sequence[Category],
    seed: int,
    builders: Builders = BUILDERS,
    note: Callable[[str], None] = lambda _text: None,
) -> tuple[JointModel, WeightsOrigin]:
    """A model whose segmenter begins with the weights of a file (`sapnet.segmenters.importing`).

    What fits is taken. Tensors of other widths begin at random from `seed`, as the labeler does.

    Args:
        categories: of this training. See `class_sources` for what each begins with.
        note: told what does not fit, and what new classes begin with.

    Raises:
        InvalidConfig: the model has another body.
        WeightsUnavailable: the file is none that is known.
    """
    before = read_model(path, build=builders.segmenter)
    described = before.config.to_dict()
    if differs := body_difference(config, described):
        raise InvalidConfig(f"the model to go on from does not fit: {differs}")
    origin = WeightsOrigin(**before.meta["weights"])
    backbone = BackboneWithFpn(config.backbone, pretrained=origin.kind != "random")
    model = assemble(config, len(categories), backbone, seed, builders)
    earlier = [Category(c["id"], c["name"]) for c in before.meta["categories"]]
    own = sorted(categories, key=lambda category: category.id)
    sources = class_sources(own, earlier)
    left = model.segmenter.take_weights(before.state, sources)
    if not earlier:  # a body alone, as weights from ImageNet are
        return model.train(), origin
    if left:
        why = "; ".join(architecture_differences(config, described)) or "other shapes"
        total = len(model.segmenter.state_dict())
        note(f"{len(left)} of {total} tensors begin anew, {_some(left)}: {why}")
    if new := [
        _begins(c, s, earlier) for c, s in zip(own, sources, strict=True) if c not in earlier
    ]:
        note(f"classes that the model does not know begin as others: {_some(new)}")
    return model.train(), replace(origin, model=file_sha256(path))


def class_sources(own: Sequence[Category], earlier: Sequence[Category]) -> list[list[int]]:
    """For each class, the labels of a model's classes whose mean it begins with.

    These are that of the same id and name, of the same name, of the most similar name where one is
    similar (`SIMILAR`), else all.
    """
    return [_sources(category, earlier) for category in own]


def _sources(category: Category, earlier: Sequence[Category]) -> list[int]:
    if category in earlier:
        return [earlier.index(category)]
    likeness = [_likeness(category.name, other.name) for other in earlier]
    best = max(likeness, default=0.0)
    return [likeness.index(best)] if best >= SIMILAR else list(range(len(earlier)))


def _likeness(one: str, other: str) -> float:
    """Of two names, 0 to 1, without regard to case and separators; a last word counts much."""
    words, others = (name.casefold().replace("_", " ").split() for name in (one, other))
    if not words or not others:
        return 0.0
    ratio = difflib.SequenceMatcher(None, " ".join(words), " ".join(others)).ratio()
    return max(ratio, SIMILAR + 0.1) if words[-1] == others[-1] and ratio < 1 else ratio


def _begins(category: Category, sources: Sequence[int], earlier: Sequence[Category]) -> str:
    what = repr(earlier[sources[0]].name) if len(sources) == 1 else "their mean"
    return f"{category.name!r} as {what}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
