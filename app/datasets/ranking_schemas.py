"""What GET /datasets/{id}/next answers."""

from typing import Literal

from pydantic import BaseModel, Field

Wanted = Literal["unannotated", "open"]
_TERM = "0 to 1; null where it is not known"


class Reasons(BaseModel):
    """The terms of an image's score, each from 0 to 1 after scaling; null where not known."""

    uncertainty: float | None = Field(
        description=f"how unsure the open masks of the image are, and how many objects seem to be "
        f"missed; {_TERM}"
    )
    disagreement: float | None = Field(
        description="of a training's masks: how far segmenter and proposals expect another mask; "
        f"of predicted ones: how far their boxes overlap; {_TERM}"
    )
    novelty: float | None = Field(
        description=f"how unlike the images that are done it looks; {_TERM}"
    )
    diversity: float | None = Field(
        description="how unlike the images that are done, and those before it in this order, it "
        f"looks; {_TERM}, and of those that follow the first 1,000"
    )


class NextImage(BaseModel):
    """An image to look at next, and why."""

    image_id: int
    file_name: str
    annotations: int
    masks: int = Field(description="open masks of the job in this image")
    score: float = Field(description="weighted sum of the reasons")
    reasons: Reasons


class TermWeights(BaseModel):
    """How much each reason counts."""

    uncertainty: float
    disagreement: float
    novelty: float
    diversity: float


class NextPage(BaseModel):
    """Some images in the order in which to look at them, and the cursor of the next page."""

    dataset_id: str
    job_id: str | None = Field(description="the job whose masks were looked at; null where none is")
    total: int = Field(description="how many images there are to look at")
    done: int = Field(description="how many images need no look")
    complete: bool = Field(
        description="whether the look of all images is known; false while a worker describes them"
    )
    weights: TermWeights
    images: list[NextImage]
    next: str | None
