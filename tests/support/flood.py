"""A flood from another process: connections that ask for one path again as soon as they are answered.

`python -m tests.support.flood PORT PATH CONNECTIONS` says `floods` once every connection has had an answer, goes on until
its standard input is closed, and then prints how many answers it had by status, as JSON.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator


class _Asker(asyncio.Protocol):
    def __init__(self, request: bytes, statuses: Counter[str], answered: asyncio.Semaphore) -> None:
        self._request, self._statuses, self._answered = request, statuses, answered
        self._pieces = b""
        self._is_first = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._pieces += data
        head, _, body = self._pieces.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].split(b"\r", 1)[0]
        if not length or len(body) < int(length):
            return
        self._statuses[head[9:12].decode()] += 1
        self._pieces = b""
        if self._is_first:
            self._is_first = False
            self._answered.release()
        self._transport.write(self._request)


async def _flood(port: int, path: str, connections: int) -> Counter[str]:
    statuses: Counter[str] = Counter()
    answered = asyncio.Semaphore(0)
    request = f"GET {path} HTTP/1.1\r\nhost: flood.test\r\n\r\n".encode()
    loop = asyncio.get_running_loop()
    for _ in range(connections):
        await loop.create_connection(lambda: _Asker(request, statuses, answered), "127.0.0.1", port)
    for _ in range(connections):
        await answered.acquire()
    print("floods", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    return statuses


@contextlib.contextmanager
def flooding(port: int, path: str, connections: int) -> Iterator[Counter[str]]:
    """A flood for the time of the block; afterwards its answers by status are in what was given."""
    command = [sys.executable, "-m", "tests.support.flood", str(port), path, str(connections)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    statuses: Counter[str] = Counter()
    try:
        assert process.stdout is not None and process.stdout.readline() == "floods\n"
        yield statuses
    finally:
        told, _ = process.communicate()
    statuses.update(json.loads(told))


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_flood(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))))
