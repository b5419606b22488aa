"""The whole stack as processes on free ports: PostgreSQL, Redis, the API and a Celery worker.

What dies is started again a second later, as systemd or compose would do it.
"""

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from app.db import migrate as schema
from app.db.session import Database

ROOT = Path(__file__).resolve().parents[1]
VICTIMS = ("trainer", "celery child", "celery parent", "api", "redis", "postgresql")
MARK = "SAPNET_CHAOS"
RESTART_SECONDS = 1.0


@dataclass
class Part:
    """One program of the stack."""

    name: str
    command: list[str]
    environment: dict[str, str]
    folder: Path
    user: str | None = None
    process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)
    starts: int = field(default=0, init=False)

    def start(self) -> None:
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=self.user,
                group=self.user and pwd.getpwnam(self.user).pw_gid,
                extra_groups=[] if self.user else None,
                start_new_session=True,
            )
        self.starts += 1

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid


class Stack:
    """Everything that a job needs; ends, with whatever it started, with the `with` block."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        """settings: of the service, as environment variables."""
        self.folder, self.mark = folder, secrets.token_hex(8)
        self.data = folder / "data"
        ports = free_ports(3)
        self.api = f"http://127.0.0.1:{ports[0]}"
        self.broker = f"redis://127.0.0.1:{ports[1]}/0"
        self.database = Database(f"postgresql+psycopg://sapnet@127.0.0.1:{ports[2]}/postgres")
        kept = {n: v for n, v in os.environ.items() if not n.startswith("SAPNET_")}
        self.environment = {
            **kept,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",  # so that figures are equal to the last digit
            MARK: self.mark,
            "SAPNET_DATA_DIR": str(self.data),
            "SAPNET_DATABASE_URL": self.database.engine.url.render_as_string(),
            "SAPNET_BROKER_URL": self.broker,
            **settings,
        }
        self._postgres = Path(tempfile.mkdtemp(prefix="sapnet-chaos-"))
        service = [sys.executable, "-m", "app.cli"]
        self.parts = {
            "postgresql": self._postgresql(ports[2]),
            "redis": self._part("redis", ["redis-server", *redis_options(ports[1], folder)]),
            "api": self._part("api", [*service, "serve", "--no-worker", "--port", str(ports[0])]),
            "worker": self._part("worker", [*service, "worker", "--queues", "train"]),
        }
        self._over = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)

    def _part(self, name: str, command: list[str]) -> Part:
        return Part(name, command, self.environment, self.folder)

    def _postgresql(self, port: int) -> Part:
        programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
        data, user = self._postgres / "data", "postgres" if os.geteuid() == 0 else None
        if user:  # PostgreSQL refuses to run as root
            shutil.chown(self._postgres, user)
        init = [str(programs / "initdb"), "-D", str(data), "-U", "sapnet", "-A", "trust"]
        subprocess.run(init, check=True, stdout=subprocess.DEVNULL, user=user, cwd=self._postgres)
        options = ["-p", str(port), "-k", str(self._postgres), "-c", "listen_addresses=127.0.0.1"]
        command = [str(programs / "postgres"), "-D", str(data), *options]
        return Part("postgresql", command, self.environment, self.folder, user)

    def __enter__(self) -> "Stack":
        for name in ("postgresql", "redis"):
            self.parts[name].start()
        self.wait_until_ready("postgresql", "redis")
        schema.upgrade(self.database)
        for name in ("api", "worker"):
            self.parts[name].start()
        self._keeper.start()
        self.wait_until_ready(*self.parts)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._keeper.ident is not None:
            self._keeper.join()
        self.database.dispose()
        for name in ("worker", "api", "redis", "postgresql"):
            part = self.parts[name]
            if part.alive:
                os.kill(part.pid, signal.SIGINT if name == "postgresql" else signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    part.process and part.process.wait(30)
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self._postgres, ignore_errors=True)

    def _keep(self) -> None:
        while not self._over.wait(0.1):
            for part in self.parts.values():
                if not part.alive and not self._over.wait(RESTART_SECONDS):
                    part.start()

    def ready(self, name: str) -> bool:
        """Whether a part does its work."""
        try:
            if name == "postgresql":
                self.database.ping()
            elif name == "redis":
                Redis.from_url(self.broker, socket_timeout=2).ping()
            elif name == "api":
                return httpx2.get(f"{self.api}/readyz", timeout=5).is_success
        except (SQLAlchemyError, RedisError, httpx2.HTTPError):
            return False
        return self.parts[name].alive

    def wait_until_ready(self, *names: str, seconds: float = 90) -> None:
        deadline = time.monotonic() + seconds
        for name in names:
            while not self.ready(name):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{name} does not answer; see {self.folder}/{name}.log")
                time.sleep(0.2)

    def find(self, victim: str) -> int | None:
        """The process that a victim's name stands for; None where there is none at the moment."""
        if victim == "trainer":
            return next(iter(self.trainers()), None)
        if victim == "celery child":
            below = children(self.parts["worker"].pid)
            return next((pid for pid in below if children(pid)), next(iter(below), None))
        part = self.parts["worker" if victim == "celery parent" else victim]
        return part.pid if part.alive else None

    def trainers(self) -> list[int]:
        return [pid for pid in self.processes() if "JOB.json" in read(f"/proc/{pid}/cmdline")]

    def processes(self) -> Iterator[int]:
        """All that this stack ever started and that still run, however they came about."""
        wanted = f"{MARK}={self.mark}"
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit() and wanted in read(f"{folder}/environ"):
                yield int(folder.name)

    def orphans(self) -> list[str]:
        """Command lines of processes that belong to no part that runs."""
        roots = {part.pid for part in self.parts.values() if part.alive}
        found = []
        for pid in list(self.processes()):
            line, above = [pid], pid
            while above > 1 and above not in roots:
                above = parent(above)
                line.append(above)
            if above not in roots and read(f"/proc/{pid}/cmdline"):
                found.append(read(f"/proc/{pid}/cmdline").replace("\0", " "))
        return found

    def leftovers(self) -> list[str]:
        """Files that nobody will ever want again: unfinished ones, and work folders."""
        patterns = ("**/*.tmp", "**/*.part", "**/.part-*", "jobs/*", "uploads/*")
        return sorted({str(p.relative_to(self.data)) for g in patterns for p in self.data.glob(g)})


def redis_options(port: int, folder: Path) -> list[str]:
    return ["--port", str(port), "--dir", str(folder), "--save", "", "--appendonly", "yes"]


def children(pid: int) -> list[int]:
    """Of all threads of a process."""
    found = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in found for child in read(str(path)).split()]


def parent(pid: int) -> int:
    fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return int(fields[1]) if fields else 0


def read(path: str) -> str:
    """A file of /proc; "" where its process is gone."""
    try:
        return Path(path).read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
