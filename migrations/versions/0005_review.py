"""Review: decisions about masks, confirmed masks, and trainings that go on from a model."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "mask_decision",
        sa.Column("pk", ROW_ID, nullable=False),
        sa.Column("job_id", sa.String(length=32), nullable=False),
        sa.Column("annotation_id", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("segmentation", sa.JSON(), nullable=True),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("decided_by", sa.String(length=64), nullable=True),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["job.id"], name=op.f("fk_mask_decision_job_id_job"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_mask_decision")),
    )
    op.create_index(
        op.f("ix_mask_decision_job_id_annotation_id"),
        "mask_decision",
        ["job_id", "annotation_id"],
        unique=True,
    )
    op.create_index(op.f("ix_pseudo_mask_job_id_quality"), "pseudo_mask", ["job_id", "quality"])
    op.add_column("annotation", sa.Column("segmentation", sa.JSON(), nullable=True))
    op.add_column("job", sa.Column("initial_sha", sa.String(length=64), nullable=True))
    op.create_index(op.f("ix_job_initial_sha"), "job", ["initial_sha"])


def downgrade() -> None:
    op.drop_index(op.f("ix_job_initial_sha"), "job")
    op.drop_column("job", "initial_sha")
    op.drop_column("annotation", "segmentation")
    op.drop_index(op.f("ix_pseudo_mask_job_id_quality"), "pseudo_mask")
    op.drop_table("mask_decision")
