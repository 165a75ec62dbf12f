"""The internet for a worker that asks for it: slirp4netns, a network stack in a process of its own.

The worker's sandbox gets an interface whose packets that process turns into ordinary connections of the node's user.
Addresses that are not of the internet, and those of this machine, are rejected inside of the sandbox by routes that the
worker cannot change: a function that needs one of them names it in its allow-list.
"""

import asyncio
import json
import os
import shutil
import subprocess

from owsgit.model.addresses import METADATA
from owsgit.model.errors import UnavailableError

READY_SECONDS_MAX = 10.0
GATEWAY = "10.0.2.2"
"""slirp4netns's own, which stands for this machine. It refuses connections to it, but now and then only after it has
accepted them."""

RESOLVER = "10.0.2.3"
"""slirp4netns's own, which asks the machine's."""

NOT_INTERNET = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.168.0.0/16",
    "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4", *(f"{each}/32" for each in METADATA if each.version == 4),
)  # fmt: skip
"""RFC 6890: private, shared, link-local, multicast and reserved addresses; and providers' metadata services."""


async def rejected() -> list[str]:
    """The networks that no worker reaches over the internet, those of this machine's interfaces among them."""
    process = await asyncio.create_subprocess_exec("ip", "-json", "-4", "address", stdout=subprocess.PIPE)
    output, _ = await process.communicate()
    own = [
        info["local"] for each in json.loads(output or b"[]") for info in each.get("addr_info", []) if "local" in info
    ]
    return [*NOT_INTERNET, f"{GATEWAY}/32", *(f"{address}/32" for address in own if not address.startswith("127."))]


class Internet:
    """Carries the packets of one sandbox."""

    def __init__(self, process: asyncio.subprocess.Process, exit_fd: int) -> None:
        self._process = process
        self._exit_fd = exit_fd  # it ends when this is closed: by us, or because this node was killed

    @classmethod
    async def start(cls, pid: int, *, own_user_namespace: bool = True) -> "Internet":
        """For the sandbox whose first process is `pid`. Raises UnavailableError."""
        program = shutil.which("slirp4netns")
        if program is None:
            raise UnavailableError(
                'a function with "network": "internet" needs slirp4netns', remedy="apt-get install slirp4netns"
            )
        user_namespace = [f"--userns-path=/proc/{pid}/ns/user"] if own_user_namespace else []
        ready, told = os.pipe()
        watched, exit_fd = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                program, "--configure", "--mtu=65520", "--disable-host-loopback", "--enable-sandbox",
                "--enable-seccomp", f"--ready-fd={told}", f"--exit-fd={watched}", "--netns-type=path", *user_namespace,
                f"/proc/{pid}/ns/net", "tap0",
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, pass_fds=[told, watched],
            )  # fmt: skip
        except BaseException:
            os.close(ready)
            os.close(exit_fd)
            raise
        finally:
            os.close(told)
            os.close(watched)
        made = cls(process, exit_fd)
        try:
            async with asyncio.timeout(READY_SECONDS_MAX):
                answer = await _read(ready)
        except TimeoutError:
            answer = b""
        except BaseException:
            made.close()
            raise
        finally:
            os.close(ready)
        if not answer:
            made.close()
            assert process.stderr is not None
            said = (await process.stderr.read()).decode("utf-8", "replace").strip()
            raise UnavailableError(f"slirp4netns does not start: {said[-300:] or 'no reason given'}")
        return made

    def close(self) -> None:
        if self._exit_fd >= 0:
            os.close(self._exit_fd)
            self._exit_fd = -1
        if self._process.returncode is None:
            self._process.kill()


async def _read(fd: int) -> bytes:
    os.set_blocking(fd, False)
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(fd, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(fd)
    return os.read(fd, 16)
