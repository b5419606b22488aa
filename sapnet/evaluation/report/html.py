"""SVG elements as functions, and figures for people."""

from markupsafe import Markup as Html
from markupsafe import escape

__all__ = ["Html", "duration", "element", "number"]


def element(name: str, /, *children: object, **attributes: object) -> Html:
    """An element of SVG.

    Args:
        children: Html, or anything else, whose text is escaped.
        attributes: `class_` and `stroke_width` are written class and stroke-width; None is left
            out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{written}>{''.join(map(escape, children))}</{name}>")


def number(value: float | None, digits: int = 3) -> str:
    """A figure for people; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def duration(seconds: float) -> str:
    """Seconds as people say them: 42 s, 3 min 5 s, 2 h 4 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
