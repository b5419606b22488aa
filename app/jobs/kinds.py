"""What there is to know about each kind of job: where it waits, its stages, where its result is.

Adding a kind: a member of `JobKind`, an entry here, a file in worker/jobs/ with its handler.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from app.db.models import Job, JobKind
from sapnet.pipeline.contract import Stage as TrainStage

TRAIN, IO, PREDICT, SHARD = "train", "io", "predict", "shard"
FETCH = "fetch"
"""Name of the stage in which a job's images are brought to its machine."""
QUEUES = (TRAIN, IO, PREDICT, SHARD)
"""Apart, so that an import of minutes never waits behind a training of hours. No job waits in the
last: its messages say that there are shards (`app.jobs.shards`)."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a job, by the name that its progress is reported under.

    Attributes:
        label: its name for people.
        share: of the whole job's time, by rule of thumb; those of a kind add up to 1.
        optional: whether there are jobs of this kind without it.
    """

    name: str
    label: str
    share: float
    optional: bool = False


@dataclass(frozen=True, slots=True)
class KindInfo:
    """One kind of job.

    Attributes:
        label: its name for people.
        queue: where jobs of this kind wait.
        stages: in order.
        result: the address of what comes of a job, with its columns to be filled in.
        delivers_masks: whether masks come of it that are reviewed.
    """

    label: str
    queue: str
    stages: tuple[Stage, ...]
    result: str
    delivers_masks: bool = False

    @property
    def shares(self) -> Mapping[str, float]:
        """The share of the whole job that each stage takes, in order."""
        return {stage.name: stage.share for stage in self.stages}


KINDS: Mapping[JobKind, KindInfo] = {
    JobKind.TRAIN: KindInfo(
        "Training",
        TRAIN,
        (
            Stage(FETCH, "Fetching images", 0.02, optional=True),
            Stage(TrainStage.PROPOSALS, "Proposals", 0.08),
            Stage(TrainStage.TEACHER, "Teacher", 0.05, optional=True),
            Stage(TrainStage.TRAIN, "Training", 0.65),
            Stage(TrainStage.PSEUDO_MASKS, "Masks", 0.12),
            Stage(TrainStage.EVALUATE, "Evaluation", 0.05),
            Stage(TrainStage.EXPORT, "Export", 0.03),
        ),
        "/jobs/{id}/pseudo-masks",
        delivers_masks=True,
    ),
    JobKind.IMPORT: KindInfo(
        "Import",
        IO,
        (
            Stage("files", "Files", 0.05),
            Stage("annotations", "Annotations", 0.1),
            Stage("images", "Images", 0.6),
            Stage("truth", "Ground truth", 0.05, optional=True),
            Stage("rows", "Writing", 0.2),
        ),
        "/datasets/{dataset_id}",
    ),
    JobKind.EXPORT: KindInfo("Export", IO, (Stage("masks", "Masks", 1.0),), "/exports/{id}"),
    JobKind.PREDICT: KindInfo(
        "Prediction",
        PREDICT,
        (
            Stage(FETCH, "Fetching images", 0.2, optional=True),
            Stage("predict", "Prediction", 0.8),
        ),
        "/jobs/{id}/predictions",
    ),
    JobKind.LABEL: KindInfo(
        "Labelling",
        PREDICT,
        (
            Stage(FETCH, "Fetching images", 0.1, optional=True),
            Stage("predict", "Prediction", 0.9),
        ),
        "/jobs/{id}/pseudo-masks",
        delivers_masks=True,
    ),
    JobKind.IMPORT_MODEL: KindInfo(
        "Import of a model", PREDICT, (Stage("model", "Reading", 1.0),), "/models/{model_id}"
    ),
    JobKind.ONNX: KindInfo(
        "ONNX file", PREDICT, (Stage("onnx", "Conversion", 1.0),), "/models/{model_id}/onnx"
    ),
}


def result_of(job: Job) -> str:
    """Return the address of what comes of a job."""
    return KINDS[job.kind].result.format(
        id=job.id, dataset_id=job.dataset_id, model_id=job.model_id
    )


DELIVERING = [kind for kind, info in KINDS.items() if info.delivers_masks]
"""The kinds of jobs whose masks are reviewed."""


def kinds_in(*queues: str) -> list[JobKind]:
    """Return the kinds whose jobs wait in these queues."""
    return [kind for kind, info in KINDS.items() if info.queue in queues]
