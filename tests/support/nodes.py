"""Real nodes, each a process with a home of its own."""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support import people
from tests.support.people import Person
from tests.support.projects import Done, Project

START_SECONDS_MAX = 40
OWSGIT = [sys.executable, "-m", "owsgit"]


def free_port() -> int:
    """A port of none of the ranges that the kernel gives to clients: nobody takes it in passing before it is used."""
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with closing(socket.socket()) as taken, contextlib.suppress(OSError):
            taken.bind(("", port))
            return port


@dataclass
class Node:
    """A node and its process."""

    home: Path
    owner: Person
    name: str = "a"
    port: int = field(default_factory=free_port)
    aws_port: int = 0  # none
    address: str = "127.0.0.1"
    prefix: list[str] = field(default_factory=list)  # as to run it in a network namespace
    process: "subprocess.Popen[bytes] | None" = None

    def init(self, *options: str) -> dict[str, Any]:
        """Make the home; the document for nodes/<name>.json."""
        done = owsgit(
            "node", "init", self.name, "--home", str(self.home), "--ssh-port", str(self.port), "--aws-port", str(self.aws_port), "--address", self.address, "--owner", self.owner.public,
            *options, by=self.owner,
        )  # fmt: skip
        assert done.status == 0, done.text
        spec: dict[str, Any] = json.loads(done.text)
        return spec

    def spec(self) -> dict[str, Any]:
        """The document for nodes/<name>.json, of a home that is made if there is none yet."""
        if not (self.home / "node.json").exists():
            return self.init()
        done = owsgit("node", "show", "--home", str(self.home), by=self.owner)
        assert done.status == 0, done.text
        spec: dict[str, Any] = json.loads(done.text)
        return spec

    @property
    def log(self) -> Path:
        return self.home.with_suffix(".log")

    def start(self) -> "Node":
        self.begin()()
        return self

    def begin(self) -> Callable[[], None]:
        """Start it; what is returned waits until it serves."""
        file = self.log.open("ab")
        size = file.tell()
        self.process = subprocess.Popen(
            [*self.prefix, *OWSGIT, "node", "run", "--home", str(self.home)],
            env=people.CLEAN,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
        process, deadline = self.process, time.monotonic() + START_SECONDS_MAX

        def serves() -> None:
            while b"serves on" not in self.log.read_bytes()[size:]:
                assert process.poll() is None, self.log.read_text()
                assert time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.02)

        return serves

    def kill(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        self.end()
        if self.process is not None and self.process.poll() is None:
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()

    def end(self) -> None:
        """Tell it to stop, if it runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()

    def url(self, project: str = "shop") -> str:
        return f"ssh://{self.address}:{self.port}/{project}"

    def main(self) -> str:
        """The commit that main is at, read from the bare repository itself."""
        done = subprocess.run(
            ["git", "rev-parse", "--verify", "--quiet", "refs/heads/main"],
            cwd=self.home / "ledger.git",
            capture_output=True,
        )
        return done.stdout.decode().strip()

    def status(self, by: Person | None = None) -> dict[str, Any]:
        done = subprocess.run(
            [
                *(by or self.owner).environment["GIT_SSH_COMMAND"].split(),
                "-p",
                str(self.port),
                self.address,
                "owsgit status",
            ],
            capture_output=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def resource(self, key: str) -> dict[str, Any] | None:
        return next((entry for entry in self.status()["resources"] if entry["resource"] == key), None)


def push(project: Project, node: Node, ref: str = "HEAD:main", *options: str, by: Person | None = None) -> Done:
    return project.try_git("push", *options, node.url(), ref, by=by)


def owsgit(*arguments: str, by: Person, cwd: Path | None = None, data: str | None = None, **environment: str) -> Done:
    """Run the command line; standard output if it succeeded, both if not."""
    done = subprocess.run(
        [*OWSGIT, *arguments],
        cwd=cwd,
        env={**by.environment, **environment},
        input=data,
        stdin=subprocess.DEVNULL if data is None else None,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return Done(done.returncode, done.stdout if done.returncode in (0, 2) else done.stdout + done.stderr)


def until(what: Any, seconds: float = 30.0) -> Any:
    """Wait until `what()` is true; its value."""
    deadline = time.monotonic() + seconds
    while True:
        found = what()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)
