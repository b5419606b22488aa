"""A project's labelling interface, as far as it says what results are to look like."""

from dataclasses import dataclass
from xml.parsers import expat

from app.errors import Invalid, ValidationIssue

KINDS = {"brushlabels": "brushlabels", "polygonlabels": "polygonlabels"}
"""Tags, in lower case, that can hold a mask, the best first; and the type of their results."""
BOXES = {"rectanglelabels": "rectanglelabels"}
_LABELLED = (*KINDS, *BOXES, "keypointlabels")


@dataclass(frozen=True)
class Control:
    """A tag with labels for regions of an image.

    Attributes:
        type: of its results: brushlabels, polygonlabels or rectanglelabels.
        name: of the tag.
        image: name of the image's tag.
        labels: in order.
    """

    type: str
    name: str
    image: str
    labels: tuple[str, ...]

    def label(self, wanted: str) -> str | None:
        """Its label of this name, in any case; None where it has none."""
        if wanted in self.labels:
            return wanted
        return {label.lower(): label for label in self.labels}.get(wanted.lower())


@dataclass(frozen=True)
class Interface:
    """What the service needs to know of a labelling interface.

    Attributes:
        images: name of an image's tag -> the member of a task's data that has its address.
        controls: in order.
    """

    images: dict[str, str]
    controls: tuple[Control, ...]

    def for_masks(self, image: str | None = None) -> Control:
        """The tag that masks are written for.

        Args:
            image: name of the image's tag, where there are several.

        Raises:
            Invalid: there is none.
        """
        for kind in KINDS:
            for control in self.controls:
                if control.type == kind and image in (None, control.image):
                    return control
        detail = "the labelling interface has no tag for masks of an image"
        hint = '<BrushLabels name="tag" toName="image"> with the labels in it'
        raise Invalid([ValidationIssue("body", "/label_config", detail, hint)])

    def for_predictions(self) -> Control:
        """The tag that predictions are written for: for masks, or else for boxes.

        Raises:
            Invalid: there is none.
        """
        boxes = [control for control in self.controls if control.type in BOXES]
        if boxes and not any(control.type in KINDS for control in self.controls):
            return boxes[0]
        return self.for_masks()

    def address(self, data: dict[str, object], control: Control) -> str | None:
        """The address of the image in a task's data that a tag is about."""
        member = self.images.get(control.image)
        address = data.get(member) if member else None
        return address if isinstance(address, str) and address else None


def read_interface(config: str) -> Interface:
    """Read a labelling interface's XML.

    Raises:
        Invalid: it is no XML.
    """
    images: dict[str, str] = {}
    controls: list[Control] = []
    open_tags: list[tuple[str, dict[str, str], list[str]]] = []

    def begin(tag: str, attributes: dict[str, str]) -> None:
        if tag.lower() == "label" and "value" in attributes:
            for _, _, labels in open_tags[-1:]:
                labels.append(attributes["value"])
            open_tags.append((tag, attributes, []))
            return
        nested = open_tags[-1][2] if open_tags else []
        labelled = tag.lower() in _LABELLED
        open_tags.append((tag, attributes, [] if labelled else nested))

    def end(_tag: str) -> None:
        tag, attributes, labels = open_tags.pop()
        kind, name = tag.lower(), attributes.get("name", "")
        if kind == "image" and name:
            images[name] = attributes.get("value", "").lstrip("$")
        elif kind in {**KINDS, **BOXES} and name:
            controls.append(Control(kind, name, attributes.get("toName", ""), tuple(labels)))

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = begin, end
    parser.EntityDeclHandler = _refuse_entities
    try:
        parser.Parse(config, True)
    except (expat.ExpatError, UnicodeError) as error:
        detail = f"the labelling interface is no XML: {error}"
        raise Invalid([ValidationIssue("body", "/label_config", detail)]) from error
    return Interface(images, tuple(controls))


def _refuse_entities(*_: object) -> None:
    detail = "the labelling interface declares entities"
    raise Invalid([ValidationIssue("body", "/label_config", detail, "write them out")])
