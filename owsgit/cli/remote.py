"""Runs commands on a node by way of the user's own ssh: its configuration, agent and keys, as git does."""

import contextlib
import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import click

from owsgit.ledger.repository import Clone, GitError, run
from owsgit.model.errors import OwsgitError, Problem, UnavailableError

SSH_FAILED = 255
SSH_PORT = 22
CONNECT_SECONDS_MAX = 10
ALIVE_SECONDS = 10
"""A connection is given up when the node was silent for three times so long (ssh_config(5), ServerAliveInterval)."""

node_option = click.option(
    "--node",
    "-n",
    "remote",
    default="",
    help="Git remote or ssh:// address of the node; the default remote if not given.",
)


role_option = click.option(
    "--role", metavar="NAME", help="Take on this role first (sts:AssumeRole), and act with its rights alone."
)


def role_words(role: str | None) -> list[str]:
    """How a command that is run as a role says so."""
    return [] if role is None else [f"role={role}"]


@dataclass(frozen=True)
class Remote:
    """A node as the user reaches it."""

    ssh: tuple[str, ...]
    host: str
    port: int | None
    url: str

    def start(self, *words: str, stdin: int = subprocess.DEVNULL) -> "subprocess.Popen[bytes]":
        """Run `owsgit words` on the node."""
        port = ["-p", str(self.port)] if self.port else []
        command = [
            *self.ssh,
            *port,
            "-o",
            "BatchMode=yes",
            "-o",
            f"ConnectTimeout={CONNECT_SECONDS_MAX}",
            "-o",
            f"ServerAliveInterval={ALIVE_SECONDS}",
            self.host,
            shlex.join(["owsgit", *words]),
        ]
        try:
            return subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        except FileNotFoundError:
            raise UnavailableError(f"{self.ssh[0]} is not installed", remedy="install openssh-client") from None

    def at(self, address: str, port: int, user: str = "") -> "Remote":
        """Another node of the same project, reached in the same way."""
        host = f"{user}@{address}" if user else address
        return Remote(self.ssh, host, port, f"ssh://{f'[{address}]' if ':' in address else address}:{port}")

    def is_at(self, address: str, port: int | None) -> bool:
        """Whether this is the node with this address and port."""
        return self.host.rpartition("@")[2] == address and (self.port or SSH_PORT) == (port or SSH_PORT)

    def call(self, *words: str, data: bytes = b"") -> bytes:
        """What the command prints. Raises OwsgitError with the node's own problems, UnavailableError without a node."""
        process = self.start(*words, stdin=subprocess.PIPE)
        out, err = process.communicate(data)
        if process.returncode != 0:
            raise self.failure(process.returncode, err)
        return out

    def stream(self, *words: str, data: bytes = b"") -> Iterator[bytes]:
        """The lines that the command prints, as they come; it reads `data` before it prints any."""
        process = self.start(*words, stdin=subprocess.PIPE)
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        try:
            with contextlib.suppress(BrokenPipeError):  # why, it says below
                process.stdin.write(data)
                process.stdin.close()
            yield from process.stdout
            err = process.stderr.read()
            if process.wait() != 0:
                raise self.failure(process.returncode, err)
        finally:
            process.kill()
            process.wait()

    def failure(self, status: int, err: bytes) -> OwsgitError:
        """The error that a command ended with."""
        text = err.decode("utf-8", "replace").strip()
        if status == SSH_FAILED and "host key" in text.lower():
            return UnavailableError(
                f"the node at {self.url} is not one whose host key this clone knows: {text}",
                remedy="git pull, then owsgit connect: it pins the host keys that the ledger names",
            )
        if status == SSH_FAILED:
            return UnavailableError(
                f"the node at {self.url} cannot be reached: {text or 'ssh failed'}",
                remedy="is it running (owsgit node run)? is your key in the ledger? owsgit doctor checks both; "
                "for another node: --node NAME, git push NAME main",
            )
        for line in text.splitlines():
            if line.startswith('{"problems"'):
                told = json.loads(line)
                error = OwsgitError(told["problems"][0]["message"])
                error.problems = tuple(Problem(**problem) for problem in told["problems"])
                error.exit_code = int(told["exitCode"])
                return error
        return OwsgitError(text or f"the node answered with status {status}")


def find(clone: Clone, name: str) -> Remote:
    """The node that a remote name or an address stands for; the default remote for ''. Raises UnavailableError."""
    url = name
    if "://" not in name and ":" not in name:
        try:
            url = run(clone.folder, "remote", "get-url", name or default_remote(clone))
        except GitError:
            known = run(clone.folder, "remote").split()
            raise UnavailableError(
                f"this clone has no remote {name or 'origin'!r}",
                remedy=f"use one of: {', '.join(known)}"
                if known
                else "add the nodes: owsgit connect, or git remote add",
            ) from None
    return parse(url, ssh_command(clone))


def default_remote(clone: Clone) -> str:
    """The remote of the current branch, else origin, else the only one."""
    branch = clone.config("branch.main.remote")
    remotes = run(clone.folder, "remote").split()
    return branch or ("origin" if "origin" in remotes or not remotes else remotes[0])


def ssh_command(clone: Clone) -> tuple[str, ...]:
    """As git finds it: GIT_SSH_COMMAND, core.sshCommand, ssh."""
    return tuple(shlex.split(os.environ.get("GIT_SSH_COMMAND") or clone.config("core.sshCommand") or "ssh"))


def parse(url: str, ssh: tuple[str, ...]) -> Remote:
    """A git address over SSH: ssh://[user@]host[:port]/path or [user@]host:path. Raises UnavailableError."""
    if url.startswith("ssh://"):
        parts = urlsplit(url)
        host = f"{parts.username}@{parts.hostname}" if parts.username else parts.hostname or ""
        return Remote(ssh, host, parts.port, url)
    if "://" not in url and ":" in url and not Path(url).exists():
        return Remote(ssh, url.split(":", 1)[0], None, url)
    raise UnavailableError(
        f"{url!r} is not the address of a node", remedy="nodes are reached as ssh://host:port/project"
    )
