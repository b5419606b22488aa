"""What a key may do. Apart from `app.auth.keys`, so that the command line loads no database."""

from enum import StrEnum


class Scope(StrEnum):
    """What a key may do. READ is part of WRITE; METRICS stands alone; ADMIN may do all of it."""

    READ = "read"
    WRITE = "write"
    METRICS = "metrics"
    ADMIN = "admin"

    def allows(self, wanted: "Scope") -> bool:
        """Whether a key of this scope may do what needs `wanted`."""
        if self is wanted or self is Scope.ADMIN:
            return True
        return self is Scope.WRITE and wanted is Scope.READ
