"""Words that were replaced by standard ones stay away: the glossary of CONTRIBUTING.md.

    python tests/test_language.py    where any of them stands

A word of `WORDS` may stand in no text of the repository: code, comments, docs, the page. One of
`NAMES` is a fine word in a sentence, and may be no name in the packages' code. What `FILES` and
`EXCEPTIONS` name is left alone, each for its reason.
"""

import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("app/", "worker/", "sapnet/", "sapnet_client/")
SUFFIXES = {".py", ".js", ".css", ".html", ".md", ".toml", ".yml", ".sh", ""}

WORDS = r"""
Asked BagMaker BadMask FOREIGN Fault HERE Judgements? KeptAnswer Lessons OnceOnly OwnMasks
Quarantine quarantined? StopWish TRAINED Unfit Verdicts? belief content_sha256 courier die_with
digested doubts? enlarge fence[ds]? fill_store give_memory_back go_home heir_of [Ll]eash(?:ed)?
leave_out [Mm]end(?:ed|s|ing)? objections on_its_way pace\.py [Pp]ictures? polished read_form
reshaping rivals summed_up swallowed whole\.py write_whole [Ll]east[ ]score [Ss]ets?[ ]aside
"""
NAMES = """
Bad Batches Checked Claim Drawing Emit Eta Gate Lesson Markup Pass Records Said Sent Story Work at
bad bits calling certainty claim emit exchange fenced flood foreign found held inherited judge keep
known later mine said seen sweep takes tell theirs tidy told trust
"""
FILES = {
    "CHANGELOG.md": "history",
    "docs/decisions/": "history",
    "docs/log.md": "history",
    "CONTRIBUTING.md": "the glossary itself",
    "tests/test_language.py": "the list itself",
}
EXCEPTIONS = {
    "image_set_aside|set_aside": "an event of a job, and a member of report.json",
    r'"doubts"|`doubts`|doubts: dict|doubts: what|mask\.doubts': "a member of the API's masks",
    '"rivals"': "one of these doubts",
    "exclude_foreign_points|foreign_key|ForeignKey": "a setting; SQL",
    r"held: float|config\.held": "a setting, teacher.held",
    r"\.judge\b": "a key of the prompter's stored weights",
    r"\.tell\(\)|np\.add\.at\b|\bMarkup as": "names of other libraries",
}


def occurrences(path: str, text: str) -> Iterator[str]:
    """Each replaced word in a file's text, with its place."""
    text = re.sub("|".join(EXCEPTIONS), "", text)
    names = set(NAMES.split())
    words = re.compile(rf"(?<![A-Za-z])(?:{'|'.join(WORDS.split())})(?![a-z])")
    for number, line in enumerate(text.splitlines(), 1):
        for match in words.finditer(line):
            yield f"{path}:{number}: the word {match.group()!r}"
    if path.endswith(".py") and path.startswith(PACKAGES):
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.NAME and token.string in names:
                yield f"{path}:{token.start[0]}: the name {token.string!r}"


def in_repository() -> Iterator[str]:
    """Each replaced word in the repository's files, with its place."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.suffix in SUFFIXES and not name.startswith(tuple(FILES)) and path.is_file():
            yield from occurrences(name, path.read_text(errors="replace"))


@pytest.mark.slow
def test_replaced_words_do_not_come_back() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    left = list(in_repository())
    assert not left, "\n".join(left)


@pytest.mark.parametrize(
    ("path", "text", "count"),
    [
        ("docs/use.md", "Drop a picture.\nMend it. Pictures of masks", 3),
        ("docs/use.md", "amended, depictures, the image_set_aside event, found at once", 0),
        ("app/x.py", "found = 1  # what was found\nbody['at']", 1),
        ("app/x.py", "file.tell()\ntell(1)", 1),
        ("tests/x.py", "found = 1", 0),
    ],
)
def test_a_word_that_comes_back_is_noticed(path: str, text: str, count: int) -> None:
    assert len(list(occurrences(path, text + "\n"))) == count


if __name__ == "__main__":
    print(*in_repository(), sep="\n")
