"""Charts as inline SVG, 360 units wide, so that their text is readable on a phone too.

Each says in words what it shows; colours come from the page's style, dark or light.
"""

from collections.abc import Sequence

from sapnet.evaluation.report.html import Html, element, number

WIDTH = 360
_ROW, _TOP = 34, 18
_LEFT, _RIGHT, _BOTTOM = 34, 10, 26


def _svg(height: float, words: str, *parts: object) -> Html:
    box = f"0 0 {WIDTH} {height:g}"
    return element("svg", *parts, viewBox=box, role="img", aria_label=words)


def _text(
    x: float, y: float, words: object, anchor: str = "start", kind: str | None = None
) -> Html:
    return element("text", words, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, class_=kind)


def bars(
    rows: Sequence[tuple[str, float, str]], words: str, top: float | None = None, best: int = -1
) -> Html:
    """Horizontal bars.

    Args:
        rows: name, value >= 0, the value in words.
        top: the longest bar's value.
        best: the index of one to stand out.
    """
    longest = top or max((value for _, value, _ in rows), default=0) or 1.0
    parts = []
    for place, (name, value, text) in enumerate(rows):
        y = place * _ROW
        width = max(min(value / longest, 1.0) * WIDTH, 1.0)
        kind = "bar best" if place == best else "bar"
        parts += [
            _text(0, y + 13, name),
            _text(WIDTH, y + 13, text, "end", "value"),
            element("rect", x=0, y=y + 18, width=WIDTH, height=8, rx=2, class_="track"),
            element("rect", x=0, y=y + 18, width=f"{width:.1f}", height=8, rx=2, class_=kind),
        ]
    listed = "; ".join(f"{name} {text}" for name, _, text in rows)
    return _svg(max(len(rows), 1) * _ROW - 4, f"{words}: {listed}", *parts)


def curve(name: str, points: Sequence[tuple[float, float]], end: float) -> Html:
    """One loss over the steps.

    Args:
        points: (step, value), at least one.
        end: the last step.
    """
    height = 130
    values = [value for _, value in points]
    low, high = min(values), max(values)
    span = high - low or 1.0
    right, bottom = WIDTH - _RIGHT, height - _BOTTOM

    xs = [f"{_LEFT + (right - _LEFT) * step / max(end, 1):.1f}" for step, _ in points]
    ys = [f"{bottom - (bottom - _TOP - 8) * (value - low) / span:.1f}" for value in values]
    line = " ".join(map(",".join, zip(xs, ys, strict=True)))
    first, last = points[0][1], points[-1][1]
    words = f"{name} over {end:g} steps: from {first:.3g} to {last:.3g}, at most {high:.3g}"
    return _svg(
        height,
        words,
        _text(0, 13, name),
        _text(WIDTH, 13, f"{first:.3g} → {last:.3g}", "end", "value"),
        element("line", x1=_LEFT, y1=bottom, x2=right, y2=bottom, class_="axis"),
        _text(_LEFT - 4, _TOP + 16, f"{high:.2g}", "end", "tick"),
        _text(_LEFT - 4, bottom, f"{low:.2g}", "end", "tick"),
        _text(_LEFT, height - 9, "0", "start", "tick"),
        _text(right, height - 9, f"step {end:g}", "end", "tick"),
        element("polyline", points=line, class_="line"),
        element("circle", cx=xs[-1], cy=ys[-1], r=2.5),
    )


def columns(
    counts: Sequence[int],
    edges: tuple[float, float],
    words: str,
    unit: str,
    marked: Sequence[int] | None = None,
) -> Html:
    """A histogram of equal bins between the edges.

    Args:
        marked: how many of each bin stand out.
    """
    height = 150
    bottom, most = height - _BOTTOM, max([*counts, 1])
    step = WIDTH / max(len(counts), 1)
    parts: list[object] = []
    for place, count in enumerate(counts):
        tall = (bottom - _TOP) * count / most
        of = marked[place] if marked else 0
        short = (bottom - _TOP) * of / most
        for size, kind in ((tall, "bar"), (short, "bar bad")):
            if size > 0:
                parts.append(
                    element(
                        "rect",
                        x=f"{place * step + 1:.1f}",
                        y=f"{bottom - max(size, 1):.1f}",
                        width=f"{step - 2:.1f}",
                        height=f"{max(size, 1):.1f}",
                        class_=kind,
                    )
                )
        if count:
            parts.append(_text((place + 0.5) * step, bottom - tall - 4, count, "middle", "tick"))
    low, high = edges
    wide = (high - low) / max(len(counts), 1)
    listed = "; ".join(
        f"{low + i * wide:.2g} to {low + (i + 1) * wide:.2g}: {c}"
        + (f", {marked[i]} of them wrong" if marked else "")
        for i, c in enumerate(counts)
        if c
    )
    return _svg(
        height,
        f"{words}: {listed}",
        *parts,
        element("line", x1=0, y1=bottom, x2=WIDTH, y2=bottom, class_="axis"),
        _text(0, height - 9, f"{low:g}", "start", "tick"),
        _text(WIDTH / 2, height - 9, unit, "middle", "tick"),
        _text(WIDTH, height - 9, f"{high:g}", "end", "tick"),
    )


def reliability(bins: Sequence[tuple[float, float, int]]) -> Html:
    """The share of right masks against their quality.

    Args:
        bins: mean quality, share right, count.
    """
    side = 220.0
    left, top = (WIDTH - side) / 2, 10.0
    most = max([*(count for _, _, count in bins), 1])
    dots = [
        element(
            "circle",
            cx=f"{left + side * quality:.1f}",
            cy=f"{top + side * (1 - right):.1f}",
            r=f"{3 + 9 * (count / most) ** 0.5:.1f}",
            class_="dot",
        )
        for quality, right, count in bins
    ]
    listed = "; ".join(
        f"of {count} masks with quality about {number(quality, 2)}, {number(right, 2)} were right"
        for quality, right, count in bins
    )
    return _svg(
        side + 46,
        listed or "no masks",
        element("rect", x=left, y=top, width=side, height=side, class_="frame"),
        element("line", x1=left, y1=top + side, x2=left + side, y2=top, class_="diagonal"),
        *dots,
        _text(left - 5, top + 10, "1", "end", "tick"),
        _text(left - 5, top + side, "0", "end", "tick"),
        _text(left, top + side + 15, "0", "start", "tick"),
        _text(left + side, top + side + 15, "1", "end", "tick"),
        _text(left + side / 2, top + side + 32, "quality → share with IoU ≥ 0.5", "middle", "tick"),
    )
