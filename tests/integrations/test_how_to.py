"""The commands of docs/how-to/, one page after the other, beside one service."""

import json
import sys
from pathlib import Path

import pytest
from pycocotools.coco import COCO

ROOT = Path(__file__).resolve().parents[2]
HOW_TO = ROOT / "docs" / "how-to"
FAKE_TRAINER = ROOT / "tests" / "jobs" / "fake_trainer.py"
FIRST = ("review", "corrections", "exports", "boxes", "gpu")
LAST = "teams"  # from its first key on, every request needs one
BEGIN = """
```bash
sapnet-service serve  # leave it running
sapnet-service train --images photos/ --points points.json --preset demo
export JOB=$(python -c "from sapnet_client import Client; print(next(Client().jobs()).id)")
```
"""


@pytest.mark.slow
@pytest.mark.service
def test_their_commands_run_as_they_stand(run_page, tmp_path: Path) -> None:
    pages = [HOW_TO / f"{name}.md" for name in (*FIRST, LAST)]
    together = tmp_path / "how-to.md"
    together.write_text("\n".join([BEGIN, *(page.read_text() for page in pages)]))
    trainer = [sys.executable, str(FAKE_TRAINER), "--steps", "2", "--settings"]
    said = run_page(str(together), SAPNET_TRAINER_COMMAND=json.dumps(trainer))
    folder = tmp_path / "newcomer"
    (coco,) = (folder / "exports").glob("*.json")
    assert COCO(str(coco)).anns
    assert len(list((folder / "exports").glob("*.zip"))) == 2
    assert (folder / "sure.ndjson").exists()
    assert (folder / "by-boxes" / "masks.json").is_file()
    assert "quality before" in said, "both trainings compared"
    assert "anna" in said


def test_every_page_is_run_or_says_that_it_is_not() -> None:
    for page in HOW_TO.glob("*.md"):
        is_run = page.stem in (*FIRST, LAST)
        text = page.read_text()
        assert is_run == ("\n```bash\n" in text or "\n```python\n" in text), page.name


def test_every_integration_is_run_listed_and_in_the_readme() -> None:
    folder = HOW_TO.parent / "integrations"
    others = [ROOT / "tests" / "jobs" / "test_label_studio_served.py"]
    paths = [*Path(__file__).parent.glob("test_*.py"), *others]
    tests = "".join(path.read_text() for path in paths)
    listed, readme = (folder / "index.md").read_text(), (ROOT / "README.md").read_text()
    for page in folder.glob("*.md"):
        if page.stem != "index":
            assert f'"{page.name}"' in tests, page.name
            assert f"]({page.name})" in listed, page.name
            assert f"](docs/integrations/{page.name}) |" in readme, page.name
