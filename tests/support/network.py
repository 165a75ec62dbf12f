"""A network of namespaces, each with an address of its own, behind a switch that can cut, delay and lose.

Every namespace has a TUN device whose other end this process holds: packets pass through `Network._forward`. That works
where tc's netem is missing, and cuts in one direction as easily as in both. Needs root and /dev/net/tun.
"""

import contextlib
import fcntl
import heapq
import os
import random
import select
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path

_TUNSETIFF = 0x400454CA
_IFF_TUN_WITHOUT_HEADER = 0x1001
HOST = "host"
_PREFIX = "10.{}.{}".format(*os.urandom(2))
"""The same for all networks of this process, as there is one at a time: a founded cluster's addresses come again."""


def possible() -> bool:
    return os.geteuid() == 0 and Path("/dev/net/tun").exists()


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def add_space(name: str) -> None:
    """The first one of a machine mounts a folder for all of them, over those that another process may add meanwhile:
    hence one at a time."""
    run = os.open("/run", os.O_RDONLY)
    try:
        fcntl.flock(run, fcntl.LOCK_EX)
        _ip("netns", "add", name)
    finally:
        os.close(run)


class Network:
    """Made for one test; `close` leaves nothing behind."""

    def __init__(self, names: str, seed: int = 0) -> None:
        self._random = random.Random(seed)
        self._id = os.urandom(3).hex()
        self._prefix = _PREFIX
        self._fds: dict[str, int] = {}
        self._by_address: dict[bytes, str] = {}
        self._names = [HOST, *names]
        self.addresses: dict[str, str] = {}
        self.cut: set[tuple[str, str]] = set()
        self.delay_s = 0.0
        self.loss = 0.0
        self._due: list[tuple[float, int, int, bytes]] = []
        self._count = 0
        self._stop, self._stopping = os.pipe()
        for index, name in enumerate(self._names, start=1):
            self._add(name, index)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _space(self, name: str) -> str:
        return f"ows-{self._id}-{name}"

    def _add(self, name: str, index: int) -> None:
        device = f"ows{self._id[:4]}{index}"
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH", device.encode(), _IFF_TUN_WITHOUT_HEADER))
        address = f"{self._prefix}.{index}"
        inside: list[str] = []
        if name != HOST:
            add_space(self._space(name))
            _ip("link", "set", device, "netns", self._space(name))
            inside = ["-n", self._space(name)]
            _ip(*inside, "link", "set", "lo", "up")
        _ip(*inside, "addr", "add", f"{address}/24", "dev", device)
        _ip(*inside, "link", "set", device, "up")
        self._fds[name] = fd
        self.addresses[name] = address
        self._by_address[socket.inet_aton(address)] = name

    def prefix(self, name: str) -> list[str]:
        """What a command is started with to run in a namespace."""
        return ["nsenter", f"--net=/run/netns/{self._space(name)}", "--"]

    def split(self, *sides: str) -> None:
        """Only nodes on one side hear each other. The host, from which users push, reaches all."""
        side_of = {name: number for number, side in enumerate(sides) for name in side}
        self.cut = {(a, b) for a in side_of for b in side_of if side_of[a] != side_of[b]}

    def heal(self) -> None:
        self.cut, self.delay_s, self.loss = set(), 0.0, 0.0

    def _run(self) -> None:
        names = {fd: name for name, fd in self._fds.items()}
        while True:
            wait = max(0.0, self._due[0][0] - time.monotonic()) if self._due else 1.0
            readable, _, _ = select.select([*names, self._stop], [], [], min(wait, 1.0))
            if self._stop in readable:
                return
            for fd in readable:
                self._forward(names[fd], fd)
            while self._due and self._due[0][0] <= time.monotonic():
                _, _, fd, packet = heapq.heappop(self._due)
                self._write(fd, packet)

    def _forward(self, source: str, fd: int) -> None:
        for _ in range(64):
            try:
                packet = os.read(fd, 65536)
            except (BlockingIOError, OSError):
                return
            if packet[0] >> 4 != 4:
                continue
            target = self._by_address.get(packet[16:20])
            if target is None or (source, target) in self.cut:
                continue
            between_nodes = HOST not in (source, target)
            if between_nodes and self._random.random() < self.loss:
                continue
            if between_nodes and self.delay_s:
                self._count += 1
                heapq.heappush(self._due, (time.monotonic() + self.delay_s, self._count, self._fds[target], packet))
            else:
                self._write(self._fds[target], packet)

    @staticmethod
    def _write(fd: int, packet: bytes) -> None:
        with contextlib.suppress(OSError):  # as a full queue loses a packet
            os.write(fd, packet)

    def close(self) -> None:
        os.write(self._stopping, b"x")
        self._thread.join()
        for name, fd in self._fds.items():
            os.close(fd)
            if name != HOST:
                subprocess.run(["ip", "netns", "delete", self._space(name)], capture_output=True)
        os.close(self._stop)
        os.close(self._stopping)
