"""The ladder's rows over seeds, and the tables that show them."""

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sapnet.utils.files import write_text

Row = dict[str, Any]
Step = tuple[float, float]
FIGURES = (
    *("miou_mask", "miou_box", "gap_local", "gap_group"),
    *("ap", "ap50", "ap75", "ap25", "aps", "apm", "apl"),
)
START, END = "<!-- ladder: written by make ladder -->", "<!-- end of ladder -->"


def summary(rows: Sequence[Row]) -> list[Row]:
    """One row a dataset, proposals and method, in the order of first appearance.

    rows: a seed each. Figures are means over the seeds, None where no seed has one; `_spread` is
    their sample deviation, 0 for one seed.
    """
    grouped: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        grouped.setdefault((row["data"], row["proposals"], row["method"]), []).append(row)
    found = []
    for (data, proposals, method), group in grouped.items():
        row = {"data": data, "proposals": proposals, "method": method, "title": group[0]["title"]}
        for name in FIGURES:
            mean, spread = mean_spread([r[name] for r in group if r[name] is not None])
            row |= {name: mean, f"{name}_spread": spread}
        below = group[0]["below"]
        lower = {r["seed"]: r for r in grouped.get((data, proposals, below), [])}
        steps = [
            r["miou_mask"] - lower[r["seed"]]["miou_mask"] for r in group if r["seed"] in lower
        ]
        row["below"] = below
        row["step"], row["step_spread"] = mean_spread(steps)
        row["seconds"] = statistics.fmean(r["seconds"] for r in group)
        row["peak_memory_mb"] = max(r["peak_memory_mb"] for r in group)
        row["seeds"] = len(group)
        row["objects"] = group[0]["objects"]
        found.append(row)
    return found


def mean_spread(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and sample deviation; None for both of nothing, a deviation of 0 of one."""
    if not values:
        return None, None
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def markdown(rows: Sequence[Row], about: str) -> str:
    """A table of all mIoU_mask, one of all figures for each set and proposals, and what fell.

    rows: of `summary`. about: what was measured, in a sentence or more.
    """
    places = list(dict.fromkeys((row["data"], row["proposals"]) for row in rows))
    at = {(row["data"], row["proposals"], row["method"]): row for row in rows}
    titles = dict.fromkeys((row["method"], row["title"]) for row in rows)
    heads = [f"{data}, {proposals}" for data, proposals in places]
    lines = [about, "", "mIoU_mask in points, mean ± sample deviation over the seeds:", ""]
    lines += head("", *heads)
    for method, title in titles:
        cells = [at.get((*place, method)) for place in places]
        shown = [points(cell, "miou_mask") if cell else "" for cell in cells]
        lines.append(f"| {title} | {' | '.join(shown)} |")
    lines += ["", *fallen(rows)]
    for place, name in zip(places, heads, strict=True):
        lines += ["", f"**{name}**", ""]
        lines += table([row for row in rows if (row["data"], row["proposals"]) == place])
    return "\n".join(lines) + "\n"


def table(rows: Sequence[Row]) -> Iterator[str]:
    """All figures of one dataset and one kind of proposals."""
    yield from head(
        *("", "mIoU_mask", "step", "mIoU_box", "Gap_local", "Gap_group"),
        *("AP", "AP50", "AP75", "AP25", "CPU s", "peak MB"),
    )
    for row in rows:
        step = "" if row["step"] is None else f"{points(row, 'step', sign='+')}"
        plain = [points(row, name, spread=False) for name in FIGURES[1:8]]
        cells = [row["title"], points(row, "miou_mask"), step, *plain]
        cells += [f"{row['seconds']:.1f}", f"{row['peak_memory_mb']}"]
        yield f"| {' | '.join(cells)} |"


def fallen(rows: Sequence[Row]) -> Iterator[str]:
    """The steps that lower the mean by more than their own spread over the seeds."""
    low = [
        f"{row['title']} on {row['data']}, {row['proposals']} ({points(row, 'step', sign='+')})"
        for row in rows
        if row["step"] is not None and row["step"] < -row["step_spread"] and row["step"] < -0.0005
    ]
    yield f"Steps that lower the mean by more than their spread: {'; '.join(low) or 'none'}."


def head(*names: str) -> list[str]:
    return [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]


def points(row: Row, name: str, spread: bool = True, sign: str = "") -> str:
    """A share as points, with its spread."""
    if row[name] is None:
        return "-"
    text = f"{100 * row[name]:{sign}.1f}"
    return f"{text} ± {100 * row[f'{name}_spread']:.1f}" if spread and row["seeds"] > 1 else text


def write_section(path: Path, text: str) -> None:
    """Put `text` between the two marks in a Markdown file: instead of what is there, else behind
    all else."""
    old = path.read_text() if path.exists() else ""
    before, mark, rest = old.partition(START)
    _, _, after = rest.partition(END) if mark else ("", "", "\n")
    if not mark and before:
        before = before.rstrip("\n") + "\n\n"
    write_text(path, f"{before}{START}\n{text.rstrip()}\n{END}{after}")
