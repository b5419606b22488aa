"""The OpenAPI document, held against the service by schemathesis: all of it, with every check.

`positive_data_acceptance` lets 422 pass where the body has rules that no schema can say: whether a
file is an image, whether a point lies in it, whether a setting is one of its method, whether a key
was used for another request; and where a page is asked for, since cursors are opaque. tus has
statuses of its own, for versions, sizes and checksums that no schema can say either; and headers
that are unknown make no upload wrong.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.http.pagination import encode

SEMANTIC = (
    "POST /datasets",
    "POST /datasets/{dataset_id}/versions",
    "POST /models",
    "POST /jobs/train",
    "POST /jobs/label",
    "POST /jobs/{job_id}/corrections",
    "POST /jobs/{job_id}/review/accept",
    "POST /jobs/{job_id}/exports",
    "POST /predict",
    "POST /masks/{mask_id}/suggest",
    "POST /ls/setup",
    "POST /ls/predict",
    "POST /ls/webhook",
    "POST /ls/train",
    "POST /ls/job_status",
)
PAGED = (
    "GET /datasets/{dataset_id}/annotations",
    "GET /datasets",
    "GET /datasets/{dataset_id}/images",
    "GET /datasets/{dataset_id}/next",
    "GET /jobs",
    "GET /jobs/{job_id}/events",
    "GET /jobs/{job_id}/exports",
    "GET /jobs/{job_id}/pseudo-masks",
    "GET /jobs/{job_id}/review",
    "GET /jobs/{job_id}/shards",
    "GET /jobs/{job_id}/compare/{other_job_id}",
    "GET /jobs/{job_id}/predictions",
    "GET /models",
    "GET /models/aliases",
)
CONDITIONAL = (  # by If-Match
    "PATCH /masks/{mask_id}",
    "PUT /models/aliases/{name}",
    "DELETE /models/aliases/{name}",
)
TUS = ("POST /uploads", "PATCH /uploads/{upload_id}", "POST /uploads/{upload_id}")
TUS_STATUSES = ["400", "412", "413", "415", "422", "460"]
ACCEPTED = ["2xx", "3xx", "401", "403", "404", "409", "429"]
REFUSED = ["400", "401", "403", "404", "405", "406", "409", "415", "422", "428", "429", "5xx"]

HOOKS = """
import schemathesis

schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")
"""

CONFIG = """
max-stream-events = 3
request-timeout = 100.0
continue-on-failure = true

[warnings]
enabled = false

[dictionaries]
{dictionaries}

[parameters]
{parameters}

{operations}
"""


def config(service: Any) -> str:
    """Ids that exist, most of the time, beside those that schemathesis makes up."""
    values = {
        "path.dataset_id": [service.dataset, service.spare],
        "path.job_id": [service.job, service.queued],
        "path.other_job_id": [service.job],
        "path.model_id": [service.model, "production"],
        "path.export_id": [service.export],
        "path.image_id": [1, 2],
        "path.mask_id": [f"{service.job}.11", f"{service.job}.12"],
        "path.name": ["production", "best"],
        "path.slug": ["not-found", "conflict"],
        "query.model": [service.model, "production"],
        "query.image": ["1", "2.png"],
        "query.dataset_id": [service.dataset],
        "query.cursor": [encode(service.job)],
        "body.dataset_id": [service.dataset, service.spare],
        "body.model": [service.model, "production"],
    }
    named = {name.replace(".", "-"): found for name, found in values.items()}
    return CONFIG.format(
        dictionaries="\n".join(f"{n} = {{ values = {json.dumps(v)} }}" for n, v in named.items()),
        parameters="\n".join(
            f'"{n}" = {{ dictionary = "{n.replace(".", "-")}", probability = 0.7 }}' for n in values
        ),
        operations="".join(
            map(operation, [*SEMANTIC, *PAGED, *CONDITIONAL, *TUS, "DELETE /uploads/{upload_id}"])
        ),
    )


def operation(name: str) -> str:
    more = TUS_STATUSES if "/uploads" in name else []
    more = ["412", "428"] if name in CONDITIONAL else more
    accepted = json.dumps([*ACCEPTED, "422", *more])
    refused = json.dumps([*REFUSED, *more, *(["201"] if name == "POST /uploads" else [])])
    return f"""
[[operations]]
include-name = "{name}"
checks.positive_data_acceptance.expected-statuses = {accepted}
checks.negative_data_rejection.expected-statuses = {refused}
"""


@pytest.mark.slow
def test_the_service_is_what_its_document_says(service: Any, tmp_path: Path) -> None:
    (tmp_path / "schemathesis.toml").write_text(config(service))
    (tmp_path / "hooks.py").write_text(HOOKS)
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", "schemathesis.toml"]
    options = ["--checks", "all", "--seed", "0", "--max-examples", "25", "--no-color"]
    options += ["--header", f"Authorization: Bearer {service.key}"]
    done = subprocess.run(
        [*command, "run", f"{service.url}/openapi.json", *options],
        cwd=tmp_path,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[done.stdout.find("= FAILURES =") :] + done.stderr
    assert "Test Phases" in done.stdout
