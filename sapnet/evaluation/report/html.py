"""HTML and SVG as functions: text is escaped unless it is `Markup` already."""

import html

_EMPTY = frozenset({"br", "circle", "img", "line", "meta", "path", "polyline", "rect"})


class Markup(str):
    """Text that is markup, and goes into the page as it is."""

    __slots__ = ()


def el(name: str, /, *children: object, **attributes: object) -> Markup:
    """An element. Children are Markup, or are made text and escaped; so are attributes. None and
    False leave either out. `class_` and `stroke_width` are written class and stroke-width."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(f"{value}")}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _EMPTY:
        return Markup(f"<{name}{written}/>")
    return Markup(f"<{name}{written}>{join(*children)}</{name}>")


def join(*parts: object) -> Markup:
    """The parts one after the other, escaped where they are not Markup."""
    kept = (part for part in parts if part is not None and part is not False)
    return Markup("".join(p if isinstance(p, Markup) else html.escape(f"{p}") for p in kept))


def table(
    head: tuple[object, ...], *rows: tuple[object, ...], caption: str, words: bool = False
) -> Markup:
    """A table that scrolls by itself where it is too wide; the first cell of a row names it. All
    columns but the first hold numbers, unless they hold words."""
    return el(
        "div",
        el(
            "table",
            el("caption", caption),
            el("thead", el("tr", *(el("th", cell, scope="col") for cell in head))),
            el(
                "tbody",
                *(
                    el("tr", el("th", row[0], scope="row"), *(el("td", c) for c in row[1:]))
                    for row in rows
                ),
            ),
            class_="words" if words else None,
        ),
        class_="scroll",
        tabindex="0",
        role="region",
        aria_label=caption,
    )


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
