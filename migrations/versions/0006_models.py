"""Models as safetensors and ONNX, with curves and aliases; predictions of many images."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
FILES = ("weights_sha", "onnx_sha", "curves_sha")


def upgrade() -> None:
    for name in FILES:
        op.add_column("model", sa.Column(name, sa.String(length=64), nullable=True))
        op.create_index(op.f(f"ix_model_{name}"), "model", [name])
    op.create_table(
        "model_alias",
        sa.Column("pk", ROW_ID, nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("model_id", sa.String(length=32), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_id"],
            ["model.id"],
            name=op.f("fk_model_alias_model_id_model"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_model_alias")),
    )
    op.create_index(
        op.f("ix_model_alias_owner_name"), "model_alias", ["owner", "name"], unique=True
    )
    op.create_index(op.f("ix_model_alias_model_id"), "model_alias", ["model_id"])
    op.create_table(
        "prediction",
        sa.Column("pk", ROW_ID, nullable=False),
        sa.Column("job_id", sa.String(length=32), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.BigInteger(), nullable=True),
        sa.Column("url", sa.String(), nullable=True),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("size", sa.JSON(), nullable=True),
        sa.Column("results", sa.JSON(), nullable=True),
        sa.Column("error", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(
            ["job_id"], ["job.id"], name=op.f("fk_prediction_job_id_job"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_prediction")),
    )
    op.create_index(
        op.f("ix_prediction_job_id_number"), "prediction", ["job_id", "number"], unique=True
    )
    op.create_index(op.f("ix_prediction_sha256"), "prediction", ["sha256"])


def downgrade() -> None:
    for table in ("prediction", "model_alias"):
        op.drop_table(table)
    for name in FILES:
        op.drop_index(op.f(f"ix_model_{name}"), "model")
        op.drop_column("model", name)
