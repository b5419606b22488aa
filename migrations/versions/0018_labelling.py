"""Masks that a model finds in images without points, their classes, and rules that accept masks."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("pseudo_mask", sa.Column("point_x", sa.Double(), nullable=True))
    op.add_column("pseudo_mask", sa.Column("point_y", sa.Double(), nullable=True))
    op.add_column("mask_decision", sa.Column("category_id", sa.BigInteger(), nullable=True))
    op.add_column("mask_decision", sa.Column("rule_id", sa.String(length=32), nullable=True))
    op.create_table(
        "acceptance_rule",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("job_id", sa.String(length=32), nullable=False),
        sa.Column("min_quality", sa.Double(), nullable=False),
        sa.Column("category_id", sa.BigInteger(), nullable=True),
        sa.Column("image_id", sa.BigInteger(), nullable=True),
        sa.Column("made_by", sa.String(length=64), nullable=True),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("accepted", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["job.id"], name=op.f("fk_acceptance_rule_job_id_job"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_acceptance_rule")),
    )
    with op.batch_alter_table("acceptance_rule") as batch_op:
        batch_op.create_index(batch_op.f("ix_acceptance_rule_job_id"), ["job_id"])


def downgrade() -> None:
    # A release of before knows no job of this kind, and could not read its row.
    jobs = sa.table("job", sa.column("id", sa.String()), sa.column("kind", sa.String()))
    labelling = sa.select(jobs.c.id).where(jobs.c.kind == "label").scalar_subquery()
    exports = sa.table("export", sa.column("job_id", sa.String()))
    op.execute(sa.delete(exports).where(exports.c.job_id.in_(labelling)))
    for name in ("mask_decision", "pseudo_mask", "webhook", "job_event"):
        table = sa.table(name, sa.column("job_id", sa.String()))
        op.execute(sa.delete(table).where(table.c.job_id.in_(labelling)))
    op.execute(sa.delete(jobs).where(jobs.c.kind == "label"))
    op.drop_table("acceptance_rule")
    with op.batch_alter_table("mask_decision") as batch_op:
        batch_op.drop_column("rule_id")
        batch_op.drop_column("category_id")
    with op.batch_alter_table("pseudo_mask") as batch_op:
        batch_op.drop_column("point_y")
        batch_op.drop_column("point_x")
