"""A Docker engine of the tests' own, and images for it: nothing is pulled, nothing of the machine's own engine is used."""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import docker

READY_SECONDS_MAX = 60.0


class EngineError(Exception):
    """The engine does not run here."""


class DockerEngine:
    """A `dockerd` with folders of its own. It changes neither the machine's firewall nor its routes."""

    def __init__(self, *, bridge: bool = False) -> None:
        """With `bridge`, containers have Docker's usual network if they ask for no other."""
        self._bridge = bridge
        self._bridge_is_ours = bridge and not Path("/sys/class/net/docker0").exists()
        if os.geteuid() != 0:
            raise EngineError("dockerd is started by root only")
        if shutil.which("dockerd") is None:
            raise EngineError("dockerd is missing: make system installs it")
        self.folder = Path(tempfile.mkdtemp(prefix="ows-docker-", dir="/tmp"))  # short: a socket's path has 107 bytes
        self.host = f"unix://{self.folder}/s"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it, or start it again. Raises EngineError with the end of its log."""
        folder = self.folder
        with (folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    "dockerd", "--host", self.host, "--data-root", str(folder / "data"), "--exec-root", str(folder / "run"),
                    "--pidfile", str(folder / "pid"), *([] if self._bridge else ["--bridge", "none"]), "--iptables=false", "--ip6tables=false",
                    "--ip-forward=false", "--shutdown-timeout", "1", "--config-file", str(folder / "daemon.json"),
                ],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        (folder / "daemon.json").write_text("{}")
        deadline = time.monotonic() + READY_SECONDS_MAX
        while True:
            with contextlib.suppress(docker.errors.DockerException, OSError):
                self.api = docker.APIClient(base_url=self.host, version="auto", timeout=60)
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = (folder / "log").read_text(errors="replace")[-3000:]
                self.close()
                raise EngineError(f"dockerd does not start here:\n{said}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop it as its service manager would: its containers end."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def kill(self) -> None:
        """Kill the engine and its containerd; containers run on."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self._end_left_over(b"containerd\0")
            (self.folder / "run/containerd/containerd.pid").unlink(missing_ok=True)  # else a zombie of it is waited for

    def image(self, files: Mapping[str, bytes | Path], entry_point: Sequence[str], *changes: str) -> str:
        """Import an image of `files` by their paths in it, all of them executable; its id."""
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as archive:
            for name, given in files.items():
                content = given if isinstance(given, bytes) else given.read_bytes()
                entry = tarfile.TarInfo(name.lstrip("/"))
                entry.size, entry.mode = len(content), 0o755
                archive.addfile(entry, io.BytesIO(content))
        quoted = ", ".join(f'"{word}"' for word in entry_point)
        said = self.api.import_image_from_data(file.getvalue(), changes=[f"ENTRYPOINT [{quoted}]", *changes])
        return str(json.loads(said.strip().splitlines()[-1])["status"])

    def close(self) -> None:
        """Stop everything, and leave nothing behind."""
        with contextlib.suppress(Exception):
            for container in self.api.containers(all=True):
                self.api.remove_container(container["Id"], force=True, v=True)
        self.stop()
        self._end_left_over()
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for mount in sorted((each for each in mounts if each.startswith(f"{self.folder}/")), reverse=True):
            subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)
        if self._bridge_is_ours:
            subprocess.run(["ip", "link", "delete", "docker0"], check=False, capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end_left_over(self, program: bytes = b"") -> None:
        """Kill what runs without the engine: containerd and its like name the folder on their command lines."""
        mark = str(self.folder).encode()
        for process in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                line = (process / "cmdline").read_bytes()
                if int(process.name) != os.getpid() and mark in line and line.startswith(program):
                    os.kill(int(process.name), signal.SIGKILL)


PYTHON = "/usr/local/bin/python3"
_LEFT_OUT = {"site-packages", "dist-packages", "test", "__pycache__", "idlelib", "lib2to3", "tkinter", "ensurepip"}


def python_files(*packages: str) -> dict[str, Path]:
    """This Python, with its libraries and `packages` that are installed here, by their paths in an image."""
    program = Path(sys.executable).resolve()
    library = Path(sysconfig.get_path("stdlib"))
    inside = Path(f"/usr/local/lib/{library.name}")
    files = {PYTHON: program, **_below(library, inside)}
    for name in packages:
        installed = Path(sysconfig.get_path("platlib")) / name
        files |= _below(installed, Path("/var/task") / name) if installed.is_dir() else {f"/var/task/{name}": installed}
    for binary in [program, *(path for path in files.values() if path.suffix == ".so")]:
        said = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False).stdout
        for word in said.split():
            if word.startswith("/") and Path(word).exists():
                files.setdefault(word, Path(word).resolve())
    return files


def _below(folder: Path, inside: Path) -> dict[str, Path]:
    found = {}
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in _LEFT_OUT and not name.startswith("config-")]
        found |= {str(inside / (Path(root) / name).relative_to(folder)): Path(root) / name for name in names}
    return found
