"""What tables are made of: ids, moments, kinds of columns, and the base of all."""

import secrets
import time
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

from sqlalchemy import JSON, BigInteger, DateTime, ForeignKey, Integer, MetaData, String
from sqlalchemy import Enum as EnumType
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, mapped_column
from sqlalchemy.types import TypeDecorator


def new_id() -> str:
    """32 hex digits: 12 of milliseconds since 1970, 20 at random."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


def is_id(text: str) -> bool:
    """Whether a text may be one of our ids. Databases fail at some others: NUL, surrogates."""
    return text.isascii() and text.isalnum()


def now() -> datetime:
    """Return the moment, in UTC."""
    return datetime.now(UTC)


class Utc(TypeDecorator[datetime]):
    """A moment, always aware and in UTC, also on SQLite, which keeps no time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert to UTC; without a zone on SQLite, which has none.

        Raises:
            ValueError: the moment has no zone.
        """
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a naive datetime: {value!r}")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the moment in UTC, with its zone."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def stored_as_value(kind: type[StrEnum]) -> EnumType:
    """A plain string column, so that a new value needs no migration."""
    return EnumType(
        kind, native_enum=False, length=32, values_callable=lambda e: [m.value for m in e]
    )


Id = Annotated[str, mapped_column(String(32), primary_key=True, default=new_id)]
RowId = Annotated[
    int, mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
]
UserId = Annotated[int, mapped_column(BigInteger)]
BlobRef = Annotated[str, mapped_column(String(64), index=True, info={"blob": True})]
Json = Annotated[Any, mapped_column(JSON)]
Mask = Annotated[Any, mapped_column(JSON(none_as_null=True))]
"""A compressed COCO RLE; no mask is NULL, not JSON's null, so that SQL can tell."""
BoxColumn = Annotated[Any, mapped_column(JSON(none_as_null=True))]
"""x0, y0, x1, y1 in pixels; no box is NULL."""
Moment = Annotated[datetime, mapped_column(Utc)]
Created = Annotated[datetime, mapped_column(Utc, default=now)]
DatasetRef = Annotated[
    str, mapped_column(String(32), ForeignKey("dataset.id", ondelete="CASCADE"), index=True)
]


class Base(DeclarativeBase):
    """The base of all tables; constraints and indices get their names by one convention."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
