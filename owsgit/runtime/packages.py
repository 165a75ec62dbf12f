"""The packages of functions: built once for each content, inside of the sandbox, and shared by whoever asks for them.

A build is untrusted: it runs code of the packages. It sees the files that it is made from, its installer, the index,
and a folder of its own; and it is bounded in time, memory, processes and disk.
"""

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from owsgit.model.errors import InvalidError, OwsgitError, UnavailableError
from owsgit.runtime import code, node_packages, python_packages
from owsgit.runtime.archives import ENTRIES_MAX, UNPACKED_BYTES_MAX
from owsgit.runtime.cgroup import Limits
from owsgit.runtime.code import CodeStore
from owsgit.runtime.indexes import Indexes
from owsgit.runtime.recipes import Failure, Places, Recipe
from owsgit.runtime.sandbox import Command, Running, Sandbox

BUILD_SECONDS_MAX = 900.0
"""For a large package that is compiled."""

PATIENCE_SECONDS = 100.0
"""How long a function waits for its packages before it is tried again later; the build itself goes on."""

BUILDS_AT_ONCE_MAX = 2
SPARE_MAX = 20
"""Builds that are kept although nothing uses them now; each may have UNPACKED_BYTES_MAX."""

WORK_BYTES_MAX = 1024 * 1024 * 1024
"""Of all that a build has on the disk at once: downloads, sources, results."""

WORK_ENTRIES_MAX = 200_000
FILE_BYTES_MAX = UNPACKED_BYTES_MAX
MEMORY_BYTES_MAX = 1024 * 1024 * 1024
PROCESSES_MAX = 256
LOOK_SECONDS = 0.25
"""How often the size is looked at, and how often somebody is told something new."""

OUTPUT_BYTES_MAX = 64 * 1024
LINES_SHOWN_MAX = 8
WORK = "/build"

Tell = Callable[[str], None]


class BuildError(OwsgitError):
    """The packages of a function cannot be built; says why, with the installer's last words."""


@dataclass
class _Build:
    """One that is going on, and whoever wants to hear of it."""

    listeners: list[Tell]
    task: "asyncio.Task[Path]" = field(init=False)

    def tell(self, text: str) -> None:
        for listener in self.listeners:
            listener(text)


class PackageStore:
    """The built packages, by what they are made from."""

    def __init__(self, folder: Path, sandbox: Sandbox | UnavailableError, indexes: Indexes) -> None:
        """`folder` has to be one in which the sandbox's commands may be given folders to write to.

        `sandbox` is why there is none, if there is none: then nothing is built.
        """
        self._store = CodeStore(folder, SPARE_MAX)
        self._sandbox = sandbox
        self._indexes = indexes
        self._builds: dict[str, _Build] = {}
        self._slots = asyncio.Semaphore(BUILDS_AT_ONCE_MAX)

    def recipe(self, folder: Path, runtime: str) -> Recipe | None:
        """What has to be built for the code in `folder`. Raises InvalidError, UnavailableError."""
        if runtime.startswith("python"):
            return python_packages.recipe(folder, runtime, self._indexes)
        if runtime.startswith("nodejs"):
            return node_packages.recipe(folder, runtime, self._indexes)
        return None

    async def provide(self, folder: Path, recipe: Recipe, tell: Tell) -> tuple[str, Path]:
        """The key and the folder of the packages; built if they are not there. Raises BuildError, UnavailableError."""
        key = await asyncio.to_thread(recipe.key, folder)
        if (found := await asyncio.to_thread(self._store.find, key)) is not None:
            return key, found
        build = self._builds.get(key)
        if build is None:
            tell(f"installing {recipe.what}")
            build = self._builds[key] = _Build([tell])
            build.task = asyncio.ensure_future(self._build(key, folder, recipe, build))
            build.task.add_done_callback(lambda task: self._ended(key, task))
        else:
            build.listeners.append(tell)
            tell(f"waits for {recipe.what}, which another function asked for as well")
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return key, await asyncio.shield(build.task)
        except TimeoutError:
            raise UnavailableError(
                f"{recipe.what}: still being installed after {PATIENCE_SECONDS:.0f} s",
                remedy="nothing to do: the node goes on with it, and then with the function",
            ) from None
        finally:
            with contextlib.suppress(ValueError):
                build.listeners.remove(tell)

    def _ended(self, key: str, task: "asyncio.Task[Path]") -> None:
        self._builds.pop(key, None)
        if not task.cancelled():
            task.exception()  # whoever waited has been told

    async def _build(self, key: str, folder: Path, recipe: Recipe, build: _Build) -> Path:
        async with self._slots:
            began = time.monotonic()
            work = await asyncio.to_thread(self._prepare, key, folder, recipe)
            try:
                await self._run(key, work, recipe, build)
                result = await asyncio.to_thread(self._finish, key, work, recipe)
            finally:
                await asyncio.to_thread(code.remove, work)
        build.tell(f"installed {recipe.what} in {time.monotonic() - began:.1f} s")
        return result

    def _prepare(self, key: str, folder: Path, recipe: Recipe) -> Path:
        work = self._store.begin(key)
        for name in ("source", "out", "tmp"):
            (work / name).mkdir()
        for path in recipe.sources:
            target = work / "source" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / path, target)  # never a link: the build may write to what it gets
        return work

    def _finish(self, key: str, work: Path, recipe: Recipe) -> Path:
        try:
            recipe.settle(work)
        except OSError as error:
            raise _failed(recipe, Failure(f"the packages cannot be taken: {error}", "choose another"), "") from None
        out = work / recipe.result
        if out.is_symlink() or not out.is_dir():
            code.remove(out)
            out.mkdir()
        size, entries = _size(out)
        if size > UNPACKED_BYTES_MAX or entries > ENTRIES_MAX:
            raise _failed(recipe, _TOO_LARGE, "")
        try:
            return self._store.finish(key, out)
        except InvalidError as error:
            raise _failed(recipe, Failure(error.problems[0].message, "choose another package"), "") from None

    async def _run(self, key: str, work: Path, recipe: Recipe, build: _Build) -> None:
        """Run the installer to its end. Raises BuildError, UnavailableError."""
        sandbox = self._sandbox
        if isinstance(sandbox, UnavailableError):
            raise sandbox
        read, written = os.pipe()
        try:
            running = await sandbox.start(self._command(work, recipe, written, sandbox.contained))
        except BaseException:
            os.close(read)
            raise
        finally:
            os.close(written)
        output = _Output(read)
        try:
            failure = await self._watch(running, work, output, build)
            status = await running.ended()
            out_of_memory = running.group is not None and running.group.out_of_memory()
        finally:
            running.kill()
            await asyncio.shield(running.gone())
            output.close()
        said = output.text()
        if failure is None and status != 0:
            failure = _OUT_OF_MEMORY if out_of_memory else recipe.explain(said) or Failure("the installer failed", "")
        if failure is not None:
            raise _failed(recipe, failure, said)

    async def _watch(self, running: Running, work: Path, output: "_Output", build: _Build) -> Failure | None:
        """Wait for the end, telling what the installer says; None, or what it was ended for."""
        deadline = time.monotonic() + BUILD_SECONDS_MAX
        ended = asyncio.ensure_future(running.ended())
        told = ""
        while not (await asyncio.wait({ended}, timeout=LOOK_SECONDS))[0]:
            line = output.last_line()
            if line and line != told:
                build.tell(line)
                told = line
            size, entries = await asyncio.to_thread(_size, work)
            failure = _TOO_LARGE if size > WORK_BYTES_MAX or entries > WORK_ENTRIES_MAX else None
            if time.monotonic() > deadline:
                failure = Failure(f"not done within {BUILD_SECONDS_MAX:.0f} s", "commit wheels that are built already")
            if failure is not None:
                running.kill()
                await ended
                return failure
        return None

    def _command(self, work: Path, recipe: Recipe, output_fd: int, contained: bool) -> Command:
        places = Places(WORK, python_packages.TOOLS) if contained else Places(str(work), str(recipe.tools))
        limit = ["/bin/sh", "-c", 'ulimit -f "$1"; shift; exec "$@"', "sh", str(FILE_BYTES_MAX // 512)]
        return Command(
            arguments=[*limit, *recipe.command(places)],
            environment={
                "PATH": "/usr/local/bin:/usr/bin:/bin",
                "HOME": places.tmp,
                "TMPDIR": places.tmp,
                "LANG": "C.UTF-8",
                **recipe.environment(places),
            },
            folder=places.source,
            read_only=recipe.read_only,
            limits=Limits(MEMORY_BYTES_MAX, PROCESSES_MAX),
            output_fd=output_fd,
            writable={WORK: work},
            network=recipe.network,
        )

    def drift(self, key: str) -> str | None:
        return self._store.drift(key)

    def sweep(self, used: set[str]) -> None:
        """Remove what a killed node left half made, and the oldest unused builds beyond SPARE_MAX."""
        self._store.sweep(used)

    async def close(self) -> None:
        tasks = [build.task for build in self._builds.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Output:
    """What a build says, of which the end is kept."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._data = bytearray()
        os.set_blocking(fd, False)
        asyncio.get_running_loop().add_reader(fd, self._read)

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            piece = os.read(self._fd, OUTPUT_BYTES_MAX)
            self._data += piece
            del self._data[:-OUTPUT_BYTES_MAX]
            if not piece:
                asyncio.get_running_loop().remove_reader(self._fd)

    def text(self) -> str:
        return self._data.decode("utf-8", "replace")

    def last_line(self) -> str:
        """The last whole line that says something."""
        lines = self.text().rpartition("\n")[0].split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def close(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            self._read()
        loop.remove_reader(self._fd)
        os.close(self._fd)


_TOO_LARGE = Failure(
    f"the packages, or their build, are larger than may be: {UNPACKED_BYTES_MAX // 1024**2} MiB for the packages",
    "ask for less, or use a container image",
)
_OUT_OF_MEMORY = Failure(
    f"the build needs more than {MEMORY_BYTES_MAX // 1024**2} MiB of memory", "commit wheels that are built already"
)


def _failed(recipe: Recipe, failure: Failure, said: str) -> BuildError:
    lines = [line for line in said.splitlines() if line.strip()][-LINES_SHOWN_MAX:]
    message = "\n".join([failure.message, *(f"  | {line[:200]}" for line in lines)])
    return BuildError(message, file=recipe.file, remedy=failure.remedy)


def _size(folder: Path) -> tuple[int, int]:
    """Bytes on the disk and entries below a folder that may be changing."""
    size = entries = 0
    waiting = [str(folder)]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as found:
            for entry in found:
                entries += 1
                with contextlib.suppress(OSError):
                    size += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
    return size, entries
