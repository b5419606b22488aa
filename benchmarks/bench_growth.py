"""Whether import, listing and streaming cost the same an annotation, however many there are.

Beside the rows it draws results/growth.svg: seconds over annotations, both axes logarithmic.
"""

import tempfile
import time
from math import log10
from pathlib import Path

import httpx2
from bench_service import fill
from comparison import Row, row
from fastapi.testclient import TestClient
from large_import import measured, write

from app.main import create_app
from app.settings import Settings

COUNTS = (1_000, 3_000, 10_000, 30_000, 100_000)
COLOURS = {"import": "#0b7285", "listing": "#c2255c", "stream": "#5f3dc4"}
PICTURE = Path(__file__).parent / "results" / "growth.svg"
LINES = {"Accept": "application/x-ndjson"}


def took(client: TestClient, job_id: str, what: str) -> float:
    """Seconds for all masks of a job, in pages of 1,000 or as one stream."""
    began = time.perf_counter()
    url: str | None = f"/jobs/{job_id}/pseudo-masks"
    if what == "stream":
        _good(client.get(url, headers=LINES))
    else:
        cursor = None
        while True:
            params = {"limit": 1000, **({"cursor": cursor} if cursor else {})}
            cursor = _good(client.get(url, params=params)).json()["next"]
            if cursor is None:
                break
    return time.perf_counter() - began


def _good(answer: httpx2.Response) -> httpx2.Response:
    assert answer.status_code == 200, answer.text
    return answer


def once(count: int) -> dict[str, float]:
    """Seconds of each for so many annotations, the fastest of three."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "points.json", max(count // 7, 1), count)
        read = []
        for attempt in range(3):
            part = folder / str(attempt)
            part.mkdir()
            read.append(measured("rows", folder / "points.json", part)["seconds"])
        settings = Settings(data_dir=folder / "data", log_level="error")
        job_id = fill(settings, count)
        with TestClient(create_app(settings)) as client:
            served = {
                what: min(took(client, job_id, what) for _ in range(3))
                for what in ("listing", "stream")
            }
    return {"import": min(read), **served}


def measure(small: bool) -> list[Row]:
    counts = (200, 400) if small else COUNTS
    found = {count: once(count) for count in counts}
    if not small:
        PICTURE.write_text(drawn(found), encoding="utf-8")
    less, most = counts[-2] if small else 10_000, counts[-1]
    more = [{count: once(count) for count in (most, less)} for _ in range(0 if small else 2)]
    turns = [found, *more]
    return [
        row(
            f"{what}: an annotation of {most:,}, and one of {less:,}",
            [(1e6 * turn[most][what] / most, 1e6 * turn[less][what] / less) for turn in turns],
            unit="µs",
            against="a tenth as many",
            goal=0.8,
        )
        for what in COLOURS
    ]


def drawn(found: dict[int, dict[str, float]]) -> str:
    """An SVG; straight lines at 45° are linear growth."""

    def x(count: float) -> float:
        return 60 + 130 * (log10(count) - 3)

    def y(seconds: float) -> float:
        return 250 - 50 * (log10(seconds) + 3)

    parts = []
    for power in (3, 4, 5):
        at, words = x(10**power), f"{10**power:,}"
        parts.append(f'<text x="{at:.0f}" y="272" text-anchor="middle">{words}</text>')
    for power in (-3, -2, -1, 0, 1):
        at = y(10**power)
        parts.append(f'<path d="M60 {at:.0f}H330" stroke="#8886"/>')
        parts.append(f'<text x="54" y="{at + 4:.0f}" text-anchor="end">{10.0**power:g} s</text>')
    for what, colour in COLOURS.items():
        points = [(x(count), y(of[what])) for count, of in found.items()]
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in points]
    last = list(found.values())[-1]
    below = 0.0
    for what in sorted(COLOURS, key=last.__getitem__, reverse=True):
        below = max(y(last[what]) + 4, below + 14)
        style, at = f"fill:{COLOURS[what]}", x(max(found)) + 8
        parts.append(f'<text x="{at:.0f}" y="{below:.0f}" style="{style}">{what}</text>')
    body = "\n".join(parts)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 400 290" role="img" '
        'aria-label="Seconds over annotations">\n'
        "<style>text{font:12px system-ui,sans-serif;fill:#888}</style>\n"
        f'{body}\n<text x="195" y="287" text-anchor="middle">annotations</text>\n</svg>\n'
    )
