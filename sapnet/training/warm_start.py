"""A training that goes on from a model: the segmenter begins with its weights."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from sapnet.config.resolve import architecture_differences
from sapnet.config.schema import Config
from sapnet.errors import InvalidConfig
from sapnet.segmenters.backbones import WeightsOrigin
from sapnet.segmenters.checkpoint import Predictor, load_predictor
from sapnet.segmenters.solov2 import SoloHead
from sapnet.training.model import SapNet, assemble
from sapnet.types import Category
from sapnet.utils.files import file_sha256


def go_on_from(
    path: Path, config: Config, categories: Sequence[Category], seed: int
) -> tuple[SapNet, WeightsOrigin]:
    """A SapNet whose backbone, pyramid and SOLO head have the weights of a `model.pt`.

    categories: of this training. Those that the model knows, by id and name, keep their class's
    weights, whatever their place; those that are new begin at random from `seed`, as the MIL branch
    does. InvalidConfig where the model is of another architecture, WeightsUnavailable where the
    file is none of ours.
    """
    before = load_predictor(path, device="cpu", ready=False)
    differing = architecture_differences(config, before.config.to_dict())
    if differing:
        raise InvalidConfig(f"the model to go on from does not fit: {'; '.join(differing)}")
    model = assemble(config, len(categories), before.segmenter.backbone, seed)
    take_head(model.solo.head, before, sorted(categories, key=lambda category: category.id))
    origin = WeightsOrigin(**before.meta["weights"])
    return model.train(), replace(origin, model=file_sha256(path))


def take_head(head: SoloHead, before: Predictor, categories: Sequence[Category]) -> None:
    """Load a model's head into one for other classes. categories: by label."""
    state, theirs = head.state_dict(), before.segmenter.head.state_dict()
    place = {category: row for row, category in enumerate(before.categories)}
    both = [(row, place[c]) for row, c in enumerate(categories) if c in place]
    mine, known = torch.tensor(both, dtype=torch.int64).reshape(-1, 2).unbind(1)
    for name, values in theirs.items():
        if name.startswith("conv_cls."):
            state[name][mine] = values[known]
        else:
            state[name] = values
    head.load_state_dict(state)
