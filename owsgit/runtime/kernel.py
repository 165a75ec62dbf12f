"""The kernel's own calls that a sandbox is made of, which Python has no functions for: mounts, namespaces, privileges.

Stand-alone on purpose: used inside of bubblewrap's outer sandbox by zygote.py, with the standard library alone.
The numbers are those of linux/mount.h, linux/sched.h, linux/prctl.h and linux/capability.h.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import signal
import socket
import struct
from typing import Any

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = (
    1, 2, 4, 8, 32, 4096, 16384, 1 << 18,
)  # fmt: skip
MNT_DETACH = 2
CLONE_NAMESPACES = 0x00020000 | 0x04000000 | 0x08000000 | 0x20000000 | 0x40000000  # mount, UTS, IPC, PID, network
PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 4, 22, 24, 38, 47
PR_CAP_AMBIENT_CLEAR_ALL, SECCOMP_MODE_FILTER = 4, 2
CAPABILITIES_MAX = 63
CAPABILITY_VERSION_3 = 0x20080522
SYS_CLONE = {"x86_64": 56, "aarch64": 220, "riscv64": 220}.get(platform.machine(), 120)
SIOCSIFADDR, SIOCSIFFLAGS, SIOCADDRT, IFF_UP, RTF_UP, RTF_REJECT = 0x8916, 0x8914, 0x890B, 1, 1, 0x200
SECCOMP_INSTRUCTION_BYTES = 8

libc = ctypes.CDLL(None, use_errno=True)
locked_libc = ctypes.PyDLL(None, use_errno=True)  # keeps the interpreter's lock: a clone needs it on both sides


class SetupError(Exception):
    """The sandbox cannot be made; the node is told why."""


def check(result: int, what: str) -> int:
    if result < 0:
        raise SetupError(f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    words = (source.encode(), target.encode(), kind.encode() or None)
    check(libc.mount(*words, ctypes.c_ulong(flags), options.encode() or None), f"mount {source} on {target}")


def bind(source: str, target: str) -> None:
    mount(source, target, flags=MS_BIND | MS_REC)


def change_root(folder: str) -> None:
    """Make `folder`, a mount, the root of every process of this mount namespace, and the old root unreachable."""
    os.chdir(folder)
    check(libc.pivot_root(b".", b"."), "pivot_root")
    check(libc.umount2(b".", MNT_DETACH), "umount")


def prctl(option: int, *arguments: Any) -> int:
    padded = [*arguments, 0, 0, 0, 0][:4]
    return int(libc.prctl(option, *(each if isinstance(each, bytes) else ctypes.c_ulong(each) for each in padded)))


def clone(flags: int) -> int:
    """fork() into new namespaces; the interpreter's own hooks around a fork are called as os.fork() does."""
    python = ctypes.pythonapi
    python.PyOS_BeforeFork()
    pid = int(locked_libc.syscall(SYS_CLONE, flags | signal.SIGCHLD, 0, 0, 0, 0))
    if pid == 0:
        python.PyOS_AfterFork_Child()
    else:
        python.PyOS_AfterFork_Parent()
    return check(pid, "clone")


def set_host_name(name: bytes) -> None:
    check(libc.sethostname(name, len(name)), "sethostname")


def set_dumpable(yes: bool) -> None:
    """Whether processes of the same user may look into this one."""
    check(prctl(PR_SET_DUMPABLE, int(yes)), "dumpable")


def give_up_privileges(seccomp: bytes) -> None:
    """Have no capability, gain none ever again, and make no call that the filter refuses."""
    check(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL), "ambient capabilities")
    for number in range(CAPABILITIES_MAX + 1):
        if prctl(PR_CAPBSET_DROP, number) < 0:
            break  # the kernel has no more
    check(libc.capset(struct.pack("Ii", CAPABILITY_VERSION_3, 0), bytes(24)), "capset")
    check(prctl(PR_SET_NO_NEW_PRIVS, 1), "no_new_privs")
    program = ctypes.create_string_buffer(seccomp, len(seccomp))
    described = struct.pack("HxxxxxxP", len(seccomp) // SECCOMP_INSTRUCTION_BYTES, ctypes.addressof(program))
    check(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, described), "seccomp")


def bring_up_loopback(addresses: list[str]) -> None:
    """Bring up this network namespace's loopback interface, with further IPv4 `addresses`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))
        for number, address in enumerate(addresses):
            named = struct.pack("16sHH4s8x", f"lo:{number}".encode(), socket.AF_INET, 0, socket.inet_aton(address))
            fcntl.ioctl(any_socket, SIOCSIFADDR, named)


def reject_network(network: str) -> None:
    """Have connections to an IPv4 network, such as 10.0.0.0/8, refused by this network namespace's routes."""
    address, _, bits = network.partition("/")
    mask = (0xFFFFFFFF << (32 - int(bits))) & 0xFFFFFFFF
    named = [struct.pack("HH4s8x", socket.AF_INET, 0, each) for each in (socket.inet_aton(address), bytes(4))]
    masked = struct.pack("HH4s8x", socket.AF_INET, 0, struct.pack("!I", mask))
    entry = struct.pack("L16s16s16sHhLPhPLLH", 0, *named, masked, RTF_UP | RTF_REJECT, 0, 0, 0, 0, 0, 0, 0, 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCADDRT, entry)
