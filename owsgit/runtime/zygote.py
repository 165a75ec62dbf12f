"""The fork server: makes a sandbox for each worker in milliseconds, by forking itself instead of starting anew.

Stand-alone on purpose: it is run by path inside of bubblewrap's outer sandbox, with the standard library alone. There
it has a user namespace of its own, in which it may make namespaces and mounts; the machine's files are under HOST.

The node asks for a worker with one packet (JSON, and descriptors beside it). For each, a process is cloned into new
mount, process, network, IPC and host name namespaces. As their init it lays out a root of its own, leaves all else
behind, gives up every capability for good, puts on the seccomp filter, and forks the worker, which either runs a
program or, for Python, goes on in this very interpreter with all that was imported here.

What is secret of a function (environment, files) never passes through the server, whose memory every worker inherits:
the init process gets it over the worker's own control socket, when the node has put it into its control group.
"""

from __future__ import annotations

import array
import atexit
import base64
import ctypes
import fcntl
import gc
import importlib
import importlib.util
import json
import os
import platform
import resource
import signal
import socket
import struct
import sys
import time
from typing import Any

HOST = "/host"
ROOT = "/run/root"
REQUEST_BYTES_MAX = 128 * 1024
DESCRIPTORS_MAX = 16
OPEN_FILES_MAX = 1024
"""Lambda's limit for file descriptors."""

HELLO, GO = b"hello", b"go"

# linux/mount.h, linux/sched.h, linux/prctl.h
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
SIOCSIFADDR, SIOCSIFFLAGS, IFF_UP = 0x8916, 0x8914, 1

PROC_READ_ONLY = ("bus", "fs", "irq", "sys", "sysrq-trigger")
PROC_HIDDEN = ("acpi", "asound", "kcore", "keys", "kmsg", "latency_stats", "scsi", "timer_list")
"""Parts of /proc that speak of the whole machine, as Docker masks them. Where a node runs as root, the user of its
functions is root outside (without any capability), and the kernel lets root's user write some of these."""

DEVICES = ("full", "null", "random", "urandom", "zero")
SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/localtime", "/etc/ssl/certs", "/etc/alternatives")
LIBRARIES = ("bin", "sbin", "lib", "lib64", "lib32")

PRELOADED = (
    "argparse", "asyncio", "base64", "binascii", "bisect", "calendar", "collections.abc", "concurrent.futures",
    "contextlib", "contextvars", "copy", "csv", "dataclasses", "datetime", "decimal", "difflib", "email", "enum",
    "fractions", "functools", "glob", "gzip", "hashlib", "heapq", "hmac", "html", "http.client", "http.cookies",
    "importlib.metadata", "inspect", "io", "ipaddress", "itertools", "json", "locale", "logging", "math", "mimetypes",
    "numbers", "operator", "pathlib", "pickle", "pprint", "queue", "random", "re", "secrets", "select", "shutil",
    "socket", "ssl", "statistics", "string", "struct", "subprocess", "tempfile", "textwrap", "threading", "time",
    "traceback", "types", "typing", "unicodedata", "urllib.parse", "urllib.request", "uuid", "warnings", "weakref",
    "xml.etree.ElementTree", "zipfile", "zlib", "zoneinfo",
)  # fmt: skip
"""What handlers commonly import of the standard library: there when a worker starts."""

OWN = frozenset(("_ctypes", "array", "base64", "binascii", "ctypes", "fcntl", "platform", "resource"))
"""What only this server needs: a function's module of that name is the one that it gets."""

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


def prctl(option: int, *arguments: Any) -> int:
    padded = [*arguments, 0, 0, 0, 0][:4]
    return int(libc.prctl(option, *(each if isinstance(each, bytes) else ctypes.c_ulong(each) for each in padded)))


def bind(source: str, target: str) -> None:
    mount(source, target, flags=MS_BIND | MS_REC)


def make_place(source: str, target: str) -> None:
    """Something to mount on: a folder, or a file where `source` is one."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    elif not os.path.exists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o444))


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


def read_mounts() -> dict[str, str]:
    """The links among the machine's library folders: `/lib` is `usr/lib` on a merged system."""
    found = {}
    for name in LIBRARIES:
        path = f"{HOST}/{name}"
        if os.path.islink(path):
            found[name] = os.readlink(path)
        elif os.path.isdir(path):
            found[name] = ""
    return found


class Server:
    """Answers the node's requests, one after the other."""

    def __init__(self, requests: socket.socket, seccomp: bytes) -> None:
        self.requests = requests
        self.seccomp = seccomp
        self.libraries = read_mounts()
        self.system_files = [path for path in SYSTEM_FILES if os.path.exists(HOST + path)]

    def serve(self) -> None:
        while True:
            data, ancillary, _, _ = self.requests.recvmsg(REQUEST_BYTES_MAX, socket.CMSG_SPACE(4 * DESCRIPTORS_MAX))
            fds = descriptors(ancillary)
            if not data:
                os._exit(0)  # the node is gone
            try:
                if clone(CLONE_NAMESPACES) == 0:
                    Init(self, json.loads(data), fds).run()
            except Exception as error:
                tell(socket.socket(fileno=os.dup(fds[0])), {"problem": f"{type(error).__name__}: {error}"})
            for fd in fds:
                os.close(fd)


def descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)


def tell(control: socket.socket, message: dict[str, Any], fds: list[int] | None = None) -> None:
    """Tell the node something; it may be gone already."""
    packed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    try:
        control.sendmsg([json.dumps(message).encode()], packed)
    except OSError:
        os._exit(0)


class Init:
    """The first process of a worker's namespaces."""

    def __init__(self, server: Server, request: dict[str, Any], fds: list[int]) -> None:
        self.request = request
        self.server = server
        server.requests.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 500) for fd in fds]  # out of the way of the wanted numbers
        for fd in fds:
            os.close(fd)
        self.control = socket.socket(fileno=high[0])
        self.output, self.passed = high[1], high[2:]

    def run(self) -> None:
        """Never returns."""
        try:
            listeners = self._network()
            tell(self.control, {"hello": True}, [each.fileno() for each in listeners])
            for each in listeners:
                each.close()
            self._lay_out()
            private = self._wait_for_go()
            self._write_files(private["files"])
            self._enter()
            self._give_up_privileges()
            worker = os.fork()
        except BaseException as error:
            tell(self.control, {"problem": str(error)})
            os._exit(1)
        if worker == 0:
            self._become_worker(private["environment"])
        os.close(self.output)
        for fd in self.passed:
            os.close(fd)
        self._reap_until(worker)

    def _network(self) -> list[socket.socket]:
        """Bring up the loopback interface, if it is asked for, and listen on it."""
        wanted = self.request["listen"]
        if not wanted and not self.request["internet"]:
            return []
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))
            for number, address in enumerate(self.request["addresses"]):
                named = struct.pack("16sHH4s8x", f"lo:{number}".encode(), socket.AF_INET, 0, socket.inet_aton(address))
                fcntl.ioctl(any_socket, SIOCSIFADDR, named)
        made = []
        for address, port in wanted:
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address, port))
            listener.listen(64)
            made.append(listener)
        return made

    def _lay_out(self) -> None:
        request = self.request
        mount("none", "/", flags=MS_REC | MS_PRIVATE)
        mount("tmpfs", ROOT, "tmpfs", MS_NOSUID | MS_NODEV, "size=16m,mode=755")
        for name in ("proc", "dev", "tmp", "usr", "etc", "run", "var"):
            os.mkdir(f"{ROOT}/{name}")
        bind(f"{HOST}/usr", f"{ROOT}/usr")
        for name, link in self.server.libraries.items():
            if link:
                os.symlink(link, f"{ROOT}/{name}")
            else:
                os.mkdir(f"{ROOT}/{name}")
                bind(f"{HOST}/{name}", f"{ROOT}/{name}")
        for path in self.server.system_files:
            make_place(HOST + path, ROOT + path)
            bind(HOST + path, ROOT + path)
        for name in DEVICES:
            make_place(f"/dev/{name}", f"{ROOT}/dev/{name}")
            bind(f"/dev/{name}", f"{ROOT}/dev/{name}")
        for name, link in {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}.items():
            os.symlink(link, f"{ROOT}/dev/{name}")
        mount("tmpfs", f"{ROOT}/tmp", "tmpfs", MS_NOSUID | MS_NODEV, f"size={request['tmpBytes']},mode=1777")
        self._lay_out_proc()
        make_place("/var/runtime", f"{ROOT}/var/runtime")
        bind("/var/runtime", f"{ROOT}/var/runtime")
        for path, content in request["texts"].items():
            write(ROOT + path, content.encode())
        for inside, outside in request["mounts"]:
            make_place(HOST + outside, ROOT + inside)
            bind(HOST + outside, ROOT + inside)

    def _lay_out_proc(self) -> None:
        proc, nothing = f"{ROOT}/proc", f"{ROOT}/run/empty"
        mount("proc", proc, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        os.mkdir(nothing)
        for name in PROC_READ_ONLY:
            if os.path.exists(f"{proc}/{name}"):
                bind(f"{proc}/{name}", f"{proc}/{name}")
                locked = MS_NOSUID | MS_NODEV | MS_NOEXEC
                mount("none", f"{proc}/{name}", flags=MS_REMOUNT | MS_BIND | MS_RDONLY | locked)
        for name in PROC_HIDDEN:
            if os.path.isdir(f"{proc}/{name}"):
                bind(nothing, f"{proc}/{name}")
                mount("none", f"{proc}/{name}", flags=MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)
            elif os.path.exists(f"{proc}/{name}"):
                bind("/dev/null", f"{proc}/{name}")

    def _wait_for_go(self) -> dict[str, Any]:
        """Wait until the node has put this process into its control group; what it says then is secret."""
        data, ancillary, _, _ = self.control.recvmsg(16, socket.CMSG_SPACE(4))
        fds = descriptors(ancillary)
        if data != GO or not fds:
            os._exit(1)
        with os.fdopen(fds[0], "rb") as file:
            found: dict[str, Any] = json.loads(file.read())
        return found

    def _write_files(self, files: dict[str, str]) -> None:
        for path, content in files.items():
            write(ROOT + path, base64.b64decode(content))

    def _enter(self) -> None:
        """Make the new root the only one there is."""
        check(libc.sethostname(b"sandbox", 7), "sethostname")
        os.chdir(ROOT)
        check(libc.pivot_root(b".", b"."), "pivot_root")
        check(libc.umount2(b".", MNT_DETACH), "umount")
        mount("none", "/", flags=MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)
        os.chdir(self.request["folder"])
        resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES_MAX, OPEN_FILES_MAX))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def _give_up_privileges(self) -> None:
        check(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL), "ambient capabilities")
        for number in range(CAPABILITIES_MAX + 1):
            if prctl(PR_CAPBSET_DROP, number) < 0:
                break  # the kernel has no more
        header = struct.pack("Ii", CAPABILITY_VERSION_3, 0)
        check(libc.capset(header, bytes(24)), "capset")
        check(prctl(PR_SET_NO_NEW_PRIVS, 1), "no_new_privs")
        program = ctypes.create_string_buffer(self.server.seccomp, len(self.server.seccomp))
        described = struct.pack("HxxxxxxP", len(self.server.seccomp) // 8, ctypes.addressof(program))
        check(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, described), "seccomp")
        check(prctl(PR_SET_DUMPABLE, 0), "dumpable")  # the worker cannot look into its init

    def _become_worker(self, environment: dict[str, str]) -> None:
        """Never returns: runs the program, or goes on as a Python worker."""
        try:
            prctl(PR_SET_DUMPABLE, 1)
            os.setsid()
            null = os.open("/dev/null", os.O_RDONLY)
            os.dup2(null, 0)
            os.close(null)
            os.dup2(self.output, 1)
            os.dup2(self.output, 2)
            os.close(self.output)
            self.control.close()
            for fd, number in zip(self.passed, self.request["numbers"]):  # noqa: B905 - new in Python 3.10
                os.dup2(fd, number, inheritable=True)
                os.close(fd)
            arguments = self.request["arguments"]
            if not self.request["fork"]:
                signal.signal(signal.SIGPIPE, signal.SIG_DFL)
                os.execve(arguments[0], arguments, environment)
            continue_as_worker(arguments, environment, self.request["sdk"])
        except OSError as error:
            os.write(2, f"{self.request['arguments'][0]}: {error.strerror}\n".encode())
            os._exit(127 if isinstance(error, FileNotFoundError) else 126)
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(1)

    def _reap_until(self, worker: int) -> None:
        """Reap what is orphaned, until the worker ends; everything here ends with this process."""
        while True:
            try:
                pid, status = os.waitpid(-1, 0)
            except InterruptedError:
                continue
            if pid == worker:
                tell(self.control, {"status": os.waitstatus_to_exitcode(status)})
                os._exit(0)


def write(path: str, content: bytes) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)
    os.chmod(path, 0o444)


def continue_as_worker(arguments: list[str], environment: dict[str, str], sdk: list[str]) -> None:
    """Be the managed Python runtime, in this interpreter: `arguments` end with the number of its socket."""
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv[:] = ["", arguments[-1]]
    for fd, name in enumerate(("stdin", "stdout", "stderr")):  # as they are now, not as they were for the server
        stream = open(fd, "w" if fd else "r", encoding="utf-8", closefd=False)  # noqa: SIM115 - open as long as it runs
        vars(sys).update({name: stream, f"__{name}__": stream})
    gc.enable()
    worker = sys.modules["python_worker"]
    worker.forget_preloaded(set(sdk))
    try:
        worker.main()
    except SystemExit as error:
        exit_as_interpreter(error.code)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        exit_as_interpreter(1)


def exit_as_interpreter(code: object) -> None:
    """End as Python does for SystemExit. Never returns."""
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0 if code is None else code & 0xFF if isinstance(code, int) else 1)


def main() -> None:
    """Arguments: the descriptors of the requests and of the filter, the worker's script, and what to import."""
    requests = socket.socket(fileno=int(sys.argv[1]))
    with os.fdopen(int(sys.argv[2]), "rb") as file:
        seccomp = file.read()
    sys.path[:] = [entry for entry in sys.path if entry != os.path.dirname(os.path.abspath(__file__))]
    script, packages = sys.argv[3], sys.argv[4:]
    if script:
        spec = importlib.util.spec_from_file_location("python_worker", script)
        assert spec is not None and spec.loader is not None
        worker = sys.modules["python_worker"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(worker)
        worker.__dict__["NEEDED"] -= OWN
        for name in (*PRELOADED, *packages):
            try:
                importlib.import_module(name)
            except ImportError:
                continue  # an interpreter without it: then its workers have to do without, too
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody here waits for an init: the kernel clears it away
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.collect()
    gc.disable()
    gc.freeze()
    null = os.open("/dev/null", os.O_WRONLY)
    os.dup2(null, 2)  # nobody reads it from now on
    os.close(null)
    requests.send(HELLO)
    Server(requests, seccomp).serve()


if __name__ == "__main__":
    main()
