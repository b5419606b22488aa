"""Reports of jobs for people."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("job", sa.Column("report_html_sha", sa.String(length=64), nullable=True))
    op.create_index(op.f("ix_job_report_html_sha"), "job", ["report_html_sha"])


def downgrade() -> None:
    op.drop_index(op.f("ix_job_report_html_sha"), "job")
    op.drop_column("job", "report_html_sha")
