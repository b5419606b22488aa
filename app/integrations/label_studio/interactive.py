"""A mask from what was drawn with Label Studio's smart tools: keypoints and rectangles."""

import io
from dataclasses import dataclass, field
from typing import Any

from app.errors import Invalid, ValidationIssue
from app.integrations.label_studio.images import TaskImage
from app.integrations.label_studio.interface import Control, Interface
from app.integrations.label_studio.regions import regions_of
from app.masks.click_model import ClickModel
from app.settings import Settings
from app.storage.images import NotAnImage, decoded_image
from sapnet.data.box_masks import box_mask, ellipse_mask
from sapnet.data.exif import orientation_of
from sapnet.data.images import ImageProblem, read_header
from sapnet.data.masks import decode
from sapnet.data.orientation import stored_corners, stored_point, upright_size
from sapnet.proposals.box_rules import grown
from sapnet.proposals.interactive.clicks import Click
from sapnet.types import BoolArray, Box

_MOST_LABELS = 100  # of one result
_FAR = 1e6  # per cent


@dataclass
class Drawn:
    """What was drawn for one object, in pixels of the image as it is stored.

    Attributes:
        labels: of all that was drawn, in order.
        image: name of the image's tag.
    """

    clicks: list[Click] = field(default_factory=list)
    box: Box | None = None
    labels: list[str] = field(default_factory=list)
    image: str | None = None


def annotate(
    model: ClickModel,
    settings: Settings,
    image: TaskImage,
    interface: Interface,
    context: list[dict[str, Any]],
) -> list[dict[str, Any]]:
    """Label Studio's results: the object's mask.

    Args:
        context: what was drawn, as Label Studio's results.

    Raises:
        Invalid: the image cannot be read, or there is nothing to begin with.
        Unavailable: clicks need what this installation lacks.
    """
    names = [r.get("to_name") for r in context if isinstance(r.get("to_name"), str)]
    control = interface.for_masks(names[0] if names else None)
    try:
        size = read_header(io.BytesIO(image.data), settings.max_image_pixels).size
    except ImageProblem as error:
        raise _invalid(str(error)) from error
    orientation = orientation_of(io.BytesIO(image.data))
    drawn = read_drawn(context, control, size, orientation)
    try:
        mask = _mask(model, settings, image, drawn, size)
    except (NotAnImage, ValueError) as error:
        raise _invalid(str(error)) from error
    own = [label for wanted in drawn.labels if (label := control.label(wanted))]
    label = own[0] if own else next(iter(control.labels), "object")
    return regions_of(mask, orientation, control, label)


def read_drawn(
    context: list[dict[str, Any]], control: Control, size: tuple[int, int], orientation: int
) -> Drawn:
    """Read what was drawn; what is no keypoint and no rectangle is passed over.

    A keypoint is against the object where Label Studio says so (`is_positive`), or where its label
    is none of the masks' labels ("background", say) and something else is for the object.

    Args:
        size: (h, w) of the image as stored.
    """
    drawn, others = Drawn(), list[Click]()
    height, width = upright_size(size, orientation)
    for result in context:
        value = result.get("value")
        kind = str(result.get("type", ""))
        names = ("x", "y", "width", "height") if kind.startswith("rectangle") else ("x", "y")
        if not kind.startswith(("rectangle", "keypoint")) or not isinstance(value, dict):
            continue
        if not all(_is_place(value.get(name)) for name in names):
            continue
        listed = value.get(kind)
        named = listed[:_MOST_LABELS] if isinstance(listed, list) else []
        labels = [label for label in named if isinstance(label, str)]
        x, y = (value[n] * s / 100 for n, s in (("x", width), ("y", height)))
        if kind.startswith("rectangle"):
            right, bottom = x + value["width"] * width / 100, y + value["height"] * height / 100
            inside = max(x, 0.0), max(y, 0.0), min(right, width), min(bottom, height)
            if inside[0] < inside[2] and inside[1] < inside[3]:
                drawn.box = stored_corners(inside, orientation, size)
                drawn.labels += labels
            continue
        of_masks = not labels or any(map(control.label, labels)) or not control.labels
        positive = result.get("is_positive") not in (0, False)
        x, y = min(max(x, 0.0), width - 0.5), min(max(y, 0.0), height - 0.5)
        click = Click(*stored_point(x, y, orientation, size), positive)
        (drawn.clicks if of_masks or not positive else others).append(click)
        drawn.labels += labels if positive else []
    begun = drawn.box is not None or any(click.positive for click in drawn.clicks)
    drawn.clicks += [Click(click.x, click.y, not begun) for click in others]
    return drawn


def _mask(
    model: ClickModel, settings: Settings, image: TaskImage, drawn: Drawn, size: tuple[int, int]
) -> BoolArray:
    """(H, W) bool. A box begins with the ellipse in it, and nothing goes far beyond it."""
    clicks, begun = list(drawn.clicks), None
    if drawn.box is not None:
        begun = decode(ellipse_mask(drawn.box, size))
        if not any(click.positive for click in clicks):
            left, top, right, bottom = drawn.box
            middle = Click((left + right) / 2, (top + bottom) / 2, True)
            clicks = [c for c in clicks if (int(c.x), int(c.y)) != (int(middle.x), int(middle.y))]
            clicks.insert(0, middle)
    pixels = decoded_image(io.BytesIO(image.data), settings.max_image_pixels)
    if settings.click_method == "prompter":
        mask = model.refine(image.sha256, pixels, clicks, begun)
    else:
        from sapnet.proposals.interactive.click_refine import suggest

        with pixels as array:
            mask = suggest(array, clicks, begun)
    if drawn.box is not None:
        mask = mask & decode(box_mask(grown(drawn.box), size))
        for click in drawn.clicks:
            mask[min(int(click.y), size[0] - 1), min(int(click.x), size[1] - 1)] = click.positive
    return mask


def _invalid(why: str) -> Invalid:
    return Invalid([ValidationIssue("body", "/params/context", why, "click on the object")])


def _is_place(value: Any) -> bool:
    """Whether it is a number that may be a percentage of an image's side, far outside included."""
    return isinstance(value, int | float) and -_FAR <= value <= _FAR
