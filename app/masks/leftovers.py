"""Masks of jobs that ended without results."""

from typing import cast

from sqlalchemy import Table, exists, select

from app.db.models import ACTIVE, SUCCESSFUL, Job, PseudoMask
from app.db.session import Database
from app.jobs.kinds import DELIVERING
from app.storage.garbage_collection import remove_in_batches


def clean_up(database: Database) -> None:
    """Remove the masks of jobs that ended without results.

    They were cancelled, or failed, while these were written. Calling it again does nothing.
    """
    table = cast(Table, PseudoMask.__table__)
    over = Job.kind.in_(DELIVERING), Job.state.not_in([*ACTIVE, *SUCCESSFUL])
    with database.read() as session:
        left = exists().where(table.c.job_id == Job.id)
        ids = session.scalars(select(Job.id).where(*over, left)).all()
    for job_id in ids:
        remove_in_batches(database, table, table.c.job_id == job_id)
