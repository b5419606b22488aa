"""What mkdocs does beyond its settings: pages that are made, and links of the repository.

- README.md is the first page; CONTRIBUTING.md, CHANGELOG.md and others beside docs/ are pages too.
- The references of REST, of settings and of commands, and the list of decisions, are made.
- An entry of the navigation that ends with / takes up every page of that folder.
- Links that work in the repository work in the site: files outside of docs/ are copied into it.
"""

import logging
import posixpath
import re
from pathlib import Path
from typing import Any

import commands_reference
import rest_reference
import settings_reference
from links import PAGES, place_of, rewrite
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

log = logging.getLogger("mkdocs.hooks")
_made: dict[str, str] = {}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Make the pages, and fill the folders of the navigation."""
    root = _root(config)
    _made.clear()
    document = rest_reference.openapi(root)
    _made.update({f"reference/rest/{n}": t for n, t in rest_reference.pages(document).items()})
    _made["reference/settings/service.md"] = settings_reference.service_page()
    _made["reference/settings/training.md"] = settings_reference.training_page()
    _made["reference/commands.md"] = commands_reference.page()
    _made["decisions/index.md"] = _decisions(root / "docs" / "decisions")
    config.nav = _filled(config.nav or [], Path(config.docs_dir))
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that were made, those beside docs/, and what pages link to."""
    root = _root(config)
    for name, text in _made.items():
        files.append(File.generated(config, name, content=text))
    linked: set[str] = set()
    for source, name in PAGES.items():
        text = (root / source).read_text("utf-8")
        text = _resolved(text, source, root, linked)
        files.append(File.generated(config, name, content=text))
    for file in files.documentation_pages():
        if file.src_uri not in _made and file.src_uri not in PAGES.values():
            _resolved(file.content_string, f"docs/{file.src_uri}", root, linked)
    for path in sorted(linked - set(PAGES)):
        absolute = str(root / path)
        files.append(File.generated(config, place_of(path), abs_src_path=absolute))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, **_: Any) -> str:
    """Turn the links of a page of docs/ into the site's."""
    name = page.file.src_uri
    if name in _made or name in PAGES.values():
        return markdown
    if name == "integrations/index.md":
        markdown = _of_pages_there(markdown, Path(config.docs_dir) / "integrations")
    return _resolved(markdown, f"docs/{name}", _root(config), set())


def _resolved(text: str, source: str, root: Path, linked: set[str]) -> str:
    try:
        return rewrite(text, source, root, linked.add)
    except FileNotFoundError as error:
        log.warning(str(error))
        return text


def _of_pages_there(markdown: str, folder: Path) -> str:
    """Return the list and the table of integrations without the pages that there are not."""
    markdown = re.sub(r"\nA line whose page is not there .*\n", "", markdown)

    def is_missing(match: re.Match[str]) -> bool:
        return not (folder / match["page"]).exists()

    lines = []
    for line in markdown.splitlines():
        if (item := re.match(r"- \[[^\]]*\]\((?P<page>[\w-]+\.md)\)", line)) and is_missing(item):
            continue
        link = r"\[yes\]\((?P<page>[\w-]+\.md)\)"
        lines.append(re.sub(link, lambda found: "no" if is_missing(found) else found[0], line))
    return "\n".join(lines)


def _root(config: MkDocsConfig) -> Path:
    return Path(config.config_file_path).parent.resolve()


def _decisions(folder: Path) -> str:
    lines = ["# Decisions\n", "Why it is as it is, the newest first.\n"]
    for path in sorted(folder.glob("[0-9]*.md"), reverse=True):
        title = _title(path)
        lines.append(f"- {path.name[:4]}: [{title}]({path.name})")
    return "\n".join(lines) + "\n"


def _title(path: Path) -> str:
    first = path.read_text("utf-8").splitlines()[0]
    return re.sub(r"^#+\s*(?:\d+\.\s*)?", "", first)


def _filled(entries: list[Any], docs: Path) -> list[Any]:
    return [
        {title: _filled_value(value, docs)} if isinstance(entry, dict) else entry
        for entry in entries
        for title, value in (entry.items() if isinstance(entry, dict) else [("", entry)])
    ]


def _filled_value(value: Any, docs: Path) -> Any:
    if isinstance(value, list):
        return _filled(value, docs)
    if not value.endswith("/"):
        return value
    there = {f"{value}{path.name}" for path in (docs / value).glob("*.md")}
    there |= {name for name in _made if posixpath.dirname(name) == value.rstrip("/")}
    return sorted(there, key=lambda name: (not name.endswith("/index.md"), name))
