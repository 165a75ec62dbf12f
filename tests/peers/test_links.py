"""A neighbour that says more than anybody asked it."""

import asyncio

import asyncssh

from owsgit.model import keys
from owsgit.peers.links import Dialer, Link
from owsgit.peers.members import Member
from owsgit.peers.wire import Frame


def test_a_flood_of_answers_to_nobody_leaves_others_their_turns() -> None:
    """They lie in the buffer of the connection, from which they are read without waiting for anything."""

    async def main() -> int:
        host_key, own = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
        told = asyncio.Event()

        async def talk(process: "asyncssh.SSHServerProcess[bytes]") -> None:
            process.stdout.write(Frame({}).encode() * 2000)
            process.stdout.write(Frame({"id": 1}).encode())
            await told.wait()
            process.exit(0)

        server = await asyncssh.listen(
            "127.0.0.1", 0, server_host_keys=[host_key], process_factory=talk, encoding=None,
            authorized_client_keys=asyncssh.import_authorized_keys(own.export_public_key().decode()),
        )  # fmt: skip
        key = keys.parse_ssh(host_key.export_public_key().decode().strip())
        member = Member("id", "b", key, "127.0.0.1", server.get_port())
        link = Link(Dialer(own, "127.0.0.1"), member, lambda _: None)
        answer = link._waiting[1] = asyncio.get_running_loop().create_future()
        running = asyncio.ensure_future(link.run())
        assert await link.wait_up(10)
        turns = 0
        while not answer.done():
            await asyncio.sleep(0)
            turns += 1
        told.set()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        server.close()
        return turns

    assert asyncio.run(main()) >= 1900
