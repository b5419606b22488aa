"""The events of a run: one JSON line each, told apart by `event`.

The protocol is in docs/architecture.md; names and order of the fields are part of it.
"""

import json
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType


class Event(msgspec.Struct, frozen=True, tag_field="event"):
    """Any of those below."""

    def to_dict(self) -> dict[str, Any]:
        """The fields as in JSON; what is unset is left out."""
        fields: dict[str, Any] = msgspec.to_builtins(self)
        return fields

    def to_json(self) -> str:
        """The event's line, without the line's end."""
        return json.dumps(self.to_dict())


class Started(Event, frozen=True, tag="start"):
    """The run knows what it will do."""

    proposal_generator: str
    weights_origin: str
    steps_total: int


class PresetChosen(Event, frozen=True, tag="preset"):
    """A run that was asked for the preset `auto` has chosen one, before all else.

    Attributes:
        reasons: short sentences.
    """

    preset: str
    reasons: list[str]


class Progressed(Event, frozen=True, tag="progress"):
    """A stage has come to `step` of `of`.

    Attributes:
        losses: by name, of a stage that learns.
    """

    stage: str
    step: int
    of: int
    eta_seconds: float | UnsetType | None = UNSET
    losses: dict[str, float] | UnsetType = UNSET


class Validated(Event, frozen=True, tag="validation"):
    """The model was measured on the images held out.

    Attributes:
        step: after how many of `of` steps.
        against: "ground truth", "confirmed masks" or "delivered masks".
        figures: AP, AP50 and AP75 in [0, 1].
    """

    step: int
    of: int
    against: str
    figures: dict[str, float]


class Warned(Event, frozen=True, tag="warning"):
    """Something that the user should know, and that ends nothing."""

    message: str


class ImageSetAside(Event, frozen=True, tag="image_set_aside"):
    """The run goes on without an image.

    Attributes:
        error: how it failed in `stage`.
    """

    image_id: int
    file_name: str
    stage: str
    error: str


class ImageBegun(Event, frozen=True, tag="image"):
    """A process that works on a shard turns to an image.

    Attributes:
        step: images that it is done with.
    """

    image_id: int
    step: int


class ShardDone(Event, frozen=True, tag="shard_done"):
    """A shard's result is written."""

    images: int
    seconds: float


class Planned(Event, frozen=True, tag="planned"):
    """What whoever works on shards of a run needs to know of the whole data set."""

    plan: dict[str, Any]


class Failed(Event, frozen=True, tag="error"):
    """The end, without a result.

    Attributes:
        reason: one of a fixed list, where a program may read it.
    """

    reason: str | UnsetType = UNSET
    message: str = ""


class Done(Event, frozen=True, tag="done"):
    """The end, with a result.

    Attributes:
        seconds: by stage.
    """

    seconds: dict[str, float]
    peak_memory_mb: int


EventSink = Callable[[Event], None]
