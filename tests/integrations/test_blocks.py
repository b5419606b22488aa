"""Blocks of docs/integrations/ that no test runs: what they name is there, and JSON parses.

Which blocks are run: `bash` and `python`, by the page's own test. `sh`, `text` and `json` name
servers of other people, accounts and addresses; of these commands and settings are checked.
"""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer

from app.cli.main import app as service
from app.settings import Settings
from sapnet.cli.main import app as library

PAGES = sorted((Path(__file__).resolve().parents[2] / "docs" / "integrations").glob("*.md"))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUN, NOT_RUN = {"bash", "python"}, {"sh", "text", "json"}
COMMANDS: dict[str, Any] = {"sapnet-service": service, "sapnet": library}
OF_COMMANDS = {"SAPNET_URL", "SAPNET_KEY", "SAPNET_MCP_TOKEN"}
IDS = [page.stem for page in PAGES]


def blocks(page: Path, *languages: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(page.read_text()) if kind in languages]


def commands(block: str) -> Iterator[list[str]]:
    """Our own commands of a block, from their names on, with their arguments."""
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        starts = [n for n, word in enumerate(words) if Path(word).name in COMMANDS]
        if starts and words[0] != "docker":
            yield [Path(words[starts[-1]]).name, *words[starts[-1] + 1 :]]


def check(words: list[str]) -> None:
    """The subcommands and options of a command exist."""
    command: Any = typer.main.get_command(COMMANDS[words[0]])
    rest = words[1:]
    while isinstance(command, click.Group) or hasattr(command, "commands"):
        if not rest or rest[0].startswith("-"):
            break
        assert rest[0] in command.commands, f"{rest[0]} of {shlex.join(words)}"
        command, rest = command.commands[rest[0]], rest[1:]
    known = {name for parameter in command.params for name in (*parameter.opts, "--help")}
    asked = {word.partition("=")[0] for word in rest if word.startswith("--")}
    assert asked <= known, f"{asked - known} of {shlex.join(words)}"


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_and_settings_of_blocks_exist(page: Path) -> None:
    for block in blocks(page, "sh", "text"):
        for words in commands(block):
            check(words)
    settings = {f"SAPNET_{name.upper()}" for name in Settings.model_fields} | OF_COMMANDS
    named = set(re.findall(r"\bSAPNET_[A-Z_]+[A-Z]\b", page.read_text()))
    assert named <= settings


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_blocks_are_run_or_of_a_kind_that_says_otherwise(page: Path) -> None:
    kinds = {kind for kind, _ in BLOCK.findall(page.read_text())}
    assert kinds <= RUN | NOT_RUN
    for block in blocks(page, "json"):
        json.loads(block)


def test_the_servers_of_assistants_start_as_the_file_says() -> None:
    (page,) = [page for page in PAGES if page.stem == "agents"]
    (block,) = blocks(page, "json")
    for server in json.loads(block)["mcpServers"].values():
        check([server["command"], *server["args"]])


@pytest.mark.parametrize("wrong", ["sapnet-service trian x", "sapnet train --epochs 3"])
def test_what_is_not_there_is_found(wrong: str) -> None:
    (words,) = commands(f"X=1 {wrong}  # of a page")
    with pytest.raises(AssertionError):
        check(words)
