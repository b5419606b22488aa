"""A worker whose imports stay in the middle of one stage until it is killed or told to stop.

`python -m tests.jobs.lingering_worker STAGE QUEUE…`. A stage is over in a moment: who looks for it
in the job's row may miss it.
"""

import sys
import time
from dataclasses import replace

from app.db.models import JobKind
from worker.jobs import import_dataset
from worker.jobs.context import InlineHandler, JobContext
from worker.main import main

STAGE = sys.argv[1]


def linger(ctx: JobContext) -> None:
    def report_progress(stage: str, step: int, of: int) -> None:
        ctx.report_progress(stage, step, of)
        while stage == STAGE and 2 * step >= of:
            time.sleep(0.05)
            ctx.report_progress(stage, step, of)  # raises where the import is to end

    import_dataset.run_import(replace(ctx, report_progress=report_progress))


import_dataset.HANDLER = InlineHandler(JobKind.IMPORT, linger)
main(sys.argv[2:])
