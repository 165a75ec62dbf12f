"""`owsgit doctor`: what is wrong, and what to do about it."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from owsgit.cli import node as node_command
from owsgit.cli import output, remote, signing
from owsgit.cli.output import Result, Table
from owsgit.ledger import verify
from owsgit.ledger.repository import GIT_VERSION_MIN, Clone, run, version
from owsgit.model import keys
from owsgit.model.errors import OwsgitError, UnavailableError
from owsgit.model.state import State
from owsgit.node import compiled
from owsgit.node.home import Home
from owsgit.runtime import bubblewrap
from owsgit.runtime.cgroup import Hierarchy
from owsgit.services import KINDS

CLOCK_SECONDS_MAX = 5.0
"""Beyond this, signatures of requests and the order of log lines begin to suffer."""

OK, WARNING, FAIL = "ok", "warning", "FAIL"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    verdict: str
    found: str
    remedy: str = ""


@output.command("doctor")
@node_command.home_option
def command(home: Path) -> Result:
    """Check this machine, this clone and its nodes; say what to do about what is wrong. Exit code 1 if anything is."""
    checks = [*_machine(), *_own_node(Home(home)), *_clone()]
    failed = any(check.verdict == FAIL for check in checks)
    rows = [
        [check.verdict, check.name, check.found + (f"; remedy: {check.remedy}" if check.remedy else "")]
        for check in checks
    ]
    data = [{"check": c.name, "verdict": c.verdict.lower(), "found": c.found, "remedy": c.remedy} for c in checks]
    return Result(data, Table(("", "CHECK", "FOUND"), rows), int(failed))


def _attempt(name: str, look: Callable[[], str], severity: str = FAIL) -> Check:
    """The check `name`, which is ok unless `look` raises."""
    try:
        return Check(name, OK, look())
    except OwsgitError as error:
        problem = error.problems[0]
        return Check(name, severity, str(problem).replace("\n", " "), problem.remedy)


def _machine() -> Iterator[Check]:
    yield Check("python", OK, sys.version.split()[0])
    yield _attempt("git", _git)
    yield _attempt("ssh", lambda: _program("ssh", "openssh-client"))
    yield _attempt("ssh-keygen", lambda: _program("ssh-keygen", "openssh-client"))
    yield _attempt("signing key", _signing_key)
    yield _attempt("request path", _compiled)
    yield _attempt("sandbox", bubblewrap.probe, WARNING)
    yield _attempt("control groups", _control_groups, WARNING)
    yield _attempt("disk", _disk, WARNING)


def _program(name: str, package: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise UnavailableError(f"{name} is not installed", remedy=f"apt-get install {package}")
    return path


def _git() -> str:
    _program("git", "git")
    numbers = version()
    found = ".".join(map(str, numbers))
    if numbers < GIT_VERSION_MIN:
        raise UnavailableError(f"git {found} is too old to sign with SSH keys", remedy="install git 2.34 or newer")
    return found


def _signing_key() -> str:
    inside = subprocess.run(["git", "rev-parse", "--git-dir"], capture_output=True, check=False).returncode == 0
    key = signing.discover(Path() if inside else None, create=False)
    return f"{key.format}, {key.found}"


def _compiled() -> str:
    if count := compiled.check():
        return f"{count} modules are compiled"
    return "interpreted; in a checkout, make setup compiles it where there is a C compiler"


def _control_groups() -> str:
    Hierarchy.open(f"owsgit-doctor-{os.getpid()}").remove()
    return "memory and processes can be limited"


def _disk() -> str:
    free = shutil.disk_usage(Path.home()).free
    if free < 1 << 30:
        raise UnavailableError(
            f"{free >> 20} MiB are free in {Path.home()}", remedy="make room: a full node cannot take pushes"
        )
    return f"{free >> 30} GiB free"


def _own_node(home: Home) -> Iterator[Check]:
    """The node of this machine, where there is one."""
    if not home.settings_file.exists():
        return
    try:
        settings = home.settings()
        with home.lock():
            yield Check("node", WARNING, f"{settings.name} in {home.folder} is not running", "owsgit node run")
            yield _attempt(f"port {settings.ssh_port}", lambda: _port(settings.listen, settings.ssh_port))
    except UnavailableError:
        yield Check("node", OK, f"running in {home.folder}")
    except OwsgitError as error:
        yield Check("node", FAIL, str(error))


def _port(address: str, port: int) -> str:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((address, port))
        except OSError as error:
            raise UnavailableError(
                f"{address}:{port}: {error.strerror}", remedy="stop the program that has it: ss -ltnp"
            ) from None
    return "free"


def _clone() -> Iterator[Check]:
    try:
        clone = Clone(Path())
    except OwsgitError:
        yield Check("infra repository", WARNING, "the current folder is in none", "run this in your infra repository")
        return
    head = clone.head()
    if head is None:
        yield Check("infra repository", WARNING, f"{clone.folder} has no commit yet", "owsgit init")
        return
    state: list[State] = []

    def ledger() -> str:
        state.append(verify.load(clone.objects(), KINDS, clone.genesis(head), head).state)
        return f"{state[0].project.name} ({state[0].project_id}) at {head[:10]}"

    yield _attempt("infra repository", ledger)
    if state:
        yield _attempt("your key", lambda: _known_key(clone, state[0]))
        seen: set[str] = set()
        for name in run(clone.folder, "remote").split():
            url = run(clone.folder, "remote", "get-url", name)
            if url.startswith("ssh://") and url not in seen:  # others are forges, or repositories with the hook alone
                seen.add(url)
                yield from _reach(clone, name)


def _known_key(clone: Clone, state: State) -> str:
    key = signing.discover(clone.folder, create=False)
    holder = state.holder("key", keys.identity(key.public))
    if holder is None:
        raise UnavailableError(
            "the key that you sign with is no user's of this project", remedy="have it added to users/<you>.json"
        )
    return f"you are {holder.name}{', a root' if state.is_root(holder.name) else ''}"


def _reach(clone: Clone, name: str) -> Iterator[Check]:
    try:
        status = json.loads(remote.find(clone, name).call("status"))
    except OwsgitError as error:
        remedy = "start it (owsgit node run), or see whether your key is in its ledger"
        yield Check(f"node {name}", FAIL, error.problems[0].message.replace("\n", " "), remedy)
        return
    drift = abs((datetime.fromisoformat(status["time"]) - datetime.now(UTC)).total_seconds())
    yield Check(
        f"node {name}",
        OK,
        f"{status['node']['name']}, owsgit {status['node']['version']}, head {(status['head'] or 'none')[:10]}",
    )
    verdict = OK if drift <= CLOCK_SECONDS_MAX else WARNING
    yield Check(
        f"clock of {name}", verdict, f"{drift:.1f} s apart", "" if verdict == OK else "run an NTP client on both"
    )
