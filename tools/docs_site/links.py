"""Links between files of the repository, as links between pages of the site."""

import os
import posixpath
import re
from collections.abc import Callable
from pathlib import Path

PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "CODE_OF_CONDUCT.md": "code-of-conduct.md",
    "THIRD_PARTY.md": "third-party.md",
}
"""Pages that lie beside docs/, and their names in the site."""
SOURCE = "source"
"""The folder of the site for other files of the repository that a page links to."""
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")
_CODE = re.compile(r"(```.*?^```|`[^`\n]+`)", re.MULTILINE | re.DOTALL)


def place_of(path: str) -> str:
    """Return where a file of the repository lies in the site."""
    if path in PAGES:
        return PAGES[path]
    return path.removeprefix("docs/") if path.startswith("docs/") else f"{SOURCE}/{path}"


def rewrite(text: str, page: str, root: Path, used: Callable[[str], None]) -> str:
    """Return a page's Markdown with the links of the repository turned into the site's.

    Args:
        text: Markdown.
        page: the page's file in the repository, from its root.
        root: of the repository.
        used: called with each file outside of docs/ that is linked to.

    Raises:
        FileNotFoundError: a link leads to no file; folders need an index.md, or are no link.
    """

    def replace(match: re.Match[str]) -> str:
        image, label, target = match.groups()
        path, hash_, fragment = target.partition("#")
        if not path or re.match(r"[a-z][a-z0-9+.-]*:", path):
            return match[0]
        file = posixpath.normpath(posixpath.join(posixpath.dirname(page), path))
        if (root / file).is_dir():
            if not file.startswith("docs/"):
                return label
            file += "/index.md"
        elif not (root / file).exists() and not file.startswith("docs/"):
            raise FileNotFoundError(f"{page} links to {target}, which is not there")
        if not file.startswith("docs/"):
            used(file)
        here = posixpath.dirname(place_of(page))
        there = os.path.relpath(place_of(file), here or ".").replace(os.sep, "/")
        return f"{image}[{label}]({there}{hash_}{fragment})"

    parts = _CODE.split(text)
    return "".join(part if i % 2 else _LINK.sub(replace, part) for i, part in enumerate(parts))
