"""Limits of memory, processes and CPU by control groups, version 1 and 2.

A node needs a part of the hierarchy that it may write to: as root, or delegated to it (systemd: `Delegate=yes`).
"""

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

from owsgit.model.errors import UnavailableError

CGROUP_ROOT = Path("/sys/fs/cgroup")
CONTROLLERS = ("memory", "pids")
OPTIONAL_CONTROLLERS = ("cpu",)
CPU_SHARES_PER_GIB = 1024
"""A GiB of memory has the weight of an ordinary process of the machine."""

_REMOVE_SECONDS_MAX = 1.0
"""A group can be removed only when its last process is gone, a moment after it was killed."""

REMEDY = "run the node as root or under systemd with Delegate=yes, or: owsgit node init --sandbox none"


@dataclass(frozen=True)
class Limits:
    """What a group of processes may use."""

    memory_bytes: int
    processes: int
    reserved_bytes: int = 0  # mapped but not used by the program: a resource limit counts it, a control group does not


class Group:
    """The control group of one worker."""

    def __init__(self, folders: dict[str, Path], unified: bool) -> None:
        self._folders = folders
        self._unified = unified
        self._peak = str(folders["memory"] / ("memory.peak" if unified else "memory.max_usage_in_bytes"))

    def resource_limits(self) -> list[tuple[int, int]]:
        """Nothing that its processes have to set for themselves."""
        return []

    def limit(self, limits: Limits) -> None:
        """Raises OSError."""
        memory, pids = self._folders["memory"], self._folders["pids"]
        if self._unified:
            (memory / "memory.max").write_text(str(limits.memory_bytes))
            with contextlib.suppress(OSError):  # no swap in this kernel: nothing to limit
                (memory / "memory.swap.max").write_text("0")
            with contextlib.suppress(OSError):
                (memory / "memory.oom.group").write_text("1")
        else:
            (memory / "memory.limit_in_bytes").write_text(str(limits.memory_bytes))
            with contextlib.suppress(OSError):
                (memory / "memory.memsw.limit_in_bytes").write_text(str(limits.memory_bytes))
        (pids / "pids.max").write_text(str(limits.processes))
        self._share_cpu(limits.memory_bytes)

    def _share_cpu(self, memory_bytes: int) -> None:
        """Under contention, CPU time goes by memory, as on Lambda; a host without the controller shares evenly."""
        folder = self._folders.get("cpu")
        if folder is None:
            return
        share = max(2, memory_bytes * CPU_SHARES_PER_GIB >> 30)
        with contextlib.suppress(OSError):
            if self._unified:
                (folder / "cpu.weight").write_text(str(min(10_000, max(1, share * 100 // CPU_SHARES_PER_GIB))))
            else:
                (folder / "cpu.shares").write_text(str(share))

    def add(self, pid: int) -> None:
        for folder in set(self._folders.values()):
            (folder / "cgroup.procs").write_text(str(pid))

    def memory_peak_bytes(self) -> int:
        """The most memory that the group used so far; 0 where the kernel does not tell."""
        try:
            fd = os.open(self._peak, os.O_RDONLY | os.O_CLOEXEC)  # as it is asked for often, without a file object
            try:
                return int(os.read(fd, 32))
            finally:
                os.close(fd)
        except (OSError, ValueError):
            return 0

    def out_of_memory(self) -> bool:
        """Whether the kernel killed a process of the group for want of memory."""
        name = "memory.events" if self._unified else "memory.oom_control"
        try:
            text = (self._folders["memory"] / name).read_text()
        except OSError:
            return False
        return any(line.startswith("oom_kill ") and line.split()[1] != "0" for line in text.splitlines())

    def remove(self) -> None:
        """Kill what is left in the group and remove it. Gone already is fine."""
        deadline = time.monotonic() + _REMOVE_SECONDS_MAX
        for folder in set(self._folders.values()):
            while folder.exists():
                with contextlib.suppress(OSError):
                    for pid in (folder / "cgroup.procs").read_text().split():
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(int(pid), 9)
                with contextlib.suppress(OSError):
                    folder.rmdir()
                if time.monotonic() > deadline:
                    return
                if folder.exists():
                    time.sleep(0.005)


class Hierarchy:
    """The part of the control group hierarchy that this node makes its groups in."""

    def __init__(self, folders: dict[str, Path], unified: bool) -> None:
        self._folders = folders
        self._unified = unified

    @classmethod
    def open(cls, name: str) -> "Hierarchy":
        """The node's own part, made if need be. Raises UnavailableError that says what is missing."""
        unified = (CGROUP_ROOT / "cgroup.controllers").exists()
        folders = _unified(name) if unified else _version_1(name)
        hierarchy = cls(folders, unified)
        hierarchy._sweep()
        return hierarchy

    def create(self, name: str) -> Group:
        """A new group, without limits yet. Raises UnavailableError."""
        folders = {controller: folder / name for controller, folder in self._folders.items()}
        try:
            for folder in set(folders.values()):
                folder.mkdir(exist_ok=True)
            group = Group(folders, self._unified)
        except OSError as error:
            raise UnavailableError(f"a control group cannot be made: {error}", remedy=REMEDY) from None
        return group

    def _sweep(self) -> None:
        """Remove the groups that a killed node left behind, with what still runs in them."""
        names = {child.name for folder in self._folders.values() for child in folder.iterdir() if child.is_dir()}
        for name in names:
            Group({key: folder / name for key, folder in self._folders.items()}, self._unified).remove()

    def remove(self) -> None:
        """Remove the node's part, as the node stops."""
        self._sweep()
        for folder in set(self._folders.values()):
            with contextlib.suppress(OSError):
                folder.rmdir()


def processors() -> float:
    """How many processors this process may use: those of the machine that it may run on, and no more than its control
    groups give it time of (a container's `--cpus`, systemd's CPUQuota)."""
    found = float(len(os.sched_getaffinity(0)))
    unified, first = CGROUP_ROOT / _own_group(""), CGROUP_ROOT / "cpu" / _own_group("cpu")
    for group in (unified, *unified.parents):
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):  # "max", or none
            quota, period = (group / "cpu.max").read_text().split()
            found = min(found, int(quota) / int(period))
    for group in (first, CGROUP_ROOT / "cpu"):
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            if int(quota) > 0:  # -1: as much as there is
                found = min(found, int(quota) / int(period))
    return found


def _own_group(controller: str) -> str:
    """The path of this process's group in the hierarchy of `controller` ('' for the unified one)."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path.lstrip("/")
    return ""


def _version_1(name: str) -> dict[str, Path]:
    folders = {}
    for controller in CONTROLLERS:
        mount = CGROUP_ROOT / controller
        if not mount.is_dir():
            raise UnavailableError(f"the control group controller {controller!r} is not mounted", remedy=REMEDY)
        folders[controller] = _made(mount / _own_group(controller) / name)
    for controller in OPTIONAL_CONTROLLERS:
        mount = CGROUP_ROOT / controller
        with contextlib.suppress(UnavailableError):
            if mount.is_dir():
                folders[controller] = _made(mount / _own_group(controller) / name)
    return folders


def _unified(name: str) -> dict[str, Path]:
    """Version 2: processes live in leaves only, so this process moves into one before it may limit others."""
    own = CGROUP_ROOT / _own_group("")
    if own != CGROUP_ROOT:
        if own.name == "owsgit-node":
            own = own.parent
        else:
            leaf = _made(own / "owsgit-node")
            try:
                (leaf / "cgroup.procs").write_text(str(os.getpid()))
            except OSError as error:
                raise UnavailableError(
                    f"the node cannot move into its own control group: {error}", remedy=REMEDY
                ) from None
    part = _made(own / name)
    for folder in (own, part):
        for controller in CONTROLLERS:
            try:
                (folder / "cgroup.subtree_control").write_text(f"+{controller}")
            except OSError as error:
                raise UnavailableError(
                    f"the controller {controller!r} is not delegated: {error}", remedy=REMEDY
                ) from None
        for controller in OPTIONAL_CONTROLLERS:
            with contextlib.suppress(OSError):
                (folder / "cgroup.subtree_control").write_text(f"+{controller}")
    return dict.fromkeys((*CONTROLLERS, *OPTIONAL_CONTROLLERS), part)


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UnavailableError(f"a control group cannot be made: {error}", remedy=REMEDY) from None
    return folder
