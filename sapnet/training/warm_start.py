"""A training that goes on from a model: the segmenter begins with its weights."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sapnet.config.resolve import architecture_differences
from sapnet.config.schema import Config
from sapnet.errors import InvalidConfig
from sapnet.segmenters.backbones import WeightsOrigin
from sapnet.segmenters.checkpoint import load_predictor
from sapnet.training.model import BUILDERS, Builders, JointModel, assemble
from sapnet.types import Category
from sapnet.utils.files import file_sha256


def go_on_from(
    path: Path,
    config: Config,
    categories: Sequence[Category],
    seed: int,
    builders: Builders = BUILDERS,
) -> tuple[JointModel, WeightsOrigin]:
    """A model whose segmenter has the weights of a `model.pt`.

    Args:
        categories: of this training. Those that the model knows, by id and name, keep their class's
            weights, whatever their place; those that are new begin at random from `seed`, as the
            labeler does.

    Raises:
        InvalidConfig: the model is of another architecture.
        WeightsUnavailable: the file is none of ours.
    """
    before = load_predictor(path, device="cpu", ready=False, build=builders.segmenter)
    differing = architecture_differences(config, before.config.to_dict())
    if differing:
        raise InvalidConfig(f"the model to go on from does not fit: {'; '.join(differing)}")
    model = assemble(config, len(categories), before.segmenter.backbone, seed, builders)
    label_of = {category: label for label, category in enumerate(before.categories)}
    own = enumerate(sorted(categories, key=lambda category: category.id))
    pairs = [(label, label_of[category]) for label, category in own if category in label_of]
    model.segmenter.take_weights(before.segmenter, pairs)
    origin = WeightsOrigin(**before.meta["weights"])
    return model.train(), replace(origin, model=file_sha256(path))
