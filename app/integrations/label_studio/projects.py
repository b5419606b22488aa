"""What is known of the projects that have connected the service, and which model is theirs."""

from datetime import datetime

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.auth.keys import Caller
from app.db.columns import now
from app.db.models import LabelStudioProject, Model
from app.errors import Conflict
from app.integrations.label_studio.schemas import Parameters, Project, SetupIn
from app.predict.service import ModelInfo, find_model
from app.settings import Settings

NO_MODEL = "clicks"
"""The model version where nothing is trained yet: masks are made of clicks alone."""
_MOST_DATASETS = 50  # remembered of one project


def remember(session: Session, body: SetupIn) -> LabelStudioProject:
    """Write down what a project says about itself."""
    row = find(session, body.project)
    if row is None:
        row = LabelStudioProject(owner=_owner(session), project=body.project, datasets=[])
    row.url, row.token = body.hostname.rstrip("/"), body.access_token or ""
    row.label_config, row.updated_at = body.label_config, now()
    row.parameters = body.extra_params.model_dump(exclude_defaults=True)
    session.add(row)
    try:
        session.flush()
    except IntegrityError as error:
        raise Conflict("The project is being connected by another request.") from error
    return row


def find(session: Session, project: str) -> LabelStudioProject | None:
    """The caller's project that Label Studio calls so."""
    query = select(LabelStudioProject).where(
        LabelStudioProject.owner == _owner(session), LabelStudioProject.project == project
    )
    return session.scalars(query).one_or_none()


def get_of_event(session: Session, project: Project | None) -> LabelStudioProject:
    """The project of an event.

    Raises:
        Conflict: it has not connected the service.
    """
    row = find(session, _name(project)) if project else None
    if row is None:
        raise Conflict("The project has not connected this service: connect the model again.")
    return row


def _name(project: Project) -> str:
    try:
        seconds = int(datetime.fromisoformat(project.created_at or "").timestamp())
    except ValueError:
        return ""
    return f"{project.id}.{seconds}"


def parameters_of(project: LabelStudioProject | None) -> Parameters:
    """What its owner has set; those of an older release that are none any more count as none."""
    try:
        return Parameters.model_validate(project.parameters if project else {})
    except ValidationError:
        return Parameters()


def add_dataset(project: LabelStudioProject, dataset_id: str) -> None:
    """Remember that a data set was made of it, which is to be trained on once it is ready."""
    project.datasets = [*project.datasets, dataset_id][-_MOST_DATASETS:]
    project.to_train = dataset_id


def chosen_name(
    settings: Settings, project: LabelStudioProject | None, in_path: str | None
) -> str | None:
    """The model that somebody has named, in the address, for the project, or for the service."""
    return in_path or parameters_of(project).model or settings.label_studio_model


def model_of(
    session: Session, settings: Settings, project: LabelStudioProject | None, in_path: str | None
) -> ModelInfo | None:
    """The model that annotates beforehand: the one that was named, or the newest of the project.

    Args:
        in_path: id or alias in the address of the backend.

    Raises:
        NotFound: there is no model of the name.
    """
    name = chosen_name(settings, project, in_path)
    if name is None:
        newest = versions(session, project)
        name = newest[0] if newest else None
    return None if name is None else find_model(session, name)


def versions(session: Session, project: LabelStudioProject | None) -> list[str]:
    """Ids of the models that were trained from a project, the newest first."""
    if project is None or not project.datasets:
        return []
    query = select(Model.id).where(Model.trained_on.in_(project.datasets))
    return list(session.scalars(query.order_by(Model.id.desc())))


def every(session: Session) -> list[LabelStudioProject]:
    """The caller's projects, the one that was connected last first."""
    query = select(LabelStudioProject).where(LabelStudioProject.owner == _owner(session))
    return list(session.scalars(query.order_by(LabelStudioProject.updated_at.desc())))


def _owner(session: Session) -> str:
    caller: Caller | None = session.info.get("caller")
    return (caller.owner if caller else None) or ""
