"""Distributions of this environment and of a clone: what requirements bring, and wheels."""

import shutil
import subprocess
import sys
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


def copy_clone(root: Path, folder: Path) -> list[str]:
    """Copy what is or could be committed; its paths below both folders."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    files = [name for name in listed.stdout.split("\0") if name and (root / name).is_file()]
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, folder / name)
    return files


def build(folder: Path, out: Path) -> None:
    """Build the wheel and the sdist of a clone, with what is installed here."""
    uv = Path(sys.executable).with_name("uv")
    command = [uv, "build", "--offline", "--no-config", "--no-build-isolation"]
    done = subprocess.run(
        [*command, "--python", sys.executable, "-o", out],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
