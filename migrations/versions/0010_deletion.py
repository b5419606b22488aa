"""Data sets that are being deleted; requests of jobs as blobs, and apart from their model."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("dataset", sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(op.f("ix_dataset_deleted_at"), "dataset", ["deleted_at"])
    op.add_column("job", sa.Column("request_sha", sa.String(length=64), nullable=True))
    op.create_index(op.f("ix_job_request_sha"), "job", ["request_sha"])
    op.add_column("job", sa.Column("from_model", sa.String(length=32), nullable=True))
    job = sa.table("job", sa.column("request", sa.JSON()), sa.column("from_model", sa.String()))
    op.execute(sa.update(job).values(from_model=job.c.request["from_model"].as_string()))


def downgrade() -> None:
    op.drop_column("job", "from_model")
    op.drop_index(op.f("ix_job_request_sha"), "job")
    op.drop_column("job", "request_sha")
    op.drop_index(op.f("ix_dataset_deleted_at"), "dataset")
    op.drop_column("dataset", "deleted_at")
