"""Distributions of this environment: what some requirements bring, and wheels made of it."""

import zipfile
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement


def required(requirements: list[str]) -> dict[str, metadata.Distribution]:
    """Distributions by name, with all that they require in turn."""
    found: dict[str, metadata.Distribution] = {}
    waiting = [(Requirement(text), "") for text in requirements]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        distribution = metadata.distribution(requirement.name)
        if requirement.name not in found:
            found[requirement.name] = distribution
            waiting += [(Requirement(text), "") for text in distribution.requires or []]
        waiting += [
            (Requirement(text), extra)
            for extra in requirement.extras
            for text in distribution.requires or []
        ]
    return found


def repack(distribution: metadata.Distribution, folder: Path) -> Path:
    """Write the wheel that a distribution was installed from, but for its scripts."""
    described = distribution.read_text("WHEEL") or ""
    tags = [line.split()[1].split("-") for line in described.splitlines() if line[:4] == "Tag:"]
    tag = "-".join(".".join(dict.fromkeys(parts)) for parts in zip(*tags, strict=True))
    name = distribution.metadata["Name"].replace("-", "_").replace(".", "_")
    path = folder / f"{name}-{distribution.version}-{tag}.whl"
    installed = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json")
    with zipfile.ZipFile(path, "w") as archive:
        record = ""
        for file in distribution.files or []:
            info = ".dist-info/" in str(file) and file.name in installed
            if str(file).startswith("..") or file.suffix == ".pyc" or info:
                continue
            archive.write(str(distribution.locate_file(file)), str(file))
            digest = f"{file.hash.mode}={file.hash.value}" if file.hash else ""
            record += f'"{file}",{digest},{file.size or ""}\n'
            if ".dist-info/" in str(file) and file.name == "METADATA":
                info_folder = str(file.parent)
        archive.writestr(f"{info_folder}/RECORD", f"{record}{info_folder}/RECORD,,\n")
    return path
