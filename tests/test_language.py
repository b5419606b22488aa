"""Words that were replaced by standard ones stay away: the glossary of CONTRIBUTING.md, held.

`language.json` has, for each word, how often it may still stand in the repository; no number may
grow.

    python tests/test_language.py           what is left, and where
    python tests/test_language.py --lower   lower the numbers to what is left

A word of `prose` is counted in every text: code, comments, docs, the page. One of `identifiers` is
a fine word in a sentence, and is counted as a name in the packages' code alone.
"""

import io
import json
import re
import subprocess
import sys
import tokenize
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = Path(__file__).with_name("language.json")
PACKAGES = ("app/", "worker/", "sapnet/", "sapnet_client/")
SUFFIXES = {".py", ".js", ".css", ".html", ".md", ".toml", ".yml", ".sh", ""}
HISTORY = ("CHANGELOG.md", "docs/log.md", "docs/decisions/")  # says what was, in its words
GLOSSARY = ("CONTRIBUTING.md", "tests/test_language.py", "tests/language.json")  # names them
EXCEPTIONS = re.compile(
    "image_set_aside|set_aside|left_out"  # names in public JSON
    '|"doubts"|`doubts`|doubts: dict|doubts: what'  # also: a mask's features
    r'|mask\.doubts|"rivals"'  # and one of them
    "|exclude_foreign_points|foreign_key|ForeignKey"  # a setting; SQL
    r"|held: float|config\.held"  # a setting, teacher.held
    r"|\.judge\b"  # a key of the prompter's stored weights
    r"|\.tell\(\)|np\.add\.at\b|\bMarkup as"  # names of other libraries
)


@cache
def texts() -> dict[str, str]:
    """Text of each file by its path, without public names."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    found = {}
    for name in listed:
        path = ROOT / name
        if (
            path.suffix in SUFFIXES
            and not name.startswith((*HISTORY, *GLOSSARY))
            and path.is_file()
        ):
            found[name] = EXCEPTIONS.sub("", path.read_text(errors="replace"))
    return found


@cache
def prose() -> dict[str, Counter[str | None]]:
    """How often each word of `prose`, by its number, stands in each file."""
    groups = "|".join(f"(?P<w{number}>{word})" for number, word in enumerate(allowed()["prose"]))
    pattern = re.compile(rf"(?<![A-Za-z])(?:{groups})(?![a-z])")
    return {
        path: Counter(match.lastgroup for match in pattern.finditer(text))
        for path, text in texts().items()
    }


@cache
def names() -> dict[str, Counter[str]]:
    """Names of each Python file with how often they stand there."""
    return {
        path: Counter(
            token.string
            for token in tokenize.generate_tokens(io.StringIO(text).readline)
            if token.type == tokenize.NAME
        )
        for path, text in texts().items()
        if path.endswith(".py") and path.startswith(PACKAGES)
    }


def occurrences(kind: str, word: str) -> dict[str, int]:
    """How often a word stands in each file that has it."""
    if kind == "identifiers":
        counts = {path: found[word] for path, found in names().items()}
    else:
        number = f"w{list(allowed()[kind]).index(word)}"
        counts = {path: found[number] for path, found in prose().items()}
    return {path: count for path, count in counts.items() if count}


def allowed() -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = json.loads(ALLOWED.read_text())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["prose", "identifiers"])
def test_replaced_words_do_not_come_back(kind: str) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    grown = []
    for word, limit in allowed()[kind].items():
        where = occurrences(kind, word)
        if sum(where.values()) > limit:
            most = ", ".join(sorted(where, key=lambda path: -where[path])[:5])
            grown.append(f"{word}: {sum(where.values())}, at most {limit} are allowed; see {most}")
    assert not grown, "\n".join(grown)


def main() -> None:
    limits = allowed()
    for kind, words in limits.items():
        for word, limit in words.items():
            where = occurrences(kind, word)
            left = sum(where.values())
            if left:
                most = " ".join(
                    f"{p}:{n}" for p, n in sorted(where.items(), key=lambda x: -x[1])[:4]
                )
                print(f"{left:>5} of {limit:<5} {word:<24} {most}")
            words[word] = min(left, limit)
    if "--lower" in sys.argv:
        ALLOWED.write_text(json.dumps(limits, indent=1) + "\n")


if __name__ == "__main__":
    main()
