"""Trackers of experiments that read a training's events, and where they show it."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("job", sa.Column("tracking", sa.JSON(), nullable=True))
    op.create_table(
        "job_tracker",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("job_id", sa.String(length=32), nullable=False),
        sa.Column("tracker", sa.String(length=32), nullable=False),
        sa.Column("run_id", sa.String(length=200), nullable=True),
        sa.Column("reached", sa.JSON(), nullable=False),
        sa.Column("sent", sa.Integer(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("turn", sa.Integer(), nullable=False),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["job.id"], name=op.f("fk_job_tracker_job_id_job"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_tracker")),
    )
    with op.batch_alter_table("job_tracker") as batch_op:
        batch_op.create_index(
            batch_op.f("ix_job_tracker_job_id_tracker"), ["job_id", "tracker"], unique=True
        )
        batch_op.create_index(batch_op.f("ix_job_tracker_due_at"), ["due_at"])


def downgrade() -> None:
    op.drop_table("job_tracker")
    op.drop_column("job", "tracking")
