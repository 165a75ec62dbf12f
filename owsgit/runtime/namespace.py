"""The network of a container, entered from outside: sockets that are inside of it and belong to the node.

A socket stays for life in the network namespace of the thread that made it (network_namespaces(7)). So a thread that
enters the namespace, makes one socket and ends gives the node a foot inside, and the container no way out: it needs
no bridge, no address, no port of the host.
"""

import contextlib
import ctypes
import os
import select
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from owsgit.model.errors import UnavailableError
from owsgit.runtime import kernel

CLONE_NEWNET = 0x40000000
LOOPBACK = "127.0.0.1"
BACKLOG = 16
Result = TypeVar("Result")


class NetworkNamespace:
    """The network namespace of a running container."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def of(cls, process: "ContainerProcess") -> "NetworkNamespace":
        """Raises UnavailableError if this node may not enter it."""
        try:
            made = cls(os.open(f"/proc/{process.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            raise _not_entered(error) from None
        if process.exited():  # the process id may have been another's
            made.close()
            raise UnavailableError("the container's network is gone", remedy="try again")
        return made

    def within(self, work: Callable[[], Result]) -> Result:
        """What `work` returns in there; it has to be short. Raises UnavailableError, and what it raises."""
        found: list[Result] = []
        problem: list[BaseException] = []

        def enter() -> None:
            try:
                if kernel.libc.setns(self._fd, CLONE_NEWNET) != 0:
                    raise _not_entered(OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno())))
                found.append(work())
            except BaseException as error:
                problem.append(error)

        thread = threading.Thread(target=enter)  # never one that is used again: it stays inside until it ends
        thread.start()
        thread.join()
        if problem:
            raise problem[0]
        return found[0]

    def tcp_socket(self) -> socket.socket:
        """A new one in there. Takes a tenth of a millisecond. Raises UnavailableError, OSError."""
        return self.within(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))

    def listener(self, port: int) -> socket.socket:
        """A socket that listens in there, on the loopback address. Raises UnavailableError, OSError."""
        return self.within(lambda: listening(LOOPBACK, port))

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class ContainerProcess:
    """The first process of a running container, seen from the node: when it ends is known without the engine."""

    def __init__(self, pid: int, container: str) -> None:
        """Raises UnavailableError if the engine's processes are not this machine's; ProcessLookupError if it ended."""
        self.pid = pid
        self._fd = os.pidfd_open(pid)
        try:
            groups = Path(f"/proc/{pid}/cgroup").read_text()
        except OSError:
            groups = ""
        if self.exited():
            self.close()
            raise ProcessLookupError(pid)
        if container not in groups:
            self.close()
            raise UnavailableError(
                "the Docker engine does not run its containers on this machine",
                remedy="use an engine of this machine: DOCKER_HOST=unix:///var/run/docker.sock",
            )
        self.memory_group = _memory_group(groups)

    def fileno(self) -> int:
        """Readable once it has ended."""
        return self._fd

    def exited(self) -> bool:
        if self._fd < 0:
            return True
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(0))

    def kill(self) -> None:
        """End it, and with it everything in its container, even if the engine does not answer."""
        if self._fd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._fd, signal.SIGKILL)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def listening(address: str, port: int) -> socket.socket:
    """A socket that listens, in the network of this thread. Raises OSError."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        made.bind((address, port))
        made.listen(BACKLOG)
    except BaseException:
        made.close()
        raise
    return made


def _memory_group(groups: str) -> Path:
    """The control group that counts the memory, of the lines of /proc/<pid>/cgroup."""
    unified = Path("/sys/fs/cgroup")
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return unified / "memory" / path.lstrip("/")
        if not controllers:
            unified /= path.lstrip("/")
    return unified


def _not_entered(error: OSError) -> UnavailableError:
    return UnavailableError(
        f"this node may not enter the network of its containers: {error.strerror}", remedy="run the node as root"
    )
