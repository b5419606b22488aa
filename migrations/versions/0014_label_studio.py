"""Projects of Label Studio that have connected the service."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "label_studio_project",
        sa.Column("pk", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("project", sa.String(100), nullable=False),
        sa.Column("url", sa.String(2000), nullable=False),
        sa.Column("token", sa.String(2000), nullable=False),
        sa.Column("label_config", sa.String(), nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("datasets", sa.JSON(), nullable=False),
        sa.Column("to_train", sa.String(32), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("pk", name="pk_label_studio_project"),
    )
    op.create_index(
        "ix_label_studio_project_owner_project",
        "label_studio_project",
        ["owner", "project"],
        unique=True,
    )
    op.create_index("ix_label_studio_project_to_train", "label_studio_project", ["to_train"])


def downgrade() -> None:
    op.drop_table("label_studio_project")
