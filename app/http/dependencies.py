"""What endpoints ask for, besides the session: it hangs on the app's state."""

from typing import Annotated, Any

from fastapi import Depends, Request

from app.errors import UnsupportedMedia
from app.settings import Settings
from app.storage.store import Storage


def get_settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


def get_storage(request: Request) -> Storage:
    storage: Storage = request.app.state.storage
    return storage


def require_content_type(*kinds: str) -> Any:
    """For a route's `dependencies`: a body of other kinds is refused as such. Without it, the
    answer would be that every field is missing. The first kind is the one to recommend."""

    def check(request: Request) -> None:
        header = request.headers.get("content-type", "")
        sent = header.split(";")[0].strip().lower()
        if sent not in kinds:
            detail = f"Send {kinds[0]}, and say so in the header Content-Type"
            raise UnsupportedMedia(f"{detail}; it was {sent!r}." if sent else f"{detail}.")

    return Depends(check)


SettingsDep = Annotated[Settings, Depends(get_settings)]
StorageDep = Annotated[Storage, Depends(get_storage)]
