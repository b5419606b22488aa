"""What the service answers.

Fields that this version does not know are passed over; ids of images, annotations and categories
are your own.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from sapnet_client.bound import Drawn, Trained

MAX_PIXELS = 2**30  # of a mask


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmentation:
    """A mask as compressed COCO RLE.

    Attributes:
        size: height, width in pixels.
    """

    size: list[int]
    counts: str

    def array(self) -> Any:
        """Return a boolean numpy array (height, width).

        Raises:
            ValueError: this is no mask of its size.
        """
        import numpy

        if len(self.size) != 2 or not all(type(n) is int and n > 0 for n in self.size):
            raise ValueError(f"{self.size} is no size of an image")
        height, width = self.size
        runs = _run_lengths(self.counts)
        if height * width > MAX_PIXELS or min(runs, default=0) < 0 or sum(runs) != height * width:
            raise ValueError(f"the counts are no mask of {width}×{height} pixels")
        columns = numpy.repeat(numpy.arange(len(runs)) % 2 == 1, runs)
        return columns.reshape(width, height).T

    @classmethod
    def of(cls, array: Any) -> "Segmentation":
        """Make one of an array (height, width); what is not 0 is the object.

        Raises:
            ValueError: the array has not two axes.
        """
        import numpy
        from pycocotools import mask

        if numpy.ndim(array) != 2:
            raise ValueError(f"a mask has two axes, not {numpy.ndim(array)}")
        rle = mask.encode(numpy.asfortranarray(array).astype(bool).astype(numpy.uint8, order="F"))
        return cls(size=[int(n) for n in rle["size"]], counts=rle["counts"].decode())

    def document(self) -> dict[str, Any]:
        """Return the mask as plain JSON values."""
        return {"size": list(self.size), "counts": self.counts}


@dataclass(frozen=True, slots=True, kw_only=True)
class Category:
    """A class of a data set, by your own id, with its number of annotations."""

    id: int
    name: str
    annotations: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something that is wrong with a data set, or odd but legal."""

    part: str = ""
    pointer: str = ""
    detail: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportProgress:
    """How far the import of a data set is: `progress` from 0 to 1."""

    job_id: str
    state: str
    stage: str | None = None
    progress: float = 0.0
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetReport:
    """What the import of a data set met with.

    Attributes:
        points, boxes, masks: how many annotations have one; None where it was not counted.
    """

    progress: ImportProgress | None = None
    errors: list[Note] = field(default_factory=list)
    warnings: list[Note] = field(default_factory=list)
    truth: str | None = None
    points: int | None = None
    boxes: int | None = None
    masks: int | None = None
    subsets: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A data set. Lists of data sets have no categories and no report.

    Attributes:
        status: ready, importing or invalid.
    """

    id: str
    name: str
    status: str
    images: int
    annotations: int
    created_at: datetime
    parent_id: str | None = None
    categories: list[Category] = field(default_factory=list)
    report: DatasetReport = field(default_factory=DatasetReport)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image of a data set, by your own id: its size in pixels, its number of annotations.

    Attributes:
        subset: train, val or test, where you split the data set.
        group: images of one group are held out of training together.
    """

    id: int
    file_name: str
    width: int
    height: int
    annotations: int = 0
    sha256: str = ""
    subset: str | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """An object: its point or box, and the mask that a person has confirmed for it.

    Attributes:
        point: x, y in pixels; the middle of the box where `pointed` is false.
        bbox: x, y, width, height of the box in pixels, where there is one.
    """

    id: int
    image_id: int
    category_id: int
    point: list[float]
    mask: Segmentation | None = None
    bbox: list[float] | None = None
    pointed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassStatistics:
    """A class of a data set: its objects, their share of all, and in how many images they are."""

    id: int
    name: str
    annotations: int
    share: float
    images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A place in a data set to look at.

    Attributes:
        point: x, y in pixels.
        other_image_ids: images that look like this one.
        value: distance in pixels, or quality of the mask, by the kind of the finding.
    """

    image_id: int
    file_name: str
    annotation_id: int | None = None
    point: list[float] | None = None
    other_image_ids: list[int] = field(default_factory=list)
    other_annotation_id: int | None = None
    value: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something about a data set that is worth a look: `kind` for programs, `detail` for people."""

    kind: str
    count: int
    detail: str
    examples: list[Example] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetStatistics:
    """What is in a data set, and what in it looks wrong.

    Attributes:
        described: images that were compared with each other.
        complete: whether these are all that can be read; if not, ask again later.
        objects_per_image, mask_areas: count, min, lower_quartile, median, upper_quartile, max and
            mean; areas in pixels, of confirmed masks.
        images_by_objects: how many images have from `objects` to `most` objects.
        image_sizes: the most frequent.
    """

    dataset_id: str
    images: int
    images_without_annotations: int
    annotations: int
    described: int
    complete: bool
    classes: list[ClassStatistics]
    findings: list[Finding]
    unreadable: int = 0
    different_sizes: int = 0
    job_id: str | None = None
    objects_per_image: dict[str, float] | None = None
    mask_areas: dict[str, float] | None = None
    images_by_objects: list[dict[str, int]] = field(default_factory=list)
    image_sizes: list[dict[str, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardCounts:
    """How many shards of a job are in each state."""

    queued: int
    running: int
    done: int
    failed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Some images of one stage of a job, made by whichever worker took them.

    Attributes:
        step: images that are done.
        seconds: of work so far, all attempts together.
        worker: who works on it, or has made it.
        failed_images: images that failed: image_id, file_name, stage, error.
    """

    number: int
    stage: str
    state: str
    images: int
    step: int
    seconds: float
    attempt: int
    worker: str | None = None
    failed_images: list[dict[str, Any]] = field(default_factory=list)
    reason: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NextImage:
    """An image to look at next.

    Attributes:
        masks: open masks of the job whose masks were looked at.
        score: weighted sum of the reasons.
        reasons: uncertainty, disagreement, novelty and diversity, each from 0 to 1; None where it
            is not known.
    """

    image_id: int
    file_name: str
    annotations: int
    masks: int
    score: float
    reasons: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(Trained):
    """A job. Just after its start only id and state are known.

    Attributes:
        preset: "auto" until the training has chosen one, for `preset_reasons`.
        progress: of the whole job, 0 to 1.
        eta_seconds: to the end of the stage.
        reason: why it is in its state, for programs.
        error: what went wrong, for people.
        tracking: addresses of its runs by tracker of experiments.
        shards: of a job that many workers share; None of others, and in lists.
    """

    id: str
    state: str
    kind: str = "train"
    dataset_id: str | None = None
    method: str | None = None
    preset: str | None = None
    preset_reasons: list[str] | None = None
    seed: int | None = None
    stage: str | None = None
    progress: float = 0.0
    step: int | None = None
    of: int | None = None
    eta_seconds: float | None = None
    losses: dict[str, float | None] | None = None
    reason: str | None = None
    error: str | None = None
    warnings: list[str] = field(default_factory=list)
    proposal_generator: str | None = None
    weights_origin: str | None = None
    attempt: int = 0
    model_id: str | None = None
    tracking: dict[str, str | None] | None = None
    metrics: dict[str, Any] | None = None
    shards: ShardCounts | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def over(self) -> bool:
        """Whether its state is final."""
        return self.state not in ("queued", "running", "cancelling")

    @property
    def succeeded(self) -> bool:
        """Whether it has results."""
        return self.state in ("succeeded", "succeeded_with_warnings")


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """How long a training will take, in seconds.

    Attributes:
        seconds: by stage; `start` is what comes before the first.
        low, high: bounds of the total.
        basis: what it comes from, for people.
    """

    seconds: dict[str, float]
    total: float
    low: float
    high: float
    basis: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """What a training would do.

    Attributes:
        reasons: why this preset, where the request leaves it open.
    """

    preset: str
    reasons: list[str] = field(default_factory=list)
    estimate: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to a job.

    Attributes:
        id: 1, 2, 3, …; the last event is of type "end".
    """

    id: int
    type: str
    timestamp: datetime
    job_id: str
    attempt: int
    data: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """Figures, where truth was given.

    Attributes:
        seconds: of each stage.
    """

    pseudo_masks: dict[str, Any] | None = None
    model: dict[str, Any] | None = None
    proposals: dict[str, Any] | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory_mb: float | None = None
    proposal_generator: str | None = None
    weights_origin: str | None = None
    validation: dict[str, Any] | None = None
    test: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Another mask that the object's bag had."""

    index: int
    segmentation: Segmentation
    probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask(Drawn):
    """A pseudo-mask. `doubts` and what is below it come with detail.

    Attributes:
        bbox: x, y, width, height in pixels.
        quality: 0 to 1.
        source: refined, selected, predicted (by a model, in an image without annotations), or
            confirmed.
        status: open, accepted, corrected or rejected, at this revision.
        rule_id: the rule that accepted it, where nobody has decided about it since.
        delivered_category_id: the class that it was delivered with, where it has another one now.
        score: of a predicted mask.
        doubts: what the quality is made of.
        delivered: what a corrected mask was before.
    """

    id: int
    image_id: int
    category_id: int
    segmentation: Segmentation
    bbox: list[float]
    area: float
    quality: float
    source: str
    mask_id: str = ""
    status: str = "open"
    revision: int = 0
    point: list[float] | None = None
    doubts: dict[str, float | None] | None = None
    candidates: list[Candidate] | None = None
    delivered: Segmentation | None = None
    selected: Segmentation | None = None
    refined: Segmentation | None = None
    proposal_source: str | None = None
    rule_id: str | None = None
    delivered_category_id: int | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule that has accepted the open masks of a job from a quality on.

    Attributes:
        made_by: owner of the key; None without keys.
        accepted: how many masks it has accepted.
    """

    id: str
    min_quality: float
    made_at: datetime
    accepted: int
    made_by: str | None = None
    category_id: int | None = None
    image_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """A mask that clicks make; nothing of it is stored."""

    segmentation: Segmentation
    bbox: list[float]
    area: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """What two jobs delivered for one annotation.

    Attributes:
        iou: None where the image's size changed.
    """

    id: int
    image_id: int
    iou: float | None
    quality_before: float
    quality_after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Of all masks of a job."""

    masks: int
    mean: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Metrics of two jobs."""

    before: dict[str, Any]
    after: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Qualities:
    """Quality of the masks of two jobs."""

    before: Quality
    after: Quality


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two jobs side by side.

    Attributes:
        masks: of the annotations that both have, those that changed most first.
    """

    metrics: Figures
    quality: Qualities
    masks: list[Pair]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction(Drawn):
    """A predicted instance.

    Attributes:
        bbox: x, y, width, height in pixels.
        score: 0 to 1.
        image_id: your own, where the image is of a data set.
    """

    category_id: int
    segmentation: Segmentation
    bbox: list[float]
    score: float
    image_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedImage:
    """What a model predicts in one image of many, or why it could not be read.

    Attributes:
        number: its place in the request, from 0.
        size: height, width in pixels.
    """

    number: int
    results: list[Prediction]
    image_id: int | None = None
    url: str | None = None
    size: list[int] | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A trained model.

    Attributes:
        dataset_id: that it was trained on; None where it was imported.
        metrics: None where no truth was given.
        validation: figures on images held out of its training, and the score threshold of the best
            F1 there; None where none were.
    """

    id: str
    job_id: str
    name: str
    created_at: datetime
    dataset_id: str | None = None
    categories: list[Category] = field(default_factory=list)
    sha256: str = ""
    size: int = 0
    metrics: dict[str, Any] | None = None
    validation: dict[str, Any] | None = None
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """An export. It is a job of the same id.

    Attributes:
        report: how many masks are in it, which were left out and why, and the mean IoU of the masks
            read back from it with those of the job.
    """

    id: str
    job_id: str
    format: str
    state: str
    progress: float = 0.0
    error: str | None = None
    filename: str | None = None
    size: int | None = None
    report: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """A name for a model.

    Attributes:
        revision: raised with each move.
    """

    name: str
    model_id: str
    revision: int
    updated_at: datetime | None = None


def document(thing: Any) -> Any:
    """Return an instance of these types as plain JSON values."""
    return msgspec.to_builtins(thing)


def _run_lengths(counts: str) -> list[int]:
    """Return the run lengths of a compressed COCO RLE, background first.

    It is done here, since pycocotools reads past the end of damaged text. Raises ValueError for
    that.
    """
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 30:
            raise ValueError("the counts hold what does not belong there")
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            value -= (1 << shift) if code & 16 else 0
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("the counts are cut off")
    return runs
