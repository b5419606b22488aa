"""The real trainer, which at the beginning of one stage hears no signal for a minute.

`python deaf_trainer.py STAGE FILE run-arguments…`: FILE then holds its process id. The stage
`import` is the time before any of the library is there.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

STAGE, REACHED = sys.argv[1], Path(sys.argv[2])


def hear_nothing() -> None:
    REACHED.with_suffix(".part").write_text(str(os.getpid()))
    REACHED.with_suffix(".part").replace(REACHED)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        time.sleep(1)


def main() -> None:
    if STAGE == "import":
        hear_nothing()
    from sapnet.cli.main import app
    from sapnet.pipeline.context import RunContext

    stage = RunContext.stage

    @contextmanager
    def deaf(run: RunContext, name: str) -> Iterator[None]:
        with stage(run, name):
            if name == STAGE:
                hear_nothing()
            yield

    with patch.object(RunContext, "stage", deaf):
        app(["run", *sys.argv[3:]])


main()
