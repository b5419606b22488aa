"""How fast, beside what a user would pick instead: `make bench`, or `make bench BENCH=targets`.

    python benchmarks/bench.py [NAME ...] [--small] [--results DIR] [--markdown FILE]

A measurement is a file bench_NAME.py beside this one, with `measure(small) -> list[Row]`; each runs
in a process of its own. Its rows, the machine and the commit are kept as results/NAME.json, and the
table in docs/performance.md is written anew from all that are kept.
"""

import importlib
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from comparison import Row, commit, machine

FOLDER = Path(__file__).resolve().parent
PAGE = FOLDER.parent / "docs" / "performance.md"
BEGIN, END = "<!-- figures of `make bench` -->", "<!-- end of the figures -->"


def names() -> list[str]:
    """Of all measurements, in the order of the alphabet."""
    return sorted(path.stem.removeprefix("bench_") for path in FOLDER.glob("bench_*.py"))


def run(name: str, small: bool = False) -> dict[str, Any]:
    """Measure here and now. -> what results/NAME.json holds."""
    measure = importlib.import_module(f"bench_{name}").measure
    about, began = machine(), time.perf_counter()
    rows: list[Row] = measure(small)
    seconds = round(time.perf_counter() - began, 1)
    return {
        "name": name,
        "rows": rows,
        "small": small,
        "seconds": seconds,
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
        "machine": about,
    }


def table(results: list[dict[str, Any]]) -> str:
    """Markdown: a line a row; a goal that is missed stands out."""
    lines = [
        "| what | ours | peer | ratio | spread | goal | against |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        for r in result["rows"]:
            goal = "" if r["goal"] is None else f"≥ {r['goal']:g}"
            missed = r["goal"] is not None and r["ratio"] < r["goal"]
            ratio = f"{r['ratio']:.2f}" + (" (missed)" if missed else "")
            lines.append(
                f"| {r['name']} | {_figure(r['ours'])} {r['unit']} | {_figure(r['peer'])} "
                f"{r['unit']} | {ratio} | {100 * r['spread']:.0f} % | {goal} | {r['against']} |"
            )
    return "\n".join(lines)


def section(results: list[dict[str, Any]]) -> str:
    """The table, and below it where and when each measurement ran."""
    lines = [table(results), ""]
    for result in results:
        about = result["machine"]
        packages = ", ".join(f"{k} {v}" for k, v in about["versions"].items() if v)
        lines.append(
            f"- `{result['name']}`{' (small)' if result['small'] else ''}: {result['date']}, "
            f"commit {result['commit']}, {about['cpu']}, {about['cores']} cores, "
            f"{about['gpu'] + ', ' if about.get('gpu') else ''}"
            f"load {about['load']} before; {packages}"
        )
    return "\n".join(lines)


def write_page(path: Path, text: str) -> None:
    """Put the section between its marks, which are added at the end of a page without them."""
    old = path.read_text(encoding="utf-8") if path.exists() else "# Performance\n"
    if BEGIN not in old:
        old = f"{old.rstrip()}\n\n{BEGIN}\n{END}\n"
    before, rest = old.split(BEGIN, 1)
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END, 1)[1]}", encoding="utf-8")


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def main(
    which: Annotated[
        list[str] | None, typer.Argument(help="measurements; all unless named")
    ] = None,
    small: Annotated[bool, typer.Option("--small", help="seconds; figures say little")] = False,
    results: Annotated[Path, typer.Option(help="folder of the kept figures")] = FOLDER / "results",
    markdown: Annotated[Path | None, typer.Option(help="page to write the table into")] = None,
) -> None:
    unknown = sorted(set(which or []) - set(names()))
    if unknown:
        raise typer.BadParameter(f"no measurement {', '.join(unknown)}; there are {names()}")
    if which and len(which) == 1:
        results.mkdir(parents=True, exist_ok=True)
        found = run(which[0], small)
        if not found["rows"]:
            return  # it has said why; what was kept before stays
        path = results / f"{which[0]}.json"
        path.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
        typer.echo(table([found]))
    else:
        flags = [*(["--small"] if small else []), "--results", str(results)]
        for name in which or names():
            subprocess.run([sys.executable, __file__, name, *flags], check=True)
    if markdown:
        kept = [msgspec.json.decode(path.read_bytes()) for path in sorted(results.glob("*.json"))]
        write_page(markdown, section(kept))


if __name__ == "__main__":
    typer.run(main)
