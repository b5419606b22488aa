"""What an agent may read and write on this machine: below the folders that the user named."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sapnet.data.file_pairing import files_below


class NotAllowed(ValueError):
    """A path leads out of the folders that the user named."""


@dataclass(frozen=True, slots=True)
class Folders:
    """The folders that the user named.

    Attributes:
        readable: resolved; what is below them may be read.
        out: resolved; exports and models are written into it. None: nothing is written.
    """

    readable: tuple[Path, ...]
    out: Path | None = None

    @classmethod
    def of(cls, readable: Iterable[Path], out: Path | None = None) -> "Folders":
        """Resolve them.

        Raises:
            NotAllowed: one of `readable` is no folder.
        """
        for folder in readable:
            if not folder.is_dir():
                raise NotAllowed(f"there is no folder {str(folder)!r}")
        return cls(
            tuple(folder.resolve() for folder in readable), None if out is None else out.resolve()
        )

    def existing(self, path: str) -> Path:
        """Return an existing file or folder below a readable folder, links resolved.

        Args:
            path: absolute, or from one of the readable folders.

        Raises:
            NotAllowed: it is not there, or leads elsewhere.
        """
        is_there = False
        for base in self.readable:
            resolved = (base / path).resolve()  # an absolute path takes the place of the base
            if resolved.exists():
                is_there = True
                if self._holds(resolved):
                    return resolved
        named = ", ".join(map(str, self.readable)) or "none was named: start with --folder"
        why = "leads out of the folders" if is_there else "does not exist in the folders"
        raise NotAllowed(f"{path!r} {why} that may be read ({named})")

    def tree(self, path: str) -> dict[str, Path]:
        """Return all files below a readable folder by their path from it.

        Raises:
            NotAllowed: as `existing`; it is no folder; or a link below it leads elsewhere.
        """
        folder = self.existing(path)
        if not folder.is_dir():
            raise NotAllowed(f"{path!r} is no folder")
        files = files_below(folder)
        for name, file in files.items():
            if not self._holds(file.resolve()):
                raise NotAllowed(f"{name!r} in {path!r} is a link out of the folders named")
        return files

    def writable(self) -> Path:
        """Return the folder for exports and models.

        Raises:
            NotAllowed: the user named none.
        """
        if self.out is None:
            raise NotAllowed("nothing may be written: the user has to start this with --out FOLDER")
        return self.out

    def _holds(self, resolved: Path) -> bool:
        return any(resolved.is_relative_to(base) for base in self.readable)
