"""A container that does nothing but hold a network, as the pause container of a Kubernetes pod does.

A worker's container joins a holder's network. So the node can listen in there before the worker's first instruction
runs, and starting a worker no longer makes a network: that takes less than half of the time.
"""

import asyncio
import contextlib
import io
import platform
import struct
import tarfile
from dataclasses import dataclass
from typing import Any

from docker.errors import ImageNotFound

from owsgit.model.errors import UnavailableError
from owsgit.runtime.bubblewrap import GID, UID
from owsgit.runtime.engine import SEE_LOG, Engine, RefusedByEngineError
from owsgit.runtime.namespace import ContainerProcess, NetworkNamespace
from owsgit.runtime.worker import MEBIBYTE

IMAGE = "owsgit-holder:1"
MEMORY_BYTES = 32 * MEBIBYTE
PROCESSES_MAX = 64
"""For the engine's own program, which runs within the limits before it becomes ours; that one has a page and no child.
"""

_PROGRAMS = {
    "x86_64": (62, bytes.fromhex("b8220000000f05ebf7")),  # pause() for ever
    "aarch64": (183, bytes.fromhex("000080d2 010080d2 020080d2 030080d2 280980d2 010000d4 faffff17")),  # ppoll(0, ...)
}
"""By machine: its number in ELF, and a program that sleeps for ever. No engine brings one, no compiler is needed."""

_ADDRESS = 0x400000


def program(machine: str) -> bytes:
    """The ELF executable. Raises UnavailableError for a machine that it was not written for."""
    if machine not in _PROGRAMS:
        raise UnavailableError(f"containers are not run on {machine} machines", remedy="use an x86_64 or aarch64 node")
    number, code = _PROGRAMS[machine]
    start = 64 + 56
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, number, 1, _ADDRESS + start, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    size = start + len(code)
    return header + struct.pack("<IIQQQQQQ", 1, 5, 0, _ADDRESS, _ADDRESS, size, size, 0x1000) + code


@dataclass(frozen=True)
class Holder:
    """A network that one worker may have."""

    container: str
    process: ContainerProcess
    network: NetworkNamespace

    def close(self) -> None:
        """Let go of it and kill its process; the container itself is the engine's to discard."""
        self.network.close()
        self.process.kill()
        self.process.close()


class Holders:
    """The holders of a node, one of them kept ready once the first was asked for."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._spare: Holder | None = None
        self._making: asyncio.Task[None] | None = None

    async def take(self) -> Holder:
        """One that is the caller's, to be given to `give_back`. Raises UnavailableError."""
        if self._spare is None and self._making is not None:
            await asyncio.wait({self._making})
        spare, self._spare = self._spare, None
        if spare is not None:
            if not spare.process.exited():
                return spare
            self.give_back(spare)  # the engine was stopped meanwhile
        return await self._make()

    def give_back(self, holder: Holder) -> None:
        """Remove it: no two workers have the same network."""
        holder.close()
        self._engine.discard(holder.container)

    def refill(self) -> None:
        """Have one ready for the next worker, in the background."""
        if self._spare is None and (self._making is None or self._making.done()):
            self._making = asyncio.ensure_future(self._fill())

    async def prepare(self) -> None:
        """Return when one is ready, or could not be made."""
        self.refill()
        if self._making is not None:
            await self._making

    async def _fill(self) -> None:
        with contextlib.suppress(UnavailableError):  # the next worker will say so
            self._spare = await self._make()

    async def _make(self) -> Holder:
        engine = self._engine
        container = await self._create()
        try:
            process = ContainerProcess(await engine.start(container), container)
            try:
                return Holder(container, process, NetworkNamespace.of(process))
            except BaseException:
                process.close()
                raise
        except (RefusedByEngineError, ProcessLookupError) as error:
            engine.discard(container)
            raise UnavailableError(f"the Docker engine cannot hold a network: {error}", remedy=SEE_LOG) from None
        except BaseException:
            engine.discard(container)
            raise

    async def _create(self) -> str:
        try:
            return await self._engine.create_of(IMAGE, self._options())
        except ImageNotFound:
            await self._engine.call(
                "import_image_from_data", _image(), repository=IMAGE.partition(":")[0], tag=IMAGE.partition(":")[2],
                changes=['ENTRYPOINT ["/holder"]'],
            )  # fmt: skip
        except RefusedByEngineError as error:
            raise UnavailableError(f"the Docker engine cannot hold a network: {error}", remedy=SEE_LOG) from None
        return await self._engine.create_of(IMAGE, self._options())

    def _options(self) -> dict[str, Any]:
        return {
            "user": f"{UID}:{GID}",
            "hostname": "sandbox",
            "stop_signal": "SIGKILL",
            "host_config": {
                "NetworkMode": "none",
                "Sysctls": {"net.ipv4.ip_unprivileged_port_start": "0"},  # a server may want port 80
                "Memory": MEMORY_BYTES,
                "MemorySwap": MEMORY_BYTES,
                "PidsLimit": PROCESSES_MAX,
                "ReadonlyRootfs": True,
                "CapDrop": ["ALL"],
                "SecurityOpt": ["no-new-privileges"],
                "LogConfig": {"Type": "none", "Config": {}},
            },
        }

    async def close(self) -> None:
        if self._making is not None:
            await asyncio.wait({self._making})
        if self._spare is not None:
            self.give_back(self._spare)
            self._spare = None


def _image() -> bytes:
    """A tar archive of the program alone."""
    file, content = io.BytesIO(), program(platform.machine())
    with tarfile.open(fileobj=file, mode="w") as archive:
        entry = tarfile.TarInfo("holder")
        entry.size, entry.mode = len(content), 0o755
        archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()
