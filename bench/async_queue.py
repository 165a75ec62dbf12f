"""Asynchronous events that are accepted in a second, each on the disk, over a plain table with one insert a commit.

Nothing is invoked meanwhile: the function is not there. Both files lie beside each other, with the same pragmas.
"""

import asyncio
import sqlite3
import tempfile
import time
import uuid
from pathlib import Path

from bench import report
from owsgit.model.errors import UnavailableError
from owsgit.model.service import Answer, Invocation
from owsgit.services.functions.dispatch import Dispatcher

PAYLOAD = b'{"text": "' + b"x" * 1000 + b'"}'


def plain(folder: Path, count: int) -> float:
    """Inserts a second, one after the other."""
    database = sqlite3.connect(folder / "plain.db", isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY, payload BLOB NOT NULL) STRICT")
    began = time.perf_counter()
    for _ in range(count):
        database.execute("INSERT INTO events (payload) VALUES (?)", (PAYLOAD,))
    seconds = time.perf_counter() - began
    database.close()
    return count / seconds


async def accepted(dispatcher: Dispatcher, count: int, callers: int) -> float:
    """Events a second, from `callers` at once, each of whom sends the next one when the last one is accepted."""

    async def send() -> None:
        for _ in range(count // callers):
            await dispatcher.enqueue("f", Invocation(PAYLOAD, str(uuid.uuid4())))

    began = time.perf_counter()
    await asyncio.gather(*(send() for _ in range(callers)))
    return count // callers * callers / (time.perf_counter() - began)


async def measure(folder: Path, count: int, rounds: int) -> None:
    async def invoke(name: str, invocation: Invocation) -> Answer:
        raise UnavailableError("not there")

    dispatcher = Dispatcher(folder / "events.db", invoke, lambda name: None)
    rates: dict[str, list[float]] = {"plain": [], "c1": [], "c32": []}
    try:
        for number in range(rounds + 1):  # the first one warms up
            found = {
                "plain": await asyncio.to_thread(plain, folder, count),
                "c1": await accepted(dispatcher, count, 1),
                "c32": await accepted(dispatcher, count * 4, 32),
            }
            for name, rate in found.items():
                if number:
                    rates[name].append(rate)
    finally:
        await dispatcher.close()
    for name in ("c1", "c32"):
        report.line(f"accepted_{name}", report.median(rates[name]), "events/s", report.median(rates["plain"]), digits=0)


def main() -> None:
    count, rounds = (300, 5) if report.quick() else (1000, 11)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        asyncio.run(measure(Path(folder), count, rounds))


if __name__ == "__main__":
    main()
