"""What endpoints ask for, besides the session: it hangs on the app's state."""

from typing import Annotated, Any

from fastapi import Depends, Request

from app.errors import UnsupportedMedia
from app.settings import Settings
from app.storage.store import Storage


def get_settings(request: Request) -> Settings:
    """Return the service's settings."""
    settings: Settings = request.app.state.settings
    return settings


def get_storage(request: Request) -> Storage:
    """Return the service's storage."""
    storage: Storage = request.app.state.storage
    return storage


def require_content_type(*kinds: str) -> Any:
    """Refuse a body of another media type; for a route's `dependencies`.

    Without it, the answer would be that every field is missing.

    Args:
        kinds: media types that are accepted; the first is the one to recommend.
    """

    def check(request: Request) -> None:
        header = request.headers.get("content-type", "")
        sent = header.split(";")[0].strip().lower()
        if sent not in kinds:
            detail = f"Send {kinds[0]}, and say so in the header Content-Type"
            raise UnsupportedMedia(f"{detail}; it was {sent!r}." if sent else f"{detail}.")

    return Depends(check)


SettingsDep = Annotated[Settings, Depends(get_settings)]
StorageDep = Annotated[Storage, Depends(get_storage)]
