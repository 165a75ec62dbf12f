"""The baseline of bench.push: a bare repository without hooks behind the same SSH server as a node's.

python -m bench.bare_server REPOSITORY PORT HOST_KEY
"""

import asyncio
import sys
from pathlib import Path

import asyncssh
import uvloop

from owsgit.node.ssh import Access, Login, Session, SshServer


async def _no_command(session: Session, words: list[str], process: "asyncssh.SSHServerProcess[bytes]") -> int:
    return 1


async def _no_peer(session: Session, process: "asyncssh.SSHServerProcess[bytes]") -> int:
    return 1


async def serve(repository: Path, port: int, host_key: Path) -> None:
    anyone = Login("user", "anyone")
    access = Access(
        lambda _: anyone, lambda _: [], lambda _: True, str, repository, sys.executable, _no_command, _no_peer
    )
    server = SshServer(access, host_key)
    await server.open("127.0.0.1", port)
    print("serves", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])))
