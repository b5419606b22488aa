"""Subsets of images, and groups of images that are held out together."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("image", sa.Column("subset", sa.String(5), nullable=True))
    op.add_column("image", sa.Column("split_group", sa.String(200), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("image") as batch_op:
        batch_op.drop_column("split_group")
        batch_op.drop_column("subset")
