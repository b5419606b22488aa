"""What a key may do. Apart from `app.auth.keys`, so that the command line loads no database."""

from enum import StrEnum


class Scope(StrEnum):
    """What a key may do; each may do what those before it may."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"

    def allows(self, wanted: "Scope") -> bool:
        """Whether a key of this scope may do what needs `wanted`: each includes those before it."""
        order = list(Scope)
        return order.index(self) >= order.index(wanted)
