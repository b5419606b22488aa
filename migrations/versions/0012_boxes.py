"""Boxes of annotations, and whether an annotation has a point beside its box."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("annotation") as batch_op:
        batch_op.add_column(sa.Column("box", sa.JSON(none_as_null=True), nullable=True))
        pointed = sa.Column("pointed", sa.Boolean(), server_default=sa.true(), nullable=False)
        batch_op.add_column(pointed)


def downgrade() -> None:
    with op.batch_alter_table("annotation") as batch_op:
        batch_op.drop_column("pointed")
        batch_op.drop_column("box")
