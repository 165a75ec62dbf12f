"""The SSH server of a node: git for users, and the commands of the client. Keys are those that the ledger names."""

import asyncio
import contextlib
import logging
import os
import re
import resource
import shlex
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from owsgit.ledger.repository import NODE_ENVIRONMENT, PACK_BYTES_MAX
from owsgit.node.logins import certified
from owsgit.node.ssh_turns import Turns
from owsgit.peers.wire import CIPHERS, COMMAND

LOGIN_SECONDS_MAX = 30
KEEPALIVE_SECONDS = 30
CONNECTIONS_MAX = 512
SESSIONS_MAX = 512
GITS_MAX = 32
"""Clones and pushes at once; further ones wait."""

CHUNK_BYTES = 1 << 16
GIT_SECONDS_MAX = 900
"""A clone over a slow line takes minutes; a client that hangs is cut off in the end."""

GIT_CPU_SECONDS_MAX = 120
GIT_MEMORY_BYTES_MAX = 4 << 30
"""Bounds for git itself: a pack that unpacks to far more than it is dies alone."""

_PROTOCOL = re.compile(r"version=[012]")
log = logging.getLogger("owsgit.ssh")


@dataclass(frozen=True)
class Login:
    """Who a key stands for."""

    kind: str  # user | node | former | stranger, as in owsgit.peers.council.Caller
    name: str  # of the user ("" for an owner of a node that is still empty) or the node


@dataclass(frozen=True)
class Session:
    """Who is there."""

    user: str
    key: str  # fingerprint of the key that logged in
    line: str = ""  # the key itself, as in an authorized_keys file
    host: str = ""  # the address that it came from


@dataclass(frozen=True)
class Access:
    """What the server needs to know of its node."""

    login_of: Callable[[str], Login | None]  # a key's fingerprint → who it is, None if it may not log in
    authorities_of: Callable[[str], Sequence[str]]  # whose certificates can stand for a user, as OpenSSH lines
    accepts_path: Callable[[str], bool]
    path_remedy: Callable[[], str]
    ledger: Path
    python: str
    run: Callable[[Session, list[str], asyncssh.SSHServerProcess[bytes]], Awaitable[int]]  # `owsgit ...` commands
    peer: Callable[[Session, asyncssh.SSHServerProcess[bytes]], Awaitable[int]]  # another node's requests


class _Server(asyncssh.SSHServer):
    def __init__(self, access: Access, connections: "set[_Server]") -> None:
        self._access = access
        self._connections = connections

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        Turns.between(conn)
        self._connections.add(self)
        if len(self._connections) > CONNECTIONS_MAX:
            conn.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)

    def begin_auth(self, username: str) -> bool:
        """Who comes with a certificate says as whom: by the name that they log in with, which it has to name.

        asyncssh checks the certificate; that it names the user is an option of the line, as without it a certificate
        that names nobody would be anybody's.
        """
        authorities = self._access.authorities_of(username)
        if authorities:
            lines = [f'cert-authority,principals="{username}" {line}' for line in authorities]
            self._connection.set_authorized_keys(asyncssh.import_authorized_keys("\n".join(lines)))
        self._connection.set_extra_info(owsgit_key=certified(username, authorities), owsgit_line="")
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """The user name does not matter: the key says who it is. The last key asked about is the one that proves.

        From the first key on that the ledger names, this connection takes no certificate: else one key could be asked
        about, and a certificate prove.
        """
        fingerprint = key.get_fingerprint()
        login = self._access.login_of(fingerprint)
        if login is None:
            return False
        self._connection.set_authorized_keys(asyncssh.import_authorized_keys(""))
        self._connection.set_extra_info(owsgit_key=fingerprint, owsgit_line=key.export_public_key().decode().strip())
        return login.kind == "user" or key.get_algorithm() == "ssh-ed25519"


class SshServer:
    """Listens, authenticates, and runs git or a command for each session."""

    def __init__(self, access: Access, host_key: Path) -> None:
        self._access = access
        self._host_key = host_key
        self._acceptor: asyncssh.SSHAcceptor | None = None
        self._sessions: set[asyncio.Task[None]] = set()
        self._connections: set[_Server] = set()
        self._gits = asyncio.Semaphore(GITS_MAX)

    async def open(self, address: str, port: int) -> None:
        self._acceptor = await asyncssh.listen(
            address,
            port,
            server_factory=lambda: _Server(self._access, self._connections),
            server_host_keys=[str(self._host_key)],
            process_factory=self._process,
            encoding=None,
            line_editor=False,
            allow_pty=False,
            agent_forwarding=False,
            x11_forwarding=False,
            encryption_algs=CIPHERS,
            compression_algs=None,
            login_timeout=LOGIN_SECONDS_MAX,
            keepalive_interval=KEEPALIVE_SECONDS,
            reuse_address=True,
            backlog=CONNECTIONS_MAX,
            server_version="owsgit",
        )

    async def close(self) -> None:
        if self._acceptor is not None:
            self._acceptor.close()
            await self._acceptor.wait_closed()
        for task in list(self._sessions):
            task.cancel()
        await asyncio.gather(*self._sessions, return_exceptions=True)

    def _process(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        task = asyncio.ensure_future(self._session(process))
        self._sessions.add(task)
        task.add_done_callback(self._sessions.discard)

    async def _session(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        status = 1
        try:
            key = process.get_extra_info("owsgit_key") or ""
            login = self._access.login_of(key)  # again: since then, the key may have been taken out of the ledger
            if login is None:
                process.stderr.write(b"owsgit: your key is not in the ledger any more\n")
            elif len(self._sessions) > SESSIONS_MAX:
                process.stderr.write(b"owsgit: this node has too many sessions; try again later\n")
            else:
                line = process.get_extra_info("owsgit_line") or ""
                host = (process.get_extra_info("peername") or ("",))[0]
                session = Session(login.name, key, line, host)
                run = self._run if login.kind == "user" else self._run_for_node
                status = await run(session, process)
        except (asyncssh.Error, ConnectionError, BrokenPipeError):
            pass  # the client is gone; there is nobody to tell
        except Exception:
            log.exception("a session failed")
            with contextlib.suppress(Exception):
                process.stderr.write(b"owsgit: internal error; the node's log says more\n")
        finally:
            with contextlib.suppress(Exception):
                process.exit(status)

    async def _run(self, session: Session, process: asyncssh.SSHServerProcess[bytes]) -> int:
        try:
            words = shlex.split(process.command or "")
        except ValueError:
            words = []
        if len(words) == 2 and words[0] in ("git-upload-pack", "git-receive-pack"):
            if self._access.accepts_path(words[1]):
                async with self._gits:
                    return await self._git(session, words[0], process)
            told = f"owsgit: there is no repository {words[1]!r} here; {self._access.path_remedy()}\n"
            process.stderr.write(told.encode())
            return 128
        if words and words[0] == "owsgit":
            return await self._access.run(session, words[1:], process)
        process.stderr.write(b"owsgit: this server speaks git and the owsgit client, and has no shell\n")
        return 127

    async def _run_for_node(self, session: Session, process: asyncssh.SSHServerProcess[bytes]) -> int:
        """Other nodes ask, and fetch; they never push and have none of the client's commands."""
        if process.command == COMMAND:
            return await self._access.peer(session, process)
        login = self._access.login_of(session.key)
        if process.command == "git-upload-pack 'ledger'" and login is not None and login.kind == "node":
            async with self._gits:
                return await self._git(session, "git-upload-pack", process)
        if login is not None and login.kind == "stranger":
            process.stderr.write(
                b"owsgit: Permission denied: this node is empty, and your key is none of its owner's\n"
            )
        else:
            process.stderr.write(b"owsgit: Permission denied: a node's key is for nodes; log in with a user's key\n")
        return 127

    async def _git(self, session: Session, service: str, process: asyncssh.SSHServerProcess[bytes]) -> int:
        protocol = process.env.get("GIT_PROTOCOL", b"")
        protocol = protocol.decode("ascii", "replace") if isinstance(protocol, bytes) else protocol
        environment = {
            **NODE_ENVIRONMENT,
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "OWSGIT_PYTHON": self._access.python,
            "OWSGIT_USER": session.user,
            **({"GIT_PROTOCOL": protocol} if _PROTOCOL.fullmatch(protocol) else {}),
        }
        git = await asyncio.create_subprocess_exec(
            "git",
            service.removeprefix("git-"),
            str(self._access.ledger),
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        _limit(git.pid)
        assert git.stdin is not None and git.stdout is not None and git.stderr is not None
        incoming = asyncio.ensure_future(_pump_in(process, git.stdin))
        try:
            async with asyncio.timeout(GIT_SECONDS_MAX):
                await asyncio.gather(_pump_out(git.stdout, process.stdout), _pump_out(git.stderr, process.stderr))
                return await git.wait()
        except TimeoutError:
            process.stderr.write(b"owsgit: the transfer took too long\n")
            return 1
        finally:
            incoming.cancel()
            if git.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(git.pid, 9)
                await git.wait()


def _limit(pid: int) -> None:
    """Bound what this git and its children may use."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        resource.prlimit(pid, resource.RLIMIT_CPU, (GIT_CPU_SECONDS_MAX, GIT_CPU_SECONDS_MAX))
        resource.prlimit(pid, resource.RLIMIT_AS, (GIT_MEMORY_BYTES_MAX, GIT_MEMORY_BYTES_MAX))
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (4 * PACK_BYTES_MAX, 4 * PACK_BYTES_MAX))
        resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))


async def _pump_in(process: asyncssh.SSHServerProcess[bytes], target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, asyncssh.Error, asyncio.CancelledError):
        while data := await process.stdin.read(CHUNK_BYTES):
            target.write(data)
            await target.drain()
    with contextlib.suppress(ConnectionError, RuntimeError):
        target.close()


async def _pump_out(source: asyncio.StreamReader, target: asyncssh.SSHWriter[bytes]) -> None:
    while data := await source.read(CHUNK_BYTES):
        target.write(data)
        await target.drain()
