"""500 documents with seeded damage, sent to all endpoints that take one: none is a 500."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from app.settings import Settings

ROOT = Path(__file__).parents[2]
COUNT = 500


@pytest.mark.slow
def test_no_document_is_too_much(settings: Settings, dataset_id: str, done: str) -> None:
    command = [sys.executable, "-m", "tests.jobs.fuzz_requests"]
    sent = subprocess.run(
        [*command, str(settings.data_dir), dataset_id, done, str(COUNT)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert sent.returncode == 0, sent.stdout[-1000:] + sent.stderr[-3000:]
    *answers, end = (json.loads(li) for li in sent.stdout.splitlines() if li.startswith("{"))
    answers = [answer for answer in answers if "seed" in answer]
    assert end == {"healthy": True}
    assert [answer["seed"] for answer in answers] == list(range(COUNT))
    assert [a for a in answers if a["status"] >= 500] == []
    refused = [a for a in answers if a["status"] >= 400]
    assert [a for a in refused if a["kind"] != "application/problem+json"] == []
    secrets = ("Traceback", str(settings.data_dir), "sapnet/data")
    assert [a for a in refused if any(secret in a["text"] for secret in secrets)] == []
    assert [a for a in answers if set(a.get("read", [200])) != {200}] == []
    # Much of the damage is refused, and some documents are right all the same.
    statuses = Counter(answer["status"] for answer in answers)
    assert statuses[422] > COUNT / 4
    assert statuses[201] + statuses[202] > COUNT / 20
