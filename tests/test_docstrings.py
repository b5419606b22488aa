"""Docstrings of public names, in Google style, by ruff: what is missing may only become less.

`docstrings.json` has, for each package and rule, how many faults may be left. A rule that nothing
breaks any more moves to ruff's own selection, in pyproject.toml.

    python tests/test_docstrings.py           what is left
    python tests/test_docstrings.py --lower   lower the numbers to what is left
"""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = Path(__file__).with_name("docstrings.json")
PACKAGES = ("app", "worker", "sapnet", "sapnet_client")


def left() -> dict[str, Counter[str]]:
    """How often each package breaks each rule."""
    rules = ",".join(sorted({rule for limits in allowed().values() for rule in limits}))
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--exit-zero"]
    command += ["--select", rules, "--output-format", "json", *PACKAGES]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    counts = {package: Counter[str]() for package in PACKAGES}
    for fault in json.loads(done.stdout):
        counts[Path(fault["filename"]).relative_to(ROOT).parts[0]][fault["code"]] += 1
    return counts


def allowed() -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = json.loads(ALLOWED.read_text())
    return found


def test_docstrings_only_become_more() -> None:
    counts = left()
    grown = [
        f"{package}: {counts[package][rule]} of {rule}, at most {limit} are allowed; see "
        f"ruff check --select {rule} {package}"
        for package, limits in allowed().items()
        for rule, limit in limits.items()
        if counts[package][rule] > limit
    ]
    assert not grown, "\n".join(grown)


def main() -> None:
    limits, counts = allowed(), left()
    for package, rules in limits.items():
        print(package, ", ".join(f"{r} {counts[package][r]}/{n}" for r, n in rules.items()))
        limits[package] = {rule: min(counts[package][rule], n) for rule, n in rules.items()}
    if "--lower" in sys.argv:
        ALLOWED.write_text(json.dumps(limits, indent=1) + "\n")


if __name__ == "__main__":
    main()
