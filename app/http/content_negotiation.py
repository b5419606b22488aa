"""Which representation a client prefers, by its Accept header (RFC 9110, 12.5.1)."""

from fastapi import Request

from app.errors import NotAcceptable


def preferred(request: Request, *offered: str) -> str:
    """One of `offered`: of highest quality, then the earliest. Raises NotAcceptable for none."""
    ranges = [_media_range(part) for part in request.headers.get("accept", "*/*").split(",")]
    scored = [
        (max((_match(r, kind) for r in ranges), default=(0, 0.0))[1], kind) for kind in offered
    ]
    quality, kind = max(scored, key=lambda entry: entry[0])
    if quality <= 0:
        raise NotAcceptable(f"There is only {', '.join(offered)}.")
    return kind


def _media_range(part: str) -> tuple[str, float]:
    name, *parameters = (p.strip().lower() for p in part.split(";"))
    quality = next((p[2:] for p in parameters if p.startswith("q=")), "1")
    try:
        return name, float(quality)
    except ValueError:
        return name, 0.0


def _match(media_range: tuple[str, float], kind: str) -> tuple[int, float]:
    """How specifically the range names the kind (0: not at all), and the quality it gives it."""
    name, quality = media_range
    if name == kind:
        return 3, quality
    if name == f"{kind.split('/')[0]}/*":
        return 2, quality
    return (1, quality) if name in ("*/*", "*", "") else (0, 0.0)
