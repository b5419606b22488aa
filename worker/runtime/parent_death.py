"""Start a command that dies with its parent, and that never runs twice in one folder.

Run as a script: `python -I -S parent_death.py PARENT_PID SIGNAL LOCK COMMAND…`. It asks the
kernel for SIGNAL at its parent's death (PR_SET_PDEATHSIG, Linux), takes an exclusive lock on the
file LOCK ("" for none) and then becomes COMMAND by exec, which keeps both: the lock is an open
descriptor.

Why a program of its own: `preexec_fn` runs Python between fork and exec, where a lock that some
other thread held stays locked for ever, and the trainer should not have to know who started it.
Where there is no prctl, the lock alone keeps a second trainer out until the orphan has ended.
"""

import ctypes
import fcntl
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1


def spawn_with_parent(
    command: Sequence[str], *, sig: signal.Signals, lock: Path | None = None
) -> list[str]:
    """Return the command line that runs `command` for as long as the calling THREAD lives.

    The kernel sends `sig` when the thread that started the process ends: start it from a thread
    that lives as long as the process should.
    """
    shim = [sys.executable, "-I", "-S", __file__]
    return [*shim, str(os.getpid()), str(int(sig)), str(lock or ""), *command]


def exit_with_parent(parent: int, sig: int) -> None:
    """Ask the kernel for `sig` when the parent (the thread of it that forked us) ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, sig, 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked
            sys.exit(1)


def main(argv: Sequence[str]) -> None:
    """Become a command that ends with its parent.

    Args:
        argv: the parent's process id, the signal's number, a file to lock or "", and the command.
    """
    parent, sig, lock, command = int(argv[0]), int(argv[1]), argv[2], list(argv[3:])
    exit_with_parent(parent, sig)
    if lock:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.set_inheritable(descriptor, True)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
