"""A node of a project that is played by the test: the right key, and whatever behaviour the test wants."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any

import asyncssh

from owsgit.peers import wire
from owsgit.peers.wire import Frame
from tests.support.loops import end_tasks
from tests.support.nodes import Node

Process = asyncssh.SSHServerProcess[bytes]
Play = Callable[[Process], Awaitable[None]]


async def hang(process: Process) -> None:
    await asyncio.sleep(3600)


class Played:
    """The node c: an SSH server with the right key, whose behaviour is changed by the test."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.play: Play = hang
        self.asked: list[dict[str, Any]] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.run(self._listen())

    def run(self, work: Any) -> Any:
        future: Future[Any] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(60)

    async def _listen(self) -> None:
        self._server = await asyncssh.listen(
            self.node.address, self.node.port, server_host_keys=[str(self.node.home / "key")],
            authorized_client_keys=None, server_factory=_Anyone, process_factory=self._serve, encoding=None,
            reuse_address=True,
        )  # fmt: skip

    async def _serve(self, process: Process) -> None:
        try:
            await self.play(process)
        except (asyncssh.Error, OSError, asyncio.IncompleteReadError, wire.WireError):
            pass
        finally:
            process.close()

    async def link(self, to: Node) -> asyncssh.SSHClientProcess[bytes]:
        """A session on a real node, with c's key."""
        connection = await asyncssh.connect(
            to.address, to.port, username="owsgit", client_keys=[str(self.node.home / "key")], known_hosts=None,
            config=None, agent_path=None,
        )  # fmt: skip
        return await connection.create_process(wire.COMMAND, encoding=None)

    def ask(self, to: Node, head: dict[str, Any], body: bytes = b"") -> Frame | None:
        """The answer of a real node to c's request."""

        async def asking() -> Frame | None:
            process = await self.link(to)
            process.stdin.write(Frame({"id": 1, **head}, body).encode())
            async with asyncio.timeout(30):
                return await wire.read(process.stdout)

        found: Frame | None = self.run(asking())
        return found

    def stop(self) -> None:
        async def end() -> None:
            self._server.close()
            await end_tasks()

        self.run(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _Anyone(asyncssh.SSHServer):
    def begin_auth(self, username: str) -> bool:
        return False
