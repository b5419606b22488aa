"""All tables; what they are made of is in app/db/columns.py.

Those of trained models are in app/db/models_registry.py, those of what comes in with requests in
app/db/models_access.py: one file of them all would be 500 lines. Ids of datasets, jobs and models
sort by time of creation, so they page by id.

`image_id`, `annotation_id` and `category_id` are always the user's own numbers, unique within a
dataset. A column of type BlobRef names a blob by its SHA-256: `app.storage.garbage_collection`
looks for that mark.
"""

from enum import StrEnum

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, String, true
from sqlalchemy.orm import Mapped, mapped_column

from app.db.columns import (
    Base,
    BlobRef,
    BoxColumn,
    Created,
    DatasetRef,
    Id,
    Json,
    Mask,
    Moment,
    RowId,
    UserId,
    stored_as_value,
)
from app.db.models_access import ApiKey as ApiKey
from app.db.models_access import BlobPin as BlobPin
from app.db.models_access import IdempotencyRecord as IdempotencyRecord
from app.db.models_access import ImportFile as ImportFile
from app.db.models_access import Upload as Upload
from app.db.models_access import UploadPiece as UploadPiece
from app.db.models_integrations import LabelStudioProject as LabelStudioProject
from app.db.models_registry import JobTracker as JobTracker
from app.db.models_registry import Model as Model
from app.db.models_registry import ModelAlias as ModelAlias
from app.db.models_registry import Prediction as Prediction
from app.db.models_shards import Shard as Shard
from app.db.models_shards import ShardState as ShardState
from sapnet.types import Subset


class DatasetStatus(StrEnum):
    """Whether a data set can be trained on: only one that is `ready` can."""

    READY = "ready"
    IMPORTING = "importing"
    INVALID = "invalid"


class JobKind(StrEnum):
    """What a job does: see `app.jobs.kinds`."""

    TRAIN = "train"
    IMPORT = "import"
    EXPORT = "export"
    PREDICT = "predict"
    LABEL = "label"
    ONNX = "onnx"
    IMPORT_MODEL = "import_model"


class JobState(StrEnum):
    """How far a job is. The last four are final."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    SUCCEEDED_WITH_WARNINGS = "succeeded_with_warnings"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Reason(StrEnum):
    """Why a job is in its state, for programs; the library's own error codes come beside these."""

    WORKER_STOPPED = "worker_stopped"  # queued again: its worker was shut down
    WORKER_LOST = "worker_lost"  # queued again: its worker fell silent
    TRAINER_DIED = "trainer_died"  # queued again: the trainer was killed or crashed
    ATTEMPT_FAILED = "attempt_failed"  # queued again: the system refused something
    DISK_FULL = "disk_full"  # queued again, then failed
    CRASHED = "crashed"  # failed: too many attempts in a row got no further
    BLOB_MISSING = "blob_missing"  # failed: a stored file is gone
    INPUT_DELETED = "input_deleted"  # failed: the model or data set that it needs was deleted
    REQUEST_BROKEN_OFF = "request_broken_off"  # failed: not all that it asked for was written
    BAD_RESULT = "bad_result"  # failed: the trainer's results are not as agreed
    INVALID_DATASET = "invalid_dataset"  # failed: what was to be imported has faults
    CANCEL_REQUESTED = "cancel_requested"  # cancelling or cancelled
    WARNINGS = "warnings"  # succeeded with warnings
    UNFIT = "unfit"  # failed: the format of an export cannot hold the data set
    IMAGES_SET_ASIDE = "images_set_aside"  # succeeded with warnings: some images had errors


class EventType(StrEnum):
    """Types of the events of a job: see `app.jobs.events`."""

    CREATED = "created"  # data: state, kind, dataset_id
    STATE = "state"  # data: state (queued, running or cancelling), reason
    STAGE = "stage"  # data: stage, status (started or ended), seconds where it ended
    PROGRESS = "progress"  # data: stage, step, of, progress, eta_seconds, losses
    WARNING = "warning"  # data: message
    IMAGE_SET_ASIDE = "image_set_aside"  # data: image_id, file_name, stage, error
    VALIDATION = "validation"  # data: step, of, against, figures (AP, AP50, AP75)
    SETBACK = "setback"  # data: reason, error; a new attempt follows
    CANCEL_REQUESTED = "cancel_requested"
    ERROR = "error"  # data: reason, error; the job fails of it
    END = "end"  # data: state, reason, error, model_id; the last one, always


ACTIVE = (JobState.QUEUED, JobState.RUNNING, JobState.CANCELLING)
SUCCESSFUL = (JobState.SUCCEEDED, JobState.SUCCEEDED_WITH_WARNINGS)


class Dataset(Base):
    """Images with points. Never changes once `ready`; a correction is a new one with a parent."""

    __tablename__ = "dataset"

    id: Mapped[Id]
    owner: Mapped[str | None] = mapped_column(String(64), index=True)
    """Whose it is, with all that hangs on it. None: made while the service had no keys."""
    name: Mapped[str] = mapped_column(String(200))
    status: Mapped[DatasetStatus] = mapped_column(stored_as_value(DatasetStatus))
    parent_id: Mapped[str | None] = mapped_column(
        String(32), ForeignKey("dataset.id", ondelete="SET NULL"), index=True
    )
    created_at: Mapped[Created]
    images: Mapped[int]
    annotations: Mapped[int]
    bytes: Mapped[UserId] = mapped_column(default=0, server_default="0")
    """Of its files, whether or not other data sets have the same ones."""
    report: Mapped[Json]
    document_sha: Mapped[BlobRef]
    """The points document as it was sent."""
    truth_sha: Mapped[BlobRef | None]
    """COCO instances sent with the dataset: the default truth of its jobs, for metrics alone."""
    deleted_at: Mapped[Moment | None] = mapped_column(index=True)
    """When it was deleted. It is hidden since, with all that hangs on it, until a worker has
    removed the rows: see `app.datasets.removal`. A moment to come: it is being written."""


class Category(Base):
    """A class of a data set, with its number of objects."""

    __tablename__ = "category"
    __table_args__ = (Index(None, "dataset_id", "category_id", unique=True),)

    pk: Mapped[RowId]
    dataset_id: Mapped[str] = mapped_column(ForeignKey("dataset.id", ondelete="CASCADE"))
    category_id: Mapped[UserId]
    name: Mapped[str]
    annotations: Mapped[int]


class Image(Base):
    """An image of a data set: size in pixels, number of objects, and the blob of its file."""

    __tablename__ = "image"
    __table_args__ = (Index(None, "dataset_id", "image_id", unique=True),)

    pk: Mapped[RowId]
    dataset_id: Mapped[str] = mapped_column(ForeignKey("dataset.id", ondelete="CASCADE"))
    image_id: Mapped[UserId]
    file_name: Mapped[str]
    width: Mapped[int]
    height: Mapped[int]
    annotations: Mapped[int]
    sha256: Mapped[BlobRef]
    subset: Mapped[Subset | None] = mapped_column(String(5))
    """train, val or test, where its owner has split the data set."""
    split_group: Mapped[str | None] = mapped_column(String(200))
    """Images of one group are held out of training together."""


class ImageDescriptor(Base):
    """What is known of the look of an image file, whichever data sets have it.

    Made by a worker (`app.datasets.descriptors`) and removed once no image has the file; it does
    not keep the blob. See `sapnet.data.descriptor`.
    """

    __tablename__ = "image_descriptor"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[int]
    hash: Mapped[int | None] = mapped_column(BigInteger)
    """64 bits as a signed number; None where the file cannot be read."""
    features: Mapped[bytes | None]


class Annotation(Base):
    """One object to train on: its point or its box in pixels. `iscrowd` ones have no row."""

    __tablename__ = "annotation"
    __table_args__ = (
        Index(None, "dataset_id", "annotation_id", unique=True),
        Index(None, "dataset_id", "image_id"),
    )

    pk: Mapped[RowId]
    dataset_id: Mapped[str] = mapped_column(ForeignKey("dataset.id", ondelete="CASCADE"))
    annotation_id: Mapped[UserId]
    image_id: Mapped[UserId]
    category_id: Mapped[UserId]
    x: Mapped[float]
    y: Mapped[float]
    segmentation: Mapped[Mask | None]
    """The object's mask, where its owner has said what it is."""
    box: Mapped[BoxColumn | None]
    pointed: Mapped[bool] = mapped_column(default=True, server_default=true())
    """Whether x and y are a point; where not, they are the middle of the box."""


class Job(Base):
    """The truth about one run. Owner and attempt are its lease: whoever writes names them."""

    __tablename__ = "job"
    __table_args__ = (Index(None, "state", "lease_until"),)

    id: Mapped[Id]
    kind: Mapped[JobKind] = mapped_column(stored_as_value(JobKind), default=JobKind.TRAIN)
    dataset_id: Mapped[DatasetRef | None]
    """None: of a model that was imported, or a job on one."""
    made_by: Mapped[str | None] = mapped_column(String(64), index=True)
    """Whose it is, where it has no data set; else that is whose the data set is."""
    state: Mapped[JobState] = mapped_column(stored_as_value(JobState), default=JobState.QUEUED)
    method: Mapped[str] = mapped_column(String(32))
    preset: Mapped[str] = mapped_column(String(64))
    """`auto` until the training that was asked for it has chosen one."""
    preset_reasons: Mapped[Json | None]
    """Why it has chosen its preset; None where the request named one."""
    seed: Mapped[UserId]
    request: Mapped[Json] = mapped_column(deferred=True)
    """What was asked for, or {} where that is a blob. Rows of older releases hold any size here, so
    it is loaded by whoever reads it alone: see `app.jobs.submit.request_of`."""
    request_sha: Mapped[BlobRef | None]
    """The request as JSON, where it is large."""
    from_model: Mapped[str | None] = mapped_column(String(32))
    """The model that the training goes on from."""
    truth_sha: Mapped[BlobRef | None]
    initial_sha: Mapped[BlobRef | None]
    """The checkpoint of the model that the training goes on from; of a model that is being
    imported, the file that was sent."""

    stage: Mapped[str | None] = mapped_column(String(32))
    step: Mapped[int | None]
    of: Mapped[int | None]
    progress: Mapped[float] = mapped_column(default=0.0)
    eta_seconds: Mapped[float | None]
    losses: Mapped[Json | None]

    reason: Mapped[str | None] = mapped_column(String(64))
    error: Mapped[str | None]
    warnings: Mapped[Json] = mapped_column(default=list)
    proposal_generator: Mapped[str | None] = mapped_column(String(64))
    weights_origin: Mapped[str | None]

    owner: Mapped[str | None] = mapped_column(String(128))
    lease_until: Mapped[Moment | None]
    attempt: Mapped[int] = mapped_column(default=0)
    setbacks: Mapped[int] = mapped_column(default=0)
    """Attempts in a row that ended without getting any further."""
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    last_event: Mapped[int] = mapped_column(default=0, server_default="0")
    """Number of the newest of its events: see `app.jobs.events`."""

    created_at: Mapped[Created]
    started_at: Mapped[Moment | None]
    finished_at: Mapped[Moment | None]

    metrics: Mapped[Json | None]
    report: Mapped[Json | None] = mapped_column(deferred=True)
    model_id: Mapped[str | None] = mapped_column(String(32))
    tracking: Mapped[Json | None] = mapped_column(JSON(none_as_null=True))
    """Addresses of its runs by tracker; null for a tracker without."""
    gallery_sha: Mapped[BlobRef | None]
    report_html_sha: Mapped[BlobRef | None]
    masks_sha: Mapped[BlobRef | None]
    """All masks as they were delivered: see `app.masks.stream`. None: by an older release."""
    log_sha: Mapped[BlobRef | None]


class JobEvent(Base):
    """Something that happened to a job. Never changed; goes with the job."""

    __tablename__ = "job_event"

    job_id: Mapped[str] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """1, 2, 3, … within the job, without gaps, in the order of the commits."""
    moment: Mapped[Moment] = mapped_column("at")
    attempt: Mapped[int]
    type: Mapped[str] = mapped_column(String(32))
    data: Mapped[Json]


class Webhook(Base):
    """Where a job's events are to be posted, and how far that is: see `app.webhooks`."""

    __tablename__ = "webhook"

    id: Mapped[Id]
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), index=True)
    url: Mapped[str | None] = mapped_column(String(2000))
    """None is the one of the settings, with its secret."""
    secret: Mapped[str | None] = mapped_column(String(100))
    types: Mapped[Json | None]
    """The types of events that are wanted; None is all of them."""
    sent: Mapped[int] = mapped_column(default=0)
    """Number of the newest event that was delivered, or was not wanted."""
    tries: Mapped[int] = mapped_column(default=0)
    """Failed tries of the event that comes next."""
    due_at: Mapped[Moment | None] = mapped_column(index=True)
    """When it may be taken up; in the future while it is in hand. None: delivered to the end, or
    given up."""
    turn: Mapped[int] = mapped_column(default=0)
    """Raised by whoever takes it up; whoever writes names it."""
    error: Mapped[str | None]
    """Why the last try failed."""
    created_at: Mapped[Created]


class PseudoMask(Base):
    """One delivered mask. Box in pixels, COCO's x y w h; `segmentation` is a compressed RLE.

    A training delivers one for each annotation of its data set. A job of the kind `label` delivers
    what its model finds: these have ids that no annotation of the data set has, and points.
    """

    __tablename__ = "pseudo_mask"
    __table_args__ = (
        Index(None, "job_id", "annotation_id", unique=True),
        Index(None, "job_id", "image_id"),
        Index(None, "job_id", "category_id"),
        Index(None, "job_id", "quality"),
    )

    pk: Mapped[RowId]
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"))
    annotation_id: Mapped[UserId]
    image_id: Mapped[UserId]
    category_id: Mapped[UserId]
    segmentation: Mapped[Json]
    x: Mapped[float]
    y: Mapped[float]
    w: Mapped[float]
    h: Mapped[float]
    area: Mapped[float]
    quality: Mapped[float]
    source: Mapped[str] = mapped_column(String(32))
    point_x: Mapped[float | None]
    point_y: Mapped[float | None]
    """A point inside of a mask that has no annotation, in pixels."""
    extra: Mapped[Json | None]


class MaskStatus(StrEnum):
    """What was decided about a delivered mask."""

    OPEN = "open"
    ACCEPTED = "accepted"
    CORRECTED = "corrected"
    REJECTED = "rejected"


class MaskDecision(Base):
    """What somebody decided about a delivered mask, which itself never changes.

    A mask without a row is open, and its revision is 0.
    """

    __tablename__ = "mask_decision"
    __table_args__ = (Index(None, "job_id", "annotation_id", unique=True),)

    pk: Mapped[RowId]
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"))
    annotation_id: Mapped[UserId]
    status: Mapped[MaskStatus] = mapped_column(stored_as_value(MaskStatus))
    segmentation: Mapped[Mask | None]
    """The mask in place of the delivered one, where it is corrected."""
    category_id: Mapped[UserId | None]
    """The class in place of the delivered one, where it is another."""
    rule_id: Mapped[str | None] = mapped_column(String(32))
    """The rule by which it was accepted; None where somebody looked at it."""
    revision: Mapped[int]
    """Raised by one with each decision; moved by compare-and-set."""
    decided_by: Mapped[str | None] = mapped_column(String(64))
    """Owner of the key that asked."""
    decided_at: Mapped[Moment]


class AcceptanceRule(Base):
    """A rule by which open masks of a job were accepted at one time. Never changed; see `accepted`.

    Each decision that it made names it. Masks that come to fit later are not accepted by it.
    """

    __tablename__ = "acceptance_rule"

    id: Mapped[Id]
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), index=True)
    min_quality: Mapped[float]
    category_id: Mapped[UserId | None]
    """Of the class that it is for; None is all."""
    image_id: Mapped[UserId | None]
    """Of the image that it is for; None is all."""
    made_by: Mapped[str | None] = mapped_column(String(64))
    """Owner of the key that asked."""
    made_at: Mapped[Moment]
    accepted: Mapped[int] = mapped_column(default=0)
    """How many masks it has accepted; raised with each batch of them."""


class Export(Base):
    """A file of a job's masks for other tools. `id` is that of the job that makes it."""

    __tablename__ = "export"

    id: Mapped[str] = mapped_column(
        String(32), ForeignKey("job.id", ondelete="CASCADE"), primary_key=True
    )
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), index=True)
    """Whose masks they are."""
    filename: Mapped[str | None]
    sha256: Mapped[BlobRef | None]
    """Of the file, once it is there."""
    size: Mapped[UserId | None]
    report: Mapped[Json | None]
