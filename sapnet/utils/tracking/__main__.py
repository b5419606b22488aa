"""`python -m sapnet.utils.tracking`: a tracker as a process of its own.

Lines of JSON on stdin: first what the run is ({"kind", "info", "reached"}), then events
({"event": …}), and at last {"ending": …}. After each it answers with a line on stdout: {"seq",
"run_id", "url", "reached"}, or {"error"} and ends. Whatever the tracker's package does to a
process, waiting for minutes included, it does to this one.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any, TextIO

from sapnet.utils.tracking.base import Ending, RunInfo, TrackedEvent, error_in_words, flattened
from sapnet.utils.tracking.session import Session, described, open_tracker


def main() -> None:
    """Read until stdin ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what packages print is no answer
    session: Session | None = None
    try:
        for line in sys.stdin:
            session = _take(session, json.loads(line), answers)
        if session is not None:
            session.tracker.close()
    except Exception as error:  # each package has its own
        _answer(answers, {"error": error_in_words(error)})
        raise SystemExit(1) from error


def _take(session: Session | None, message: dict[str, Any], answers: TextIO) -> Session:
    seq = 0
    if session is None:
        info = message["info"]
        info = RunInfo(**{**info, "folder": Path(info["folder"])})
        session = Session(open_tracker(message["kind"], info), message["reached"])
    elif "ending" in message:
        ending = message["ending"]
        files = {name: Path(path) for name, path in ending["files"].items()}
        figures = dict(flattened(ending["figures"]))
        session.finish(Ending(**{**ending, "files": files, "figures": figures}))
    else:
        event = TrackedEvent(**message["event"])
        session.take(event)
        seq = event.seq
    _answer(answers, {"seq": seq, **described(session)})
    return session


def _answer(answers: TextIO, document: dict[str, Any]) -> None:
    answers.write(json.dumps(document) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
