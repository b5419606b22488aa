"""Print the structure of the packages, check it against its limits, draw it.

    python tools/structure.py           the figures
    python tools/structure.py --check   also fail where a limit is exceeded (part of `make lint`)
    python tools/structure.py --draw    also write docs/images/rooms.svg

An entry is a file or folder at the top of a package, without dunder files. Levels are the longest
chain of imports over entries; entries that import each other in a circle count one level each.
Imports inside functions and under TYPE_CHECKING count like all others.
"""

import argparse
import re
import sys
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import grimp
import networkx as nx
from package_diagram import draw

ROOT = Path(__file__).resolve().parents[1]
DIAGRAM = ROOT / "docs" / "images" / "rooms.svg"
PACKAGES = ("app", "worker", "sapnet", "sapnet_client")


class Limits(NamedTuple):
    entries: int
    levels: int


LIMITS = {"app": Limits(20, 11), "worker": Limits(8, 6), "sapnet": Limits(12, 9)}
MAX_CYCLES = 0
MAX_EXCEPTIONS = 10


@dataclass(frozen=True)
class Package:
    """One package and the imports between its modules, as edges importer -> imported."""

    name: str
    modules: nx.DiGraph

    @cached_property
    def entries(self) -> list[str]:
        paths = (ROOT / self.name).iterdir()
        return sorted(p.stem for p in paths if not p.name.startswith(("__", ".", "py.typed")))

    @cached_property
    def entry_imports(self) -> nx.DiGraph:
        graph = nx.DiGraph()
        graph.add_nodes_from(self.entries)
        for importer, imported in self.modules.edges:
            ends = [module.split(".")[1] for module in (importer, imported) if "." in module]
            if len(ends) == 2 and ends[0] != ends[1] and set(ends) <= set(self.entries):
                graph.add_edge(*ends)
        return graph

    @cached_property
    def levels(self) -> dict[str, int]:
        """Entry -> its level: 1 imports no other entry."""
        groups = nx.condensation(self.entry_imports)
        levels: dict[str, int] = {}
        for group in reversed(list(nx.topological_sort(groups))):
            below = (
                levels[m] for g in groups.successors(group) for m in groups.nodes[g]["members"]
            )
            level = max(below, default=0) + len(groups.nodes[group]["members"])
            levels |= dict.fromkeys(groups.nodes[group]["members"], level)
        return dict(sorted(levels.items()))

    @cached_property
    def cycles(self) -> list[list[str]]:
        """Groups of modules of which each imports, directly or not, every other."""
        groups = nx.strongly_connected_components(self.modules)
        return [sorted(group) for group in groups if len(group) > 1]


def read_packages() -> tuple[dict[str, Package], dict[str, list[str]]]:
    """Return the packages by name, and for each the entries of other packages that it imports."""
    sys.path.insert(0, str(ROOT))
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    modules = {name: nx.DiGraph() for name in PACKAGES}
    outside: dict[str, set[str]] = {name: set() for name in PACKAGES}
    for module in sorted(graph.modules):
        package = module.split(".")[0]
        modules[package].add_node(module)
        for imported in sorted(graph.find_modules_directly_imported_by(module)):
            if imported.split(".")[0] == package:
                modules[package].add_edge(module, imported)
            else:
                outside[package].add(".".join(imported.split(".")[:2]))
    packages = {name: Package(name, modules[name]) for name in PACKAGES}
    return packages, {name: sorted(entries) for name, entries in outside.items()}


def read_exceptions() -> tuple[list[str], list[str]]:
    """Return the lines that except an import from a rule, and those of them without a reason."""
    text = (ROOT / "pyproject.toml").read_text()
    contracts = tomllib.loads(text)["tool"]["importlinter"]["contracts"]
    lines = [line for contract in contracts for line in contract.get("ignore_imports", [])]
    explained = set(re.findall(r'^\s*"([^"]+ -> [^"]+)",\s*#\s*\S+', text, re.MULTILINE))
    return lines, [line for line in lines if line not in explained]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="fail where a limit is exceeded")
    parser.add_argument("--draw", action="store_true", help=f"write {DIAGRAM.relative_to(ROOT)}")
    options = parser.parse_args()
    packages, outside = read_packages()
    faults = report(packages)
    diagram = draw({name: packages[name] for name in LIMITS}, outside)
    if options.draw:
        DIAGRAM.write_text(diagram)
    elif not DIAGRAM.exists() or DIAGRAM.read_text() != diagram:
        faults.append(f"{DIAGRAM.relative_to(ROOT)} is out of date: make structure")
    if options.check:
        print(*(f"error: {fault}" for fault in faults), sep="\n", end="\n" if faults else "")
    return int(options.check and bool(faults))


def report(packages: dict[str, Package]) -> list[str]:
    """Print the figures; return what exceeds its limit."""
    faults: list[str] = []

    def within(what: str, figure: int, limit: int) -> str:
        if figure > limit:
            faults.append(f"{what}: {figure}, at most {limit} allowed")
        return f"{figure:>3} of {limit:<3}"

    print(f"{'package':<14} {'entries':<10} {'levels':<10} {'modules':<8} cycles")
    for name, package in packages.items():
        entries, levels = len(package.entries), max(package.levels.values())
        if name in LIMITS:
            limits = LIMITS[name]
            counts = within(f"entries at the top of {name}", entries, limits.entries) + "  "
            counts += f"{within(f'levels of {name}', levels, limits.levels)} "
        else:
            counts = f"{entries:>3}        {levels:>3}       "
        print(f"{name:<14} {counts} {len(package.modules):<8} {len(package.cycles)}")
    cycles = [cycle for package in packages.values() for cycle in package.cycles]
    print(f"cycles of imports:            {within('cycles of imports', len(cycles), MAX_CYCLES)}")
    print(*(f"  {', '.join(cycle)}" for cycle in cycles), sep="\n", end="\n" if cycles else "")
    lines, unexplained = read_exceptions()
    print(f"exceptions from import rules: {within('exceptions', len(lines), MAX_EXCEPTIONS)}")
    faults += [f"exception without a reason beside it: {line}" for line in unexplained]
    return faults


if __name__ == "__main__":
    sys.exit(main())
