"""How a process ended, in words."""

import signal


def how_it_died(code: int) -> str:
    """Return in words, for the user, how a job's process ended.

    Args:
        code: of subprocess.Popen, negative for a signal.
    """
    if code == -signal.SIGKILL:
        return "the trainer was killed (SIGKILL): the machine may be out of memory"
    if code < 0:
        return f"the trainer was killed by {signal.Signals(-code).name}"
    return f"the trainer ended with code {code} and gave no reason; see the job's log"
