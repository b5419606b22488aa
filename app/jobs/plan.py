"""A training before it is begun: which preset it will choose, and how long it will take.

What is known of the machine is what this process sees: workers on other machines are known by the
trainings that they have finished.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session, undefer

from app.db.models import SUCCESSFUL, Image, Job, JobKind, Model
from app.jobs import sam_checkpoints
from app.observability.gpu import largest_gpu
from app.settings import Settings
from sapnet.config.choice import Choice, choose_preset
from sapnet.config.estimate import (
    Estimate,
    FinishedTraining,
    Gpu,
    Machine,
    SizeGroup,
    Workload,
    estimate,
)
from sapnet.config.resolve import config_from_dict
from sapnet.config.schema import Config
from sapnet.errors import InvalidConfig
from sapnet.utils.backbone_file import body_of_file
from sapnet.utils.devices import CPU
from sapnet.utils.speed import cores, relative_speed

NEWEST = 12
"""Finished trainings that an estimate looks at."""


def this_machine(settings: Settings) -> Machine:
    """The machine of this process, as its workers may use it."""
    gpu = None if CPU in settings.devices.split(",") else largest_gpu()
    return Machine(cores(), gpu, relative_speed())


def workload_of(
    session: Session, dataset_id: str, proposals: Mapping[str, Any], *, has_truth: bool
) -> Workload:
    """What the time of a training on a data set depends on.

    Args:
        proposals: the settings of the generator.
    """
    size = (Image.width, Image.height)
    query = select(*size, func.count(), func.sum(Image.annotations)).group_by(*size)
    rows = session.execute(query.where(Image.dataset_id == dataset_id, Image.annotations > 0))
    groups = tuple(SizeGroup(*row[:3], int(row[3] or 0)) for row in rows)
    model_type = proposals.get("model_type")
    return Workload(groups, str(proposals.get("kind")), model_type, has_truth)


def given_body(settings: Settings, model: Model | None) -> str | None:
    """The body of the model that a training goes on from, else of the weights that are set."""
    if model is not None:
        return ((model.meta.get("config") or {}).get("backbone") or {}).get("name")
    return body_of_file(settings.backbone_weights) if settings.backbone_weights else None


def choice_of(
    session: Session,
    settings: Settings,
    dataset_id: str,
    proposals: Mapping[str, Any],
    model: Model | None,
) -> Choice:
    """Choose a preset as a trainer on this machine will.

    Args:
        proposals: the settings of the generator.
        model: that the training goes on from.
    """
    return choose_preset(
        this_machine(settings),
        workload_of(session, dataset_id, proposals, has_truth=False),
        weights_body=given_body(settings, None),
        model=(model.meta.get("config") or {}) if model else None,
        sam=list(sam_checkpoints.configured(settings)),
    )


def estimate_of(session: Session, config: Config, workload: Workload, machine: Machine) -> Estimate:
    """Estimate a training's time, by the trainings that its owner can see."""
    return estimate(config, workload, machine, _finished(session, machine))


def _finished(session: Session, machine: Machine) -> list[FinishedTraining]:
    """The newest finished trainings on a machine of this kind, with a GPU or without one."""
    query = select(Job).where(Job.kind == JobKind.TRAIN, Job.state.in_(SUCCESSFUL))
    jobs = session.scalars(query.order_by(Job.id.desc()).limit(NEWEST).options(undefer(Job.report)))
    trainings = (_training(session, job) for job in jobs)
    kind = machine.gpu is None
    return [t for t in trainings if t is not None and (t.machine.gpu is None) is kind]


def _training(session: Session, job: Job) -> FinishedTraining | None:
    """None for one whose report says too little, or whose data set is gone."""
    report = job.report or {}
    seconds, proposals = report.get("seconds"), report.get("proposals")
    if not isinstance(seconds, dict) or not isinstance(proposals, dict) or job.dataset_id is None:
        return None
    try:
        config = config_from_dict(report.get("config") or {})
    except InvalidConfig:
        return None
    has_truth = (job.metrics or {}).get("pseudo_masks") is not None
    settings = proposals.get("settings") or {}
    workload = workload_of(session, job.dataset_id, settings, has_truth=has_truth)
    if not workload.images:
        return None
    ran_on = report.get("machine") or {}  # of an older release: without
    name = ran_on.get("gpu")
    gpu = Gpu(str(name), 0) if name else None
    return FinishedTraining(config, workload, Machine(int(ran_on.get("cores", 1)), gpu), seconds)
