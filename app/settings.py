"""Every setting of the service, from the environment (prefix SAPNET_) or a `.env` file.

The file is that of the folder in which a process of the service starts. No process that the service
starts to train or predict reads it, and it cannot name the program that these run.
"""

import json
import os
import re
import sys
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import from_json
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from app.outbound.webhook_signature import key_of
from sapnet.config import DEFAULT_PROPOSALS
from sapnet.errors import InvalidConfig
from sapnet.utils.devices import ALL, parse_devices
from sapnet.utils.devices import VARIABLE as DEVICES
from sapnet.utils.tracking.base import TRACKERS

Probability = Annotated[float, Field(ge=0, le=1)]
OidcScope = Literal["read", "write", "metrics", "admin"]
"""As `app.auth.scope` has them."""


ENV_FILE = Path(".env")
_IN_ENV_FILE = re.compile(r"^\s*(?:export\s+)?(SAPNET_\w+)\s*=", re.MULTILINE | re.IGNORECASE)


_PROGRAMS = {"trainer_command", "shard_command"}


class _NotFromFile(str):
    """A value that stood in a `.env` file, and may not."""


class _EnvFile(DotEnvSettingsSource):
    """The `.env` file, which may lie in a folder that somebody else has filled."""

    def __call__(self) -> dict[str, Any]:
        values = super().__call__()
        for name in _PROGRAMS & values.keys():
            values[name] = _NotFromFile()
        return values


def named_in_env_file(path: Path = ENV_FILE) -> list[str]:
    """Return the names of the settings that the `.env` file has; none where there is no file."""
    text = path.read_text("utf-8", "replace") if path.is_file() else ""
    return sorted({name.upper() for name in _IN_ENV_FILE.findall(text)})


class Settings(BaseSettings):
    """With no setting at all: SQLite, a local folder and no broker, all under `./var`."""

    model_config = SettingsConfigDict(
        env_prefix="SAPNET_",
        env_file=ENV_FILE,
        env_ignore_empty=True,  # compose hands variables on that are not set as empty ones
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,  # some are secrets
    )

    # Where data is kept
    data_dir: Path = Path("var")
    """Folder of this machine: database, blobs, uploads in progress, the jobs' work folders."""
    database_url: str | None = None
    """SQLAlchemy URL; None is SQLite in `data_dir`."""
    storage_url: str | None = None
    """`s3://bucket/prefix` or a folder; None is a folder in `data_dir`. S3's endpoint and keys are
    read from the usual AWS_ variables."""
    storage_connections: PositiveInt = 16
    """Blobs that a process fetches from S3, or stores there, at once."""
    cache_bytes: PositiveInt = 64 * 2**30
    """Of copies of S3's blobs in `data_dir`; those used longest ago make room, but what was used in
    the last ten minutes stays, and so do the images of a job that runs."""
    broker_url: str | None = None
    """Celery's Redis; None is embedded: workers look for the job rows themselves."""

    # Who is answered, and how much
    host: str = "127.0.0.1"
    """Address that the API listens on; one that others can reach needs a key first."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """Port of the API; 0 takes a free one."""
    allow_without_keys: bool = False
    """Answer strangers although there is no key: somebody in front of the service keeps them out.
    Else a service without a key answers its own machine alone."""
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Names that the service is reached by beside localhost, 127.0.0.1 and ::1, with commas between
    them. While there is no key it answers to no other, as web pages can have any name lead to it;
    with `allow_without_keys` it answers to all where this is empty."""
    key_cache_seconds: NonNegativeFloat = 5
    """So long may a key go on after it was revoked."""
    idempotency_hours: PositiveFloat = 24
    """So long is the answer to a request with an Idempotency-Key kept."""
    reads_per_minute: NonNegativeInt = 0
    """Requests of one key, or of one address where there are no keys. 0 is no limit, here and
    below."""
    writes_per_minute: NonNegativeInt = 0
    """The same for requests that change something."""
    quota_datasets: NonNegativeInt = 0
    """Of one owner, as are the two below."""
    quota_bytes: NonNegativeInt = 0
    """Of data sets as they were sent, and of models."""
    quota_active_jobs: NonNegativeInt = 0
    """Queued, running and cancelling ones."""

    # Logs, figures, traces
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Messages below it are not logged."""
    log_json: bool = False
    """A line of JSON for each message, with the ids of request and job."""
    worker_metrics_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Where a worker answers Prometheus, at `host`; None is nowhere. The API does at /metrics."""
    otel_endpoint: str | None = None
    """OpenTelemetry's collector (OTLP over HTTP): http://host:4318. None is no tracing."""

    # Jobs and workers
    lease_seconds: PositiveFloat = 40
    """After this long without a word from its worker a job is given to another."""
    heartbeat_seconds: PositiveFloat = 8
    """How often a worker says that its job goes on."""
    reap_seconds: PositiveFloat = 5
    """How often workers and API look for jobs whose worker is gone, and for lost messages."""
    poll_seconds: PositiveFloat = 1
    """How often an idle embedded worker looks for a job, and a busy one whether it is cancelled."""
    max_attempts: PositiveInt = 10
    """Attempts in a row that got no further, before a job is given up as `crashed`."""
    stop_grace_seconds: PositiveFloat = 8
    """From SIGTERM to SIGKILL when a trainer is stopped. A cancelled job ends within 10 seconds."""
    max_bad_images: Probability = 0.05
    """Share of a data set's images that may fail and be left out, at least one (0: none),
    before the job fails."""
    reserve_bytes: NonNegativeInt = 16 * 2**20
    """Free space of `data_dir` that a job leaves: with less it fails instead of filling the disk
    that the database may be on."""
    trainer_command: tuple[str, ...] = (sys.executable, "-m", "sapnet.cli", "run")
    """Program that a worker starts for a training; not read from `.env`."""
    shard_images: NonNegativeInt = 256
    """Images of a shard: the proposals of a training with more images than this are made in parts,
    by all workers that are free. 0: each by the worker that has the training."""
    shard_takers: NonNegativeInt = 0
    """Processes of a worker that work on shards at once, each on one core and with memory of its
    own; 0 is one for two cores, but two on two or three. Those with SAM are one a device."""
    shard_command: tuple[str, ...] = (sys.executable, "-m", "sapnet.cli", "shards")
    """Program that a worker starts for shards; not read from `.env`."""
    devices: str = ALL
    """Of this worker's jobs: "all", GPUs as in CUDA_VISIBLE_DEVICES ("0,1"), or "cpu" for each
    process on the CPU. A training has a process on each, as far as its batch goes round; other jobs
    have the first. Workers on one machine that should not share a GPU name different ones."""

    # Events and webhooks
    progress_event_seconds: PositiveFloat = 5
    """At most one event of type `progress` in so long; the job itself is up to date."""
    event_stream_seconds: PositiveFloat = 900
    """After so long a reader of events is sent away. He comes back with the id that he has, and
    with a key that is still good."""
    webhook_url: str | None = None
    """Where the events of every job are posted, beside the job's own webhook."""
    webhook_secret: str | None = Field(default=None, repr=False)
    """Signs the messages to `webhook_url`: `whsec_` and 24 to 64 bytes in base64."""
    webhook_private_addresses: bool = False
    """Whether webhooks may go to loopback, private and other addresses that are not public."""
    webhook_max_tries: PositiveInt = 15
    """Of one event, before its webhook is given up: with the defaults after most of a day."""
    webhook_retry_seconds: PositiveFloat = 5
    """After the first failure; doubled with each, up to 6 hours, less up to half by chance."""
    webhook_timeout_seconds: PositiveFloat = 10
    """Of one try, from connecting to the answer's headers."""

    # Single sign-on
    public_url: str | None = None
    """Address of the page as browsers have it: https://sapnet.example.org. Needed for logins behind
    a proxy; None is as it was asked for."""
    oidc_issuer: str | None = None
    """OpenID provider that people log in at, by its issuer: https://id.example.org/realms/x. None
    is no login; with it, everybody needs one, or a key."""
    oidc_client_id: str | None = None
    """Of this service, at the provider."""
    oidc_client_secret: str | None = Field(default=None, repr=False)
    """None: a public client, by PKCE alone."""
    oidc_audience: str | None = None
    """Programs may bring the provider's access tokens (JWT) that are for this audience; None: they
    need keys."""
    oidc_scopes: str = "openid profile email"
    """That are asked for at a login."""
    oidc_owner_claim: str = "sub"
    """Claim that is the owner of what a user makes. Keys of an owner of the same name see the same:
    it must be one that users cannot choose themselves."""
    oidc_role_claim: str = "roles"
    """Claim with a user's roles or groups, or the path to it: realm_access.roles."""
    oidc_roles: dict[str, OidcScope] = {}
    """Scopes by role, as JSON: {"annotators": "write", "sapnet-admins": "admin"}."""
    oidc_default_scope: OidcScope | None = None
    """Of users without any of these roles; None refuses them."""
    oidc_session_hours: PositiveFloat = 12
    """After so long a user logs in again."""

    # Trackers of experiments
    tracking: Annotated[tuple[str, ...], NoDecode] = ()
    """Trackers that trainings are shown in, with commas between them: tensorboard, mlflow, wandb.
    Read by workers of the queue io; the trackers' own variables say where."""
    tracking_dir: Path | None = None
    """Folder of the trackers' files; None is `tracking` in `data_dir`."""
    tracking_timeout_seconds: PositiveFloat = 300
    """So long may a tracker take for what it is given, before it is stopped and tried again."""

    # Limits of requests and imports
    max_connections: PositiveInt = 1000
    """Open at once; fewer where the system allows a process few file descriptors."""
    request_head_seconds: PositiveFloat = 20
    """So long may a client take for the head of a request."""
    request_body_seconds: PositiveFloat = 60
    """So long may a client take for the body, and longer by a second for each 16 KiB of it."""
    max_upload_bytes: PositiveInt = 64 * 2**30
    """Of a data set or an upload."""
    max_json_bytes: PositiveInt = 128 * 2**20
    """Of a request's body that is neither an upload nor an image."""
    max_image_bytes: PositiveInt = 512 * 2**20
    """Of a request that sends an image to predict on."""
    max_document_bytes: PositiveInt = 2**30
    """Of an annotations or truth document."""
    sync_import_bytes: NonNegativeInt = 64 * 2**20
    """A data set of more bytes than this, packed or unpacked, is answered with 202, and imported by
    a worker."""
    sync_import_files: NonNegativeInt = 5_000
    """So is one of more files than this; those in its archives count."""
    sync_document_bytes: NonNegativeInt = 4 * 2**20
    """So is one whose documents are larger than this: all their rows are written in one
    transaction."""
    max_form_parts: PositiveInt = 10_000
    """Of a form that is sent; more images come in an archive."""
    upload_expiry_hours: PositiveFloat = 24
    """So long is an upload kept after its last bytes came."""
    import_private_addresses: bool = False
    """Whether images may be fetched from loopback, private and other addresses that are not
    public."""
    import_buckets: tuple[str, ...] = ()
    """S3 buckets that images may be fetched from, with the service's own keys."""
    label_studio_url: str | None = None
    """Where the service reaches Label Studio, if it is not where Label Studio says: the address
    that its projects send may be another's localhost. Its address may be private."""
    label_studio_token: str | None = Field(default=None, repr=False)
    """A token of that Label Studio, for its images and annotations: a personal access token, or a
    legacy one. All who may use the service's /ls read by it what its owner may. None is the token
    that Label Studio sends, a legacy one, which it takes only where it is told to."""
    label_studio_model: str | None = None
    """Id or alias of the model that annotates beforehand where a project names none; None is the
    newest that was trained from the project."""
    label_studio_seconds: PositiveFloat = 60
    """So long are the tasks of one request predicted; Label Studio waits 100 seconds. Those that
    are left have no predictions, and are sent again when they are asked for again."""
    fetch_connections: PositiveInt = 8
    """Images that are fetched at once for an import."""
    fetch_timeout_seconds: PositiveFloat = 60
    """Of one image, from connecting to its last byte."""
    max_fetch_bytes: PositiveInt = 256 * 2**20
    """Of one image that is fetched."""
    max_model_bytes: PositiveInt = 2 * 2**30
    """Of a model's file that is sent."""
    max_image_pixels: PositiveInt = 100_000_000
    """Of one image, width times height."""
    max_images: PositiveInt = 1_000_000
    """Of a data set."""
    max_archive_files: PositiveInt = 1_000_000
    """Of a data set, in all its archives together."""
    max_archive_bytes: PositiveInt = 256 * 2**30
    """Unpacked, all members together."""
    max_archive_ratio: PositiveFloat = 200
    """Unpacked over packed, checked from 10 MiB unpacked on."""

    # Models, proposals, predictions
    proposals: dict[str, Any] = {"kind": DEFAULT_PROPOSALS}
    """Where a request names none: its `kind`, and what that kind takes."""
    backbone_weights: Path | None = None
    """File with weights of the backbone; None is those that are here, or random ones."""
    sam_checkpoint: Path | None = None
    """SAM's weights for `proposals: sam`, of any size; None is those of `sam_checkpoints`, else
    vit_b, downloaded once."""
    sam_checkpoints: dict[str, Path] = {}
    """More of them by name, as JSON: {"vit_h": "/models/h.pth", "microscopy": "/models/lm.pth"}.
    Requests choose by `{"kind": "sam", "checkpoint": "microscopy"}`."""
    predict_cache_models: PositiveInt = 2
    """Models that are kept in memory for predictions."""
    predict_at_once: PositiveInt = 8
    """Images in one request that are answered at once; more are work for a worker."""
    predict_tiles_at_once: PositiveInt = 32
    """Tiles of a large image that are predicted in a request; more are work for a worker."""
    predict_slots: PositiveInt = 8
    """Predictions that may be in progress or wait for their turn; those beyond it are answered with
    503. So are clicks, of which as many may be, images that a request has fetched, and
    trainings that Label Studio asks for while their annotations are fetched."""
    click_method: Literal["prompter", "edges"] = "prompter"
    """What corrects a mask by clicks: the learned prompter, or the image's edges, less exact, for
    machines without the memory for torch in the API (about 0.4 GB)."""
    click_cache_images: PositiveInt = 8
    """Images whose features are kept between clicks, at most 50 MB each."""
    predict_score: Probability = 0.1
    """Confidence threshold where the request names none: low, as COCO's AP wants them."""
    overlay_score: Probability = 0.3
    """The same for drawn images, where doubtful results would hide the good ones."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return where settings come from, the first before the others."""
        assert isinstance(dotenv_settings, DotEnvSettingsSource)
        env_file = _EnvFile(settings_cls, env_file=dotenv_settings.env_file)
        return init_settings, env_settings, env_file

    @field_validator("trainer_command", "shard_command", mode="before")
    @classmethod
    def _is_no_files(cls, value: Any) -> Any:
        if isinstance(value, _NotFromFile):
            raise ValueError("it names a program to run: set it in the environment, not in .env")
        return value

    @field_validator("devices")
    @classmethod
    def _are_devices(cls, value: str) -> str:
        try:
            parse_devices(value)
        except InvalidConfig as error:
            raise ValueError(str(error)) from error
        return value

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _hosts(cls, value: Any) -> Any:
        """From the environment: names with commas between them, or JSON's list."""
        if isinstance(value, str):
            value = from_json(value) if value.startswith("[") else value.split(",")
        return [str(host).strip().lower().rstrip(".") for host in value if str(host).strip()]

    @field_validator("allowed_hosts")
    @classmethod
    def _are_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for host in value:
            if not re.fullmatch(r"[a-z0-9._-]+|\[[0-9a-f:.]+\]", host):
                raise ValueError("it is no list of hosts, without ports: sapnet.example.org,box")
        return value

    @field_validator("oidc_issuer", "public_url")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"https?://[^/?#@\s]+(/[^?#\s]*)?", value):
            raise ValueError("it is no address: https://host/path")
        return value

    @model_validator(mode="after")
    def _can_log_in(self) -> Self:
        if self.oidc_issuer is not None:
            if self.oidc_client_id is None:
                raise ValueError("SAPNET_OIDC_ISSUER needs SAPNET_OIDC_CLIENT_ID")
            if not self.oidc_roles and self.oidc_default_scope is None:
                raise ValueError("SAPNET_OIDC_ISSUER needs SAPNET_OIDC_ROLES or _DEFAULT_SCOPE")
        return self

    @field_validator("tracking", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        """From the environment: names with commas between them, or JSON's list."""
        if isinstance(value, str):
            value = from_json(value) if value.startswith("[") else value.split(",")
        return list(dict.fromkeys(str(v).strip().lower() for v in value if str(v).strip()))

    @field_validator("tracking")
    @classmethod
    def _are_trackers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(name not in TRACKERS for name in value):
            raise ValueError(f"there are {', '.join(TRACKERS)}")
        return value

    @field_validator("database_url")
    @classmethod
    def _is_url(cls, value: str | None) -> str | None:
        try:
            if value:
                make_url(value)
            return value
        except (ArgumentError, ValueError):  # the latter holds a piece of the password
            raise ValueError("it is no URL: postgresql+psycopg://user:password@host/name") from None

    @field_validator("webhook_url", "webhook_secret")
    @classmethod
    def _is_webhook(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.field_name == "webhook_secret":
            key_of(value)
        elif value is not None and not value.startswith(("https://", "http://")):
            raise ValueError("it is no URL: https://host/path")
        return value

    @field_validator("label_studio_url")
    @classmethod
    def _is_label_studio(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"https?://[^/?#@\s]+(/[^?#\s]*)?", value):
            raise ValueError("it is no URL: https://host:8080")
        return value.rstrip("/") if value else None

    @cached_property
    def database(self) -> str:
        """The database's URL, resolved."""
        return self.database_url or f"sqlite:///{self.data_dir.resolve() / 'sapnet.db'}"

    @cached_property
    def storage(self) -> str:
        """Where blobs live, resolved: an absolute folder or an `s3://` URL."""
        if self.storage_url and "://" in self.storage_url:
            return self.storage_url
        return str(Path(self.storage_url or self.data_dir / "blobs").resolve())

    @property
    def trainer_environment(self) -> dict[str, str]:
        """Variables for the environment of a trainer, with absolute paths.

        It works in another folder, and reads no `.env`.
        """
        variables = {DEVICES: self.devices}
        if self.sam_checkpoint is not None:
            variables["SAPNET_SAM_CHECKPOINT"] = _absolute(self.sam_checkpoint)
        if self.sam_checkpoints:
            paths = {name: _absolute(path) for name, path in self.sam_checkpoints.items()}
            variables["SAPNET_SAM_CHECKPOINTS"] = json.dumps(paths)
        return variables

    @property
    def takers(self) -> int:
        """How many shards a worker works on at once."""
        cores = os.cpu_count() or 1
        return self.shard_takers or min(cores, max(2, cores // 2))

    def device_of(self, taker: int) -> str | None:
        """Return the device for a large network, as SAPNET_DEVICES names it.

        Args:
            taker: number of the process, from 0.

        Returns:
            None where it is to have none.
        """
        names = parse_devices(self.devices)
        if names is None:
            return self.devices if taker == 0 else None
        return names[taker] if taker < len(names) else None

    @property
    def embedded(self) -> bool:
        """Whether the work is done by this service's own worker, without a broker."""
        return self.broker_url is None

    def folder(self, *parts: str) -> Path:
        """A folder under `data_dir`, absolute, made if it does not exist."""
        path = self.data_dir.resolve().joinpath(*parts)
        path.mkdir(parents=True, exist_ok=True)
        return path


def _absolute(path: Path) -> str:
    return str(path.expanduser().resolve())
