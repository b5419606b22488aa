"""Jobs without a data set: models from outside, and what is done with them."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("job") as batch_op:
        batch_op.alter_column("dataset_id", existing_type=sa.String(length=32), nullable=True)
        batch_op.add_column(sa.Column("made_by", sa.String(length=64), nullable=True))
        batch_op.create_index(batch_op.f("ix_job_made_by"), ["made_by"])


def downgrade() -> None:
    jobs = sa.table("job", sa.column("id", sa.String()), sa.column("dataset_id", sa.String()))
    imported = sa.select(jobs.c.id).where(jobs.c.dataset_id.is_(None)).scalar_subquery()
    models = sa.table("model", sa.column("id", sa.String()), sa.column("job_id", sa.String()))
    aliases = sa.table("model_alias", sa.column("model_id", sa.String()))
    of_jobs = sa.select(models.c.id).where(models.c.job_id.in_(imported)).scalar_subquery()
    op.execute(sa.delete(aliases).where(aliases.c.model_id.in_(of_jobs)))
    for name in ("model", "prediction", "webhook", "job_event"):  # SQLite's keys are off meanwhile
        table = sa.table(name, sa.column("job_id", sa.String()))
        op.execute(sa.delete(table).where(table.c.job_id.in_(imported)))
    op.execute(sa.delete(jobs).where(jobs.c.dataset_id.is_(None)))
    with op.batch_alter_table("job") as batch_op:
        batch_op.drop_index(batch_op.f("ix_job_made_by"))
        batch_op.drop_column("made_by")
        batch_op.alter_column("dataset_id", existing_type=sa.String(length=32), nullable=False)
