"""A worker whose imports stay in the middle of one stage until it is killed or told to stop.

`python -m tests.jobs.lingering_worker STAGE QUEUE…`. A stage is over in a moment: who looks for it
in the job's row may miss it.
"""

import sys
import time
from dataclasses import replace

from worker.jobs.context import Work
from worker.jobs.execute import HERE
from worker.jobs.import_dataset import run_import
from worker.main import main

STAGE = sys.argv[1]


def linger(at: Work) -> None:
    def tell(stage: str, step: int, of: int) -> None:
        at.tell(stage, step, of)
        while stage == STAGE and 2 * step >= of:
            time.sleep(0.05)
            at.tell(stage, step, of)  # raises where the import is to end

    run_import(replace(at, tell=tell))


HERE["import"] = linger
main(sys.argv[2:])
