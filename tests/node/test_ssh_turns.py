"""What comes over SSH faster than it is parsed."""

import asyncio
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import asyncssh
import pytest
import uvloop

from owsgit.node import ssh_turns
from owsgit.node.ssh import Access, SshServer

IGNORED = struct.pack("!IBB", 12, 6, 2) + bytes(10)
"""A packet that means nothing, before there are keys."""


def test_a_flood_is_parsed_in_turns_and_not_while_its_answers_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uvloop.run(flooded(tmp_path, monkeypatch))


async def flooded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(tmp_path / "key")
    loop, turns = asyncio.get_running_loop(), [0]
    parsed: list[tuple[int, int]] = []
    parse = asyncssh.SSHServerConnection.data_received

    def watched(connection: asyncssh.SSHServerConnection, data: bytes, datatype: Any = None) -> None:
        parsed.append((turns[0], len(data)))
        parse(connection, data, datatype)

    def turn() -> None:
        turns[0] += 1
        loop.call_soon(turn)

    async def until(count: int) -> None:
        async with asyncio.timeout(10):
            while sum(size for _, size in parsed) < count:
                await asyncio.sleep(0.01)

    async def nothing(*_: object) -> int:
        return 1

    monkeypatch.setattr(asyncssh.SSHServerConnection, "data_received", watched)
    server = SshServer(
        Access(lambda _: None, lambda _: (), bool, str, tmp_path, "python", nothing, nothing), tmp_path / "key"
    )
    await server.open("127.0.0.1", 0)
    assert server._acceptor is not None
    _, client = await asyncio.open_connection("127.0.0.1", server._acceptor.get_port())
    turn()
    flood = b"SSH-2.0-flood\r\n" + IGNORED * 6000
    client.write(flood)
    await until(len(flood))
    at_once: Counter[int] = Counter()
    for at, size in parsed:
        at_once[at] += size
    assert max(at_once.values()) <= 2 * ssh_turns.PIECE_BYTES

    (made,) = server._connections
    between = made._connection._transport.get_protocol()  # type: ignore[union-attr]
    between.pause_writing()
    client.write(IGNORED * 10)
    await asyncio.sleep(0.05)
    assert sum(size for _, size in parsed) == len(flood)
    between.resume_writing()
    await until(len(flood) + len(IGNORED) * 10)
    client.close()
    await server.close()
