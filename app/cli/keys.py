"""`sapnet-service keys`: make, list and revoke API keys.

Whoever can run it is trusted: it goes to the database directly.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from app.auth.scope import Scope

if TYPE_CHECKING:
    from app.db.models import ApiKey
    from app.db.session import Database

_OWNER = 64  # characters, as the table has them
_NAME = 100

Owner = Annotated[str, typer.Argument(help="whose data the key sees; may have several keys")]
Allowed = Annotated[
    Scope,
    typer.Option(
        help="read; write too; admin: everything, and all owners' data; metrics: GET /metrics alone"
    ),
]
Name = Annotated[str, typer.Option(help="to tell an owner's keys apart")]
Days = Annotated[
    int | None, typer.Option(min=1, max=36_500, help="how long it works; default: for ever")
]


MAKE = "sapnet-service keys create NAME --scope admin"
LOCAL = f"There is no key, so it answers this machine alone. For others: {MAKE}"
NOT_STARTED = f"""Not started: there is no API key, and at this address strangers could do anything.
Make a key:  {MAKE}
Or listen on 127.0.0.1. Or, where something in front of the service keeps strangers out, set
SAPNET_ALLOW_WITHOUT_KEYS=true."""


def no_key(database: "Database") -> bool:
    """Whether no key was ever made."""
    from app.auth import keys

    with database.read() as session:
        return not keys.any_exist(session)


def keys_group(ready: Callable[[], AbstractContextManager["Database"]]) -> typer.Typer:
    """ready: gives a database with the newest schema."""
    group = typer.Typer(no_args_is_help=True, help="API keys: make, list, revoke.")

    @group.command()
    def create(
        owner: Owner, scope: Allowed = Scope.WRITE, name: Name = "", days: Days = None
    ) -> None:
        """Make a key, and show it once. From the first one on, every request needs a key."""
        from app.auth import keys
        from app.db.columns import now

        if not owner.strip() or len(owner) > _OWNER or not owner.isprintable():
            raise typer.BadParameter(f"an owner is 1 to {_OWNER} printable characters")
        if len(name) > _NAME or not name.isprintable():
            raise typer.BadParameter(f"a name is at most {_NAME} printable characters")
        until = now() + timedelta(days=days) if days else None
        with ready() as database, database.begin() as session:
            text, row = keys.create(session, owner, scope, name=name, expires_at=until)
        typer.echo(
            f"A key of {owner}, scope {scope}; {_until(row)}. It is shown only now:", err=True
        )
        typer.echo(text)
        typer.echo(f"Send it as  Authorization: Bearer {row.prefix}_…", err=True)

    @group.command("list")
    def list_() -> None:
        """Every key there was: its beginning, owner, scope, and whether it works."""
        from app.auth import keys

        with ready() as database, database.read() as session:
            rows = keys.every(session)
        if not rows:
            typer.echo("There is no key: the service answers its own machine alone.", err=True)
        for row in rows:
            state = f"revoked {_day(row.revoked_at)}" if row.revoked_at else _until(row)
            cells = (row.prefix, row.owner, row.scope, row.name or "-", _day(row.created_at), state)
            typer.echo("  ".join(cells))

    @group.command()
    def revoke(
        prefix: Annotated[str, typer.Argument(help="the key's beginning, as `keys list` shows it")],
    ) -> None:
        """End a key, for good; a running service heeds it within seconds."""
        from app.auth import keys
        from app.errors import NotFound

        try:
            with ready() as database, database.begin() as session:
                keys.revoke(session, prefix)
        except NotFound as error:
            typer.echo(f"{error.detail} See: sapnet-service keys list", err=True)
            raise typer.Exit(1) from None
        typer.echo(f"{prefix} is revoked.", err=True)

    return group


def _until(row: "ApiKey") -> str:
    from app.db.columns import now

    if row.expires_at is None:
        return "works"
    return f"{'expired' if row.expires_at <= now() else 'works until'} {_day(row.expires_at)}"


def _day(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d}" if moment else ""
