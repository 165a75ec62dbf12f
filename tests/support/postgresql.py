"""A real PostgreSQL server of the system's package, on a socket in a private folder."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

USER = "postgres"
"""Whom Debian's package makes. The server refuses to run as root."""
START_SECONDS_MAX = 60


def programs() -> Path:
    """The newest version's folder."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    assert found, "PostgreSQL is missing: make tested"
    return found[-1].parent


class Server:
    def __init__(self, *, fsync: bool = False) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="owsgit-pg-"))
        self._as = {"user": USER, "group": USER, "extra_groups": []} if os.getuid() == 0 else {}
        if self._as:
            entry = pwd.getpwnam(USER)
            os.chown(self.folder, entry.pw_uid, entry.pw_gid)
        self._fsync = fsync
        self.process: subprocess.Popen[bytes] | None = None
        done = subprocess.run(
            [programs() / "initdb", "--pgdata", self.folder / "data", "--username", "owsgit", "--auth", "trust", "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync"],
            capture_output=True, cwd="/", **self._as,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    @property
    def address(self) -> str:
        return f"postgresql://owsgit@/postgres?host={self.folder}"

    def start(self) -> None:
        """Return when it can be connected to."""
        settings = {
            "listen_addresses": "", "unix_socket_directories": str(self.folder), "fsync": "on" if self._fsync else "off",
            "shared_buffers": "32MB", "max_connections": "80", "logging_collector": "off", "deadlock_timeout": "100ms",
        }  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [programs() / "postgres", "-D", self.folder / "data", *(f"--{name}={value}" for name, value in settings.items())],
                stdout=log, stderr=log, cwd="/", **self._as,
            )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS_MAX
        while subprocess.run([programs() / "pg_isready", "-q", "-h", self.folder]).returncode:
            assert self.process.poll() is None and time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.02)

    def stop(self) -> None:
        """Connections are cut off."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(START_SECONDS_MAX)
            self.process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def end(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT)  # at once
            self.process.wait(START_SECONDS_MAX)
        shutil.rmtree(self.folder)
