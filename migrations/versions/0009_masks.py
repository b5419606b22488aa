"""All masks of a job as one blob."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("job", sa.Column("masks_sha", sa.String(length=64), nullable=True))
    op.create_index(op.f("ix_job_masks_sha"), "job", ["masks_sha"])


def downgrade() -> None:
    op.drop_index(op.f("ix_job_masks_sha"), "job")
    op.drop_column("job", "masks_sha")
