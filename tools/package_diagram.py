"""Draw packages as SVG: a box for each entry, a row for each level, arrows for imports.

Long arrows are led around boxes by way points in the rows between (Sugiyama's layered drawing:
levels, then an order within each row that avoids crossings, then positions). The same graph gives
the same diagram, byte for byte.
"""

import itertools
from collections.abc import Mapping, Sequence
from html import escape
from typing import Protocol

import networkx as nx

BOX_WIDTH, BOX_HEIGHT, ROW_HEIGHT = 118, 30, 62
GAP, WAY_POINT_WIDTH = 18, 10  # between neighbours of a row, in pixels as all lengths here
PANEL_GAP, MARGIN, HEADER, LINE = 44, 24, 44, 17
SWEEPS = 24

STYLE = """
  .page { fill: #ffffff } .room { fill: #eef3fb; stroke: #4a6fa5 }
  .arrow { fill: none; stroke: #7f8fa6; stroke-width: 1.2 } .tip { fill: #7f8fa6 }
  text { fill: #1f2733; font: 13px ui-sans-serif, system-ui, sans-serif }
  .title { font-size: 17px; font-weight: 600 } .note { fill: #5a6676; font-size: 12px }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117 } .room { fill: #1b2636; stroke: #6f94cc }
    .arrow { stroke: #76839a } .tip { fill: #76839a }
    text { fill: #e6edf3 } .note { fill: #9aa7b8 }
  }
"""
LEGEND = (
    "An arrow means: imports. Where a chain of arrows leads to an entry already, none is drawn."
)


class Package(Protocol):
    name: str

    @property
    def entry_imports(self) -> nx.DiGraph: ...

    @property
    def levels(self) -> dict[str, int]: ...


def draw(packages: Mapping[str, Package], outside: Mapping[str, Sequence[str]]) -> str:
    """Return the SVG of the packages side by side.

    Args:
        packages: By name, in the order of the panels.
        outside: By name, the entries of other packages that a package imports.
    """
    parts: list[str] = []
    left, height = float(MARGIN), 0.0
    for name, package in packages.items():
        panel, width, depth = _panel(package, left)
        notes = _lines(outside[name], width)
        parts += [f'<text class="title" x="{left:.0f}" y="{MARGIN + 16}">{escape(name)}/</text>']
        parts += panel
        for index, note in enumerate(notes):
            y = MARGIN + HEADER + depth + 22 + index * LINE
            parts.append(f'<text class="note" x="{left:.0f}" y="{y:.0f}">{escape(note)}</text>')
        left += width + PANEL_GAP
        height = max(height, depth + len(notes) * LINE + 22)
    width, height = left - PANEL_GAP + MARGIN, height + 2 * MARGIN + HEADER + LINE
    parts.append(f'<text class="note" x="{MARGIN}" y="{height - MARGIN:.0f}">{LEGEND}</text>')
    marker = (
        '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path class="tip" d="M0 0 8 4 0 8z"/></marker>'
    )
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" role="img" aria-label="{LEGEND}">\n'
        f"<style>{STYLE}</style>\n<defs>{marker}</defs>\n"
        '<rect class="page" width="100%" height="100%" rx="8"/>\n'
    )
    return head + "\n".join(parts) + "\n</svg>\n"


def _panel(package: Package, left: float) -> tuple[list[str], float, float]:
    """Return the elements of one package, its width and its height."""
    paths = _paths(package.entry_imports, package.levels)
    rows = _ordered(_rows(package.levels, paths), paths)
    centres = _centres(rows, paths)
    first = min(centres[node] - _width(node) / 2 for row in rows for node in row)
    last = max(centres[node] + _width(node) / 2 for row in rows for node in row)
    at = {
        node: (left + centres[node] - first, MARGIN + HEADER + index * ROW_HEIGHT + BOX_HEIGHT / 2)
        for index, row in enumerate(rows)
        for node in row
    }
    parts = [_arrow([at[node] for node in path]) for path in paths]
    for entry in package.levels:
        x, y = at[entry]
        parts.append(
            f'<rect class="room" x="{x - BOX_WIDTH / 2:.1f}" y="{y - BOX_HEIGHT / 2:.1f}" '
            f'width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6"/>'
            f'<text x="{x:.1f}" y="{y + 4.5:.1f}" text-anchor="middle">{escape(entry)}</text>'
        )
    return parts, last - first, len(rows) * ROW_HEIGHT - (ROW_HEIGHT - BOX_HEIGHT)


def _paths(imports: nx.DiGraph, levels: Mapping[str, int]) -> list[list[str]]:
    """Return an arrow for each import that no chain implies: importer, way points, imported."""
    downward = nx.DiGraph([edge for edge in imports.edges if levels[edge[0]] > levels[edge[1]]])
    kept = nx.transitive_reduction(downward)
    return [
        [
            upper,
            *(f"{upper} {lower} {k}" for k in range(levels[upper] - 1, levels[lower], -1)),
            lower,
        ]
        for upper, lower in sorted(kept.edges)
    ]


def _rows(levels: Mapping[str, int], paths: Sequence[Sequence[str]]) -> list[list[str]]:
    """Return entries and way points by row, the highest level first."""
    rows: list[list[str]] = [[] for _ in range(max(levels.values()))]
    for entry in sorted(levels):
        rows[-levels[entry]].append(entry)
    for path in paths:
        for offset, point in enumerate(path[1:-1], start=1):
            rows[offset - levels[path[0]]].append(point)
    return rows


def _neighbours(paths: Sequence[Sequence[str]]) -> nx.DiGraph:
    return nx.DiGraph([edge for path in paths for edge in itertools.pairwise(path)])


def _ordered(rows: list[list[str]], paths: Sequence[Sequence[str]]) -> list[list[str]]:
    """Return the rows in the order with the fewest crossings that sweeps of barycentres find."""
    graph = _neighbours(paths)
    best, fewest = rows, _crossings(rows, graph)
    for sweep in range(SWEEPS):
        rows = [list(row) for row in rows]
        for index in range(1, len(rows)) if sweep % 2 == 0 else range(len(rows) - 2, -1, -1):
            fixed = rows[index - 1] if sweep % 2 == 0 else rows[index + 1]
            place = {node: rank / max(len(fixed) - 1, 1) for rank, node in enumerate(fixed)}
            old = {
                node: rank / max(len(rows[index]) - 1, 1) for rank, node in enumerate(rows[index])
            }
            rows[index].sort(key=lambda node, p=place, o=old: _mean(graph, node, p, o[node]))
        count = _crossings(rows, graph)
        if count < fewest:
            best, fewest = rows, count
    return best


def _crossings(rows: Sequence[Sequence[str]], graph: nx.DiGraph) -> int:
    count = 0
    for upper, lower in itertools.pairwise(rows):
        place = {node: rank for rank, node in enumerate(lower)}
        ends = [
            (rank, place[end])
            for rank, node in enumerate(upper)
            if node in graph
            for end in graph.successors(node)
        ]
        count += sum(a < c and b > d for a, b in ends for c, d in ends)
    return count


def _mean(graph: nx.DiGraph, node: str, place: Mapping[str, float], default: float) -> float:
    around = (
        [place[n] for n in nx.all_neighbors(graph, node) if n in place] if node in graph else []
    )
    return sum(around) / len(around) if around else default


def _centres(rows: Sequence[Sequence[str]], paths: Sequence[Sequence[str]]) -> dict[str, float]:
    """Return each node's x: near those it is joined with, never over its neighbour in the row."""
    graph, centres = _neighbours(paths), {}
    for row in rows:
        centres |= {node: index * (BOX_WIDTH + GAP) for index, node in enumerate(row)}
    for _ in range(SWEEPS):
        for row in [*rows, *reversed(rows)]:
            wanted = [_mean(graph, node, centres, centres[node]) for node in row]
            placed: list[float] = []
            for node, x in zip(row, wanted, strict=True):
                if placed:
                    x = max(x, placed[-1] + (_width(row[len(placed) - 1]) + _width(node)) / 2 + GAP)
                placed.append(x)
            shift = sum(w - p for w, p in zip(wanted, placed, strict=True)) / max(len(row), 1)
            centres |= {node: x + shift for node, x in zip(row, placed, strict=True)}
    return centres


def _width(node: str) -> int:
    return WAY_POINT_WIDTH if " " in node else BOX_WIDTH


def _arrow(points: Sequence[tuple[float, float]]) -> str:
    """Return a smooth line from the lower edge of the first box to the upper edge of the last."""
    (x, y), *rest = points
    y += BOX_HEIGHT / 2
    path = f"M{x:.1f} {y:.1f}"
    for index, (to_x, to_y) in enumerate(rest):
        top, last = to_y - BOX_HEIGHT / 2, index == len(rest) - 1
        bend = (top - y) / 2
        path += f"C{x:.1f} {y + bend:.1f} {to_x:.1f} {top - bend:.1f} {to_x:.1f} {top:.1f}"
        x, y = to_x, top
        if not last:
            y += BOX_HEIGHT
            path += f"V{y:.1f}"
    return f'<path class="arrow" d="{path}" marker-end="url(#tip)"/>'


def _lines(names: Sequence[str], width: float) -> list[str]:
    """Return what a package imports of others, as lines that fit its panel."""
    if not names:
        return ["imports no other package"]
    lines, room = ["also imports"], max(int(width / 6.4), 24)
    for name in names:
        glued = f"{lines[-1]} {name}" if lines[-1].endswith(("imports", ",")) else name
        if len(glued) + 1 > room:
            lines.append(f"{name},")
        else:
            lines[-1] = f"{glued},"
    lines[-1] = lines[-1].rstrip(",")
    return lines
