"""The fork server: makes a sandbox for each worker in milliseconds, by forking itself instead of starting anew.

Stand-alone on purpose: it is run by path inside of bubblewrap's outer sandbox, with the standard library alone. There
it has a user namespace of its own, in which it may make namespaces and mounts; the machine's files are under HOST.

The node asks for one sandbox after the other, ahead of need. For each, a process is cloned into new mount, process,
network, IPC and host name namespaces. As their init it lays out a root of its own, and forks the process that becomes
the worker, which gives up every capability for good and puts on the seccomp filter. Then both wait.

When there is a function to run, the init process gets the request over its own control socket: it mounts the code,
leaves the machine's files behind, gives up its capabilities as well, and lets the worker go on: it runs a program, or,
for Python, becomes the managed runtime in this very interpreter, with all that was imported here.

What is secret of a function (environment, files) never passes through the server, whose memory every worker inherits.
"""

from __future__ import annotations

import array
import atexit
import base64
import fcntl
import gc
import importlib
import importlib.util
import json
import os
import resource
import signal
import socket
import sys
import time
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import kernel
from kernel import MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_PRIVATE, MS_RDONLY, MS_REC, MS_REMOUNT

REQUEST_BYTES_MAX = 128 * 1024
DESCRIPTORS_MAX = 32
OPEN_FILES_MAX = 1024
"""Lambda's limit for file descriptors."""

USER_LIMITS = ((resource.RLIMIT_SIGPENDING, 1024), (resource.RLIMIT_MSGQUEUE, 64 * 1024))
"""What the kernel counts for all processes of a user together, who is the node's own outside: of queued signals and of
bytes in message queues a function can take this much, and leaves the rest to the machine."""

USER_SYSCTLS = {"max_inotify_instances": 32, "max_inotify_watches": 8192}
"""The same, for all functions of a fork server together; a user has 128 instances on the whole machine."""

ROOT = "/run/root"
ROOT_OPTIONS = "size=16m,mode=755"  # room for the files of secrets
RUNTIME = "/var/runtime"
FAST_JSON = "/var/json"  # where the outer sandbox has orjson, which workers do not see

PROC_READ_ONLY = ("bus", "fs", "irq", "sys", "sysrq-trigger")
PROC_HIDDEN = (
    "acpi", "asound", "kcore", "keys", "kmsg", "kpagecgroup", "kpagecount", "kpageflags", "latency_stats",
    "pagetypeinfo", "scsi", "slabinfo", "timer_list", "vmallocinfo",
)  # fmt: skip
"""Parts of /proc that speak of the whole machine, as Docker masks them. Where a node runs as root, the user of its
functions is root outside (without any capability), and the kernel lets root's user read or write some of these."""

DEVICES = ("full", "null", "random", "urandom", "zero")
DEVICE_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}

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

WARM_SERVICES = ("dynamodb", "events", "lambda", "s3", "secretsmanager", "sns", "sqs", "sts")

OWN = frozenset(
    ("_ctypes", "array", "atexit", "base64", "binascii", "ctypes", "fcntl", "kernel", "platform", "resource", "signal")
)
"""What only this server needs: a function's module of that name is the one that it gets."""


class Server:
    """Makes a sandbox for each packet from the node; the node's end of the control socket comes with it."""

    def __init__(self, requests: socket.socket, setup: dict[str, Any], seccomp: bytes) -> None:
        self.requests = requests
        self.setup = setup
        self.seccomp = seccomp

    def serve(self) -> None:
        while True:
            data, fds = receive(self.requests)
            if not data:
                os._exit(0)  # the node is gone
            try:
                if kernel.clone(kernel.CLONE_NAMESPACES) == 0:
                    self.requests.close()
                    Init(self, move_up(fds)[0]).run()
            except Exception as error:
                tell(socket.socket(fileno=os.dup(fds[0])), {"problem": f"{type(error).__name__}: {error}"})
            for fd in fds:
                os.close(fd)


class Init:
    """The first process of a sandbox's namespaces."""

    def __init__(self, server: Server, control: int) -> None:
        self.setup = server.setup
        self.seccomp = server.seccomp
        self.control = socket.socket(fileno=control)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    def run(self) -> None:
        """Never returns."""
        try:
            tell(self.control, {"hello": True})
            if not receive(self.control)[0]:  # now it is in its control group
                os._exit(0)
            resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES_MAX, OPEN_FILES_MAX))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            for limit, most in USER_LIMITS:
                _, had = resource.getrlimit(limit)
                lowered = most if had == resource.RLIM_INFINITY else min(most, had)
                resource.setrlimit(limit, (lowered, lowered))
            kernel.set_host_name(b"sandbox")
            self._lay_out()
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            worker = os.fork()
            if worker == 0:
                ours.close()
                self.control.close()
                Worker(theirs, self.seccomp).run()
            theirs.close()
            tell(self.control, {"ready": True})
            self._fill_in(ours)
            ours.close()
        except BaseException as error:
            tell(self.control, {"problem": str(error) or type(error).__name__})
            os._exit(1)
        self._reap_until(worker)

    def _lay_out(self) -> None:
        """All that is the same for every worker."""
        kernel.mount("none", "/", flags=MS_REC | MS_PRIVATE)
        kernel.mount("tmpfs", ROOT, "tmpfs", MS_NOSUID | MS_NODEV, ROOT_OPTIONS)
        for name in ("proc", "dev", "tmp", "usr", "etc", "run", "var"):
            os.mkdir(f"{ROOT}/{name}")
        for name, link in self.setup["links"].items():
            os.symlink(link, f"{ROOT}/{name}")
        for path in self.setup["system"]:
            place(self.setup["host"] + path, ROOT + path)
        place(RUNTIME, ROOT + RUNTIME)
        for name in DEVICES:
            place(f"/dev/{name}", f"{ROOT}/dev/{name}")
        for name, link in DEVICE_LINKS.items():
            os.symlink(link, f"{ROOT}/dev/{name}")
        for path, content in self.setup["texts"].items():
            write(ROOT + path, content.encode())
        self._lay_out_proc()

    def _lay_out_proc(self) -> None:
        proc, empty = f"{ROOT}/proc", f"{ROOT}/run/empty"
        harmless = MS_NOSUID | MS_NODEV | MS_NOEXEC
        kernel.mount("proc", proc, "proc", harmless)
        os.mkdir(empty)
        for name in PROC_READ_ONLY:
            if os.path.exists(f"{proc}/{name}"):
                kernel.bind(f"{proc}/{name}", f"{proc}/{name}")
                kernel.mount("none", f"{proc}/{name}", flags=MS_REMOUNT | MS_BIND | MS_RDONLY | harmless)
        for name in PROC_HIDDEN:
            if os.path.isdir(f"{proc}/{name}"):
                kernel.bind(empty, f"{proc}/{name}")
                kernel.mount("none", f"{proc}/{name}", flags=MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)
            elif os.path.exists(f"{proc}/{name}"):
                kernel.bind("/dev/null", f"{proc}/{name}")

    def _fill_in(self, worker: socket.socket) -> None:
        """Wait for the function, and make the sandbox its own. The descriptors are its environment and files, its
        output, and what it keeps open."""
        data, fds = receive(self.control)
        if not data:
            os._exit(0)  # the node has no need of it
        request = json.loads(data)
        if request["listen"] or request["internet"]:
            self._listen(request)
        files = read_private(fds[0])["files"]
        kernel.mount("tmpfs", f"{ROOT}/tmp", "tmpfs", MS_NOSUID | MS_NODEV, f"size={request['tmpBytes']},mode=1777")
        for path, content in request["texts"].items():
            write(ROOT + path, content.encode())
        for path, content in files.items():
            write(ROOT + path, base64.b64decode(content))
        for inside, outside in request["mounts"]:
            place(self.setup["host"] + outside, ROOT + inside)
        kernel.change_root(ROOT)
        kernel.mount("none", "/", flags=MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)
        kernel.give_up_privileges(self.seccomp)
        kernel.set_dumpable(False)  # the worker cannot look into its init
        hand_on(worker, data, fds)
        for fd in fds:
            os.close(fd)

    def _listen(self, request: dict[str, Any]) -> None:
        kernel.bring_up_loopback(request["addresses"])
        made = []
        for address, port in request["listen"]:
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address, port))
            listener.listen(64)
            made.append(listener)
        tell(self.control, {"listening": True}, [each.fileno() for each in made])
        for each in made:
            each.close()
        if request["internet"]:
            data, _ = receive(self.control)  # once the interface is there
            for network in json.loads(data)["reject"]:
                kernel.reject_network(network)

    def _reap_until(self, worker: int) -> None:
        """Reap what is orphaned, until the worker ends; everything here ends with this process. Never returns."""
        while True:
            try:
                pid, status = os.waitpid(-1, 0)
            except InterruptedError:
                continue
            if pid == worker:
                tell(self.control, {"status": os.waitstatus_to_exitcode(status)})
                os._exit(0)


class Worker:
    """The process that becomes the worker. It never has a privilege while it knows of a function."""

    def __init__(self, init: socket.socket, seccomp: bytes) -> None:
        self.init = init
        self.seccomp = seccomp

    def run(self) -> None:
        """Never returns."""
        try:
            kernel.give_up_privileges(self.seccomp)
            os.setsid()
            null = os.open("/dev/null", os.O_RDONLY)
            os.dup2(null, 0)
            os.close(null)
            data, fds = receive(self.init)
            if not data:
                os._exit(0)
            request = json.loads(data)
            self.init.close()
            environment = read_private(fds[0])["environment"]
            os.close(fds[0])
            self._take(fds[1:], request["numbers"])
            for limit, value in request["rlimits"]:
                resource.setrlimit(limit, (value, value))
            self._become(request, environment)
        except OSError as error:
            self._fail(127 if isinstance(error, FileNotFoundError) else 126, f"{error.filename}: {error.strerror}")
        except BaseException as error:
            self._fail(1, f"{type(error).__name__}: {error}")

    @staticmethod
    def _take(fds: list[int], numbers: list[int]) -> None:
        """Put the descriptors where they are wanted: the output first."""
        output, *passed = move_up(fds)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        for fd, number in zip(passed, numbers):  # noqa: B905 - new in Python 3.10
            os.dup2(fd, number, inheritable=True)
            os.close(fd)

    @staticmethod
    def _become(request: dict[str, Any], environment: dict[str, str]) -> None:
        os.chdir(request["folder"])
        arguments = request["arguments"]
        if request["fork"]:
            continue_as_worker(arguments, environment)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.execve(arguments[0], arguments, environment)

    @staticmethod
    def _fail(status: int, why: str) -> None:
        os.write(2, f"{why}\n".encode())
        os._exit(status)


def receive(source: socket.socket) -> tuple[bytes, list[int]]:
    """A packet and the descriptors beside it; empty when the other end is closed."""
    data, ancillary, _, _ = source.recvmsg(REQUEST_BYTES_MAX, socket.CMSG_SPACE(4 * DESCRIPTORS_MAX))
    fds = array.array("i")
    for level, kind, packed in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(packed[: len(packed) - len(packed) % fds.itemsize])
    return data, list(fds)


def read_private(fd: int) -> dict[str, Any]:
    """What only this sandbox may know; read without moving, as init and worker share the descriptor."""
    found: dict[str, Any] = json.loads(os.pread(fd, os.fstat(fd).st_size, 0))
    return found


def hand_on(target: socket.socket, data: bytes, fds: list[int]) -> None:
    target.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])


def tell(control: socket.socket, message: dict[str, Any], fds: list[int] | None = None) -> None:
    """Tell the node something; without a node there is no more to do."""
    try:
        hand_on(control, json.dumps(message).encode(), fds or [])
    except OSError:
        os._exit(0)


def move_up(fds: list[int]) -> list[int]:
    """The same descriptors, out of the way of the numbers that a worker wants."""
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, OPEN_FILES_MAX // 2) for fd in fds]
    for fd in fds:
        os.close(fd)
    return moved


def place(source: str, target: str) -> None:
    """Mount a file or a folder where nothing is yet, or over a folder."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    elif not os.path.exists(target):
        write(target, b"")
    kernel.bind(source, target)


def write(path: str, content: bytes) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)
    os.chmod(path, 0o444)


def continue_as_worker(arguments: list[str], environment: dict[str, str]) -> None:
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
    worker.__dict__["AHEAD"].give_way()
    try:
        worker.main()
    except SystemExit as error:
        exit_as_interpreter(error.code)
    except KeyboardInterrupt:
        sys.excepthook(*sys.exc_info())
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
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


def limit_user() -> None:
    """Limit what this user namespace takes of what its user has on the machine."""
    for name, value in USER_SYSCTLS.items():
        try:
            with open(f"/proc/sys/user/{name}", "w") as file:
                file.write(str(value))
        except OSError:
            continue  # a kernel that does not count it


class Missed:
    """Stands last among the finders: the names of the modules that were looked for, and are not there."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if path is None:
            self.names.add(name)


MISSED = Missed()


def preload(packages: list[str]) -> None:
    """Import the managed runtime, and what functions commonly import."""
    spec = importlib.util.spec_from_file_location("python_worker", f"{RUNTIME}/python_worker.py")
    assert spec is not None and spec.loader is not None
    worker = sys.modules["python_worker"] = importlib.util.module_from_spec(spec)
    sys.path.insert(0, FAST_JSON)
    spec.loader.exec_module(worker)
    sys.path.remove(FAST_JSON)
    for name in [each for each in sys.modules if each.partition(".")[0] == "orjson"]:
        del sys.modules[name]  # the runtime's own, and no function's
    worker.__dict__["NEEDED"] -= OWN
    sys.meta_path.append(MISSED)
    for name in (*PRELOADED, *packages):
        try:
            importlib.import_module(name)
        except ImportError:
            continue  # an interpreter without it: then its workers have to do without, too
    sys.meta_path.remove(MISSED)


def warm_sdk() -> None:
    """Have boto3's default session read what every client needs: its models and rules, some 100 ms a worker."""
    boto3 = sys.modules.get("boto3")
    if boto3 is None:
        return
    boto3.setup_default_session()
    unused: dict[str, str] = {"region_name": "us-east-1", "aws_access_key_id": "-", "aws_secret_access_key": "-"}
    for service in WARM_SERVICES:
        boto3.client(service, **unused)
    boto3.resource("dynamodb", **unused)
    boto3.resource("s3", **unused)
    boto3.DEFAULT_SESSION._session._config = None  # a function may bring a file of its own


def main() -> None:
    """Arguments: the descriptors of the requests and of the seccomp filter. The first request is the setup."""
    requests = socket.socket(fileno=int(sys.argv[1]))
    with os.fdopen(int(sys.argv[2]), "rb") as file:
        seccomp = file.read()
    data, _ = receive(requests)
    setup = json.loads(data)
    preload(setup["packages"])
    warm_sdk()
    worker = sys.modules["python_worker"].__dict__
    worker["AHEAD"] = worker["Ahead"](set(setup["sdk"]), MISSED.names)
    sys.path[:] = [entry for entry in sys.path if entry != RUNTIME]
    limit_user()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody here waits for an init: the kernel clears it away
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    null = os.open("/dev/null", os.O_WRONLY)
    os.dup2(null, 2)  # nobody reads it from now on
    os.close(null)
    gc.collect()
    gc.disable()
    gc.freeze()
    tell(requests, {"ready": True})
    Server(requests, setup, seccomp).serve()


if __name__ == "__main__":
    main()
