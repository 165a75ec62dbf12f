"""The system calls that no function may make, as a seccomp filter for bubblewrap.

What a function needs is allowed; what reaches into the kernel beyond a process's own business is answered with EPERM:
mounts, modules, other processes, keyrings, BPF, performance counters, raw clocks, io_uring (which bypasses filters),
and sockets of families that no network namespace holds, as AF_VSOCK, which leads to the hypervisor.
"""

import errno
import socket
import tempfile
from typing import IO

import pyseccomp

REFUSED = (
    "acct", "add_key", "adjtimex", "bpf", "chroot", "clock_adjtime", "clock_settime", "create_module", "delete_module",
    "fanotify_init", "finit_module", "fsconfig", "fsmount", "fsopen", "fspick", "get_kernel_syms", "init_module",
    "io_uring_enter", "io_uring_register", "io_uring_setup", "ioperm", "iopl", "kcmp", "kexec_file_load", "kexec_load",
    "keyctl", "lookup_dcookie", "mount", "mount_setattr", "move_mount", "move_pages", "name_to_handle_at", "nfsservctl",
    "open_by_handle_at", "open_tree", "perf_event_open", "personality", "pidfd_getfd", "pivot_root", "process_madvise",
    "process_vm_readv", "process_vm_writev", "ptrace", "query_module", "quotactl", "quotactl_fd", "reboot",
    "request_key", "setdomainname", "sethostname", "setns", "settimeofday", "swapoff", "swapon", "sysfs", "syslog",
    "umount", "umount2", "unshare", "userfaultfd", "uselib", "ustat", "vhangup",
)  # fmt: skip
FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)
"""Of sockets, those that a function may make; netlink is how the addresses of interfaces are asked for."""

CLONE_NEWUSER = 0x10000000
TIOCSTI = 0x5412


def filter_file() -> IO[bytes]:
    """An open file with the compiled filter, to hand to `bwrap --seccomp FD`."""
    refuse = pyseccomp.ERRNO(errno.EPERM)
    rules = pyseccomp.SyscallFilter(defaction=pyseccomp.ALLOW)
    for name in REFUSED:
        try:
            rules.add_rule(refuse, name)
        except (RuntimeError, ValueError, OSError):  # this architecture or libseccomp has no such call
            continue
    rules.add_rule(refuse, "clone", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, CLONE_NEWUSER, CLONE_NEWUSER))
    rules.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "clone3")  # its flags cannot be looked at; libc falls back to clone
    rules.add_rule(refuse, "ioctl", pyseccomp.Arg(1, pyseccomp.MASKED_EQ, 0xFFFFFFFF, TIOCSTI))
    for family in set(range(max(FAMILIES))) - set(FAMILIES):
        rules.add_rule(refuse, "socket", pyseccomp.Arg(0, pyseccomp.EQ, family))
    rules.add_rule(refuse, "socket", pyseccomp.Arg(0, pyseccomp.GT, max(FAMILIES)))
    file = tempfile.TemporaryFile()  # noqa: SIM115 - kept open for as long as the node runs
    rules.export_bpf(file)
    file.seek(0)
    return file
