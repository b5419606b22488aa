"""Clients in a closed loop over HTTP/1.1 with connections kept: light, so that they measure the
server and not themselves."""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Taken:
    """Seconds of each request by the name of what was asked for; and what went wrong.

    elapsed: seconds that the turns took in truth. held_up: the longest that the client itself was
    kept from running, which tells a machine that stood still from a server that did.
    """

    seconds: dict[str, list[float]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    elapsed: float = 0.0
    held_up: float = 0.0

    def of_all(self) -> list[float]:
        return [s for group in self.seconds.values() for s in group]


async def hammer(
    port: int,
    paths: Sequence[tuple[str, str]],
    clients: int,
    seconds: float,
    seed: int,
    into: Taken,
) -> None:
    """`clients` at once, each asking for one of the paths after the other for so many seconds.

    paths: (name, path) pairs, taken at random by `seed`. Any status but 200 is an error, and so is
    a connection that breaks.
    """
    began = time.perf_counter()
    rolls = [random.Random(f"{seed}/{i}") for i in range(clients)]
    watch = asyncio.create_task(_watch(into))
    try:
        turns = (_client(port, paths, began + seconds, roll, into) for roll in rolls)
        await asyncio.gather(*turns)
    finally:
        watch.cancel()
        into.elapsed += time.perf_counter() - began


async def _watch(into: Taken, tick: float = 0.05) -> None:
    while True:
        slept = time.perf_counter()
        await asyncio.sleep(tick)
        into.held_up = max(into.held_up, time.perf_counter() - slept - tick)


async def _client(
    port: int, paths: Sequence[tuple[str, str]], until: float, roll: random.Random, into: Taken
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
    try:
        while time.perf_counter() < until:
            name, path = roll.choice(paths)
            began = time.perf_counter()
            try:
                status = await _ask(reader, writer, path)
            except (OSError, EOFError, ValueError) as error:
                into.errors.append(f"{path}: {error!r}")
                writer.close()
                reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
                continue
            if status != 200:
                into.errors.append(f"{path}: {status}")
            into.seconds.setdefault(name, []).append(time.perf_counter() - began)
    finally:
        writer.close()


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> int:
    """The status of GET `path`, once its body is read. Raises ValueError for one of no length."""
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    await writer.drain()
    head = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
    headers = dict(line.lower().split(b": ", 1) for line in head[1:] if line)
    if b"content-length" not in headers:
        raise ValueError(f"an answer of no known length: {head}")
    await reader.readexactly(int(headers[b"content-length"]))
    return int(head[0].split()[1])
