"""The Docker engine of this machine: every call is bounded in time, leaves the event loop free, and fails in words.

docker-py is blocking, so calls run in threads of their own: an engine that hangs holds up containers and nothing else.
All that a node makes carries its label, so that what a killed node left behind is found and removed.
"""

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from requests.exceptions import RequestException

from owsgit.model.errors import UnavailableError
from owsgit.runtime.config import ImageConfig

CALL_SECONDS_MAX = 30.0
"""A container starts in a fifth of a second; on a machine that is short of everything, in a few."""

CLOSING_LOOK_SECONDS = 0.005
"""How often it is looked whether all calls are done, at the end."""

TIDY_SECONDS_MAX = 120.0
"""A killed node may have left a hundred containers; each takes a tenth of a second or two."""

PULL_SECONDS_MAX = 600.0
"""A few gigabytes over a slow line."""

WORDS_MAX = 500
"""Characters of what the engine says of a pull."""

MEMORY_FILES = Path("/dev/shm")  # noqa: S108 - the folder in it is of one node, which alone may look into it
THREADS = 8
"""Calls at once; the engine itself does not do more in parallel."""

DEFAULT_SOCKET = "unix:///var/run/docker.sock"
LABEL = "owsgit.instance"
SEE_LOG = "see its log (journalctl -u docker)"


class RefusedByEngineError(Exception):
    """The engine does not take a container as it is described; the words are the engine's."""


class Engine:
    """The connection, made with the first call. After the engine was away, the next call finds it again."""

    def __init__(self, instance: str, host: str = "") -> None:
        """`instance` tells the nodes of one machine apart; `host` is as in DOCKER_HOST, which is used without it."""
        self.instance = instance
        self.host = host or docker.utils.kwargs_from_env().get("base_url") or DEFAULT_SOCKET
        self._files = MEMORY_FILES / f"owsgit-{instance}"
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="docker")
        self._api: Any = None
        self._opening = asyncio.Lock()
        self._images: dict[str, tuple[str, ...]] = {}  # the volumes of those that are known to be here
        self._removing: set[asyncio.Task[None]] = set()
        self._left: set[str] = set()  # what could not be removed yet
        self._calls = 0  # under way, after which there may be a container that was not there before
        self._closing = False

    async def open(self) -> None:
        """Connect and, the first time, remove what this node left when it was killed. Raises UnavailableError."""
        async with self._opening:
            if self._api is None:
                if not self.host.startswith(("unix://", "http+unix://")):
                    raise UnavailableError(
                        f"the Docker engine {self.host} is not reached by a unix socket of this machine",
                        remedy=f"use an engine of this machine: DOCKER_HOST={DEFAULT_SOCKET}",
                    )
                self._api = await self._run(self._connect, TIDY_SECONDS_MAX)

    def _connect(self) -> Any:
        api = docker.APIClient(base_url=self.host, version="auto", timeout=CALL_SECONDS_MAX)
        self._remove_all(api)
        shutil.rmtree(self._files, ignore_errors=True)
        return api

    def _remove_all(self, api: Any) -> None:
        """Remove all containers of this node, also those of which it does not know."""

        def remove(container: dict[str, Any]) -> None:
            with contextlib.suppress(NotFound):
                api.remove_container(container["Id"], force=True, v=True)

        mine = {"label": f"{LABEL}={self.instance}"}
        list(self._threads.map(remove, api.containers(all=True, filters=mine)))

    async def call(self, name: str, *arguments: Any, seconds: float = CALL_SECONDS_MAX, **options: Any) -> Any:
        """What docker's APIClient.<name> returns. Raises UnavailableError, and NotFound and APIError of the call."""
        if name != "remove_container":
            self._check_open()
        if self._api is None:
            await self.open()
        return await self._run(partial(getattr(self._api, name), *arguments, **options), seconds)

    async def _run(self, work: Callable[[], Any], seconds: float, *, creates: bool = False) -> Any:
        """The result of `work`, done in a thread. What it `creates` is removed if nobody waits for it any more."""
        counted = seconds <= CALL_SECONDS_MAX  # not a pull, which nobody who stops waits for
        self._calls += counted
        try:
            return await self._done(work, seconds, creates=creates)
        finally:
            self._calls -= counted

    async def _done(self, work: Callable[[], Any], seconds: float, *, creates: bool) -> Any:
        try:
            future = self._threads.submit(work)
        except RuntimeError:  # they have ended
            raise _stopping() from None
        taken = False
        try:
            result = await asyncio.wait_for(asyncio.wrap_future(future), seconds)
            taken = True
            return result
        except APIError:
            raise
        except TimeoutError:
            raise self._unavailable(f"no answer within {seconds:.0f} seconds") from None
        except (DockerException, RequestException, OSError) as error:
            raise self._unavailable(_reason(error)) from None
        finally:
            # not "unless it is done": it may be, and whoever waited was told to stop before the loop passed it on
            if creates and not taken and not future.cancelled():
                self._in_background(self._remove_late(future))

    async def _remove_late(self, creating: Future[Any]) -> None:
        with contextlib.suppress(Exception):
            self.discard((await asyncio.wrap_future(creating))["Id"])

    def _unavailable(self, reason: str) -> UnavailableError:
        return UnavailableError(
            f"the Docker engine at {self.host} does not answer: {reason}",
            remedy="start it (systemctl start docker), or set DOCKER_HOST to the one that is meant",
        )

    async def image(self, image: ImageConfig) -> tuple[str, ...]:
        """Have the image here, pulled if its policy says so; its volumes. Raises UnavailableError."""
        known = self._images.get(image.uri)
        if known is not None:
            return known
        if image.pull_policy == "Always":
            found = await self._pull(image)
        else:
            try:
                found = await self.call("inspect_image", image.uri)
            except ImageNotFound:
                if image.pull_policy == "Never":
                    raise _missing(image, "and its pullPolicy is Never") from None
                found = await self._pull(image)
        volumes = tuple((found.get("Config") or {}).get("Volumes") or ())
        self._images[image.uri] = volumes
        return volumes

    async def _pull(self, image: ImageConfig) -> dict[str, Any]:
        """What the engine knows of it then. Raises UnavailableError."""
        if image.uri.startswith("sha256:"):
            raise _missing(image, "and an image cannot be pulled by its id")
        said = ""
        try:
            said = await self.call("pull", image.uri, seconds=PULL_SECONDS_MAX)
            found: dict[str, Any] = await self.call("inspect_image", image.uri)
        except ImageNotFound:  # what fails in the middle of a pull is in its last words alone
            words = said.strip().rpartition("\n")[2][-WORDS_MAX:]
            raise _missing(image, f"and cannot be pulled: {words}") from None
        except APIError as error:
            raise _missing(image, f"and cannot be pulled: {error.explanation}") from None
        return found

    async def create(self, image: ImageConfig, options: dict[str, Any]) -> str:
        """Create a container; its id. Raises UnavailableError, RefusedByEngineError."""
        if self._left:
            self.discard(*self._left)
        for attempt in range(2):
            await self.image(image)
            try:
                return await self.create_of(image.uri, options)
            except ImageNotFound:  # it was here, and was removed
                self._images.pop(image.uri, None)
                if attempt:
                    raise _missing(image, "as it is removed again and again") from None
        raise AssertionError

    async def create_of(self, image: str, options: dict[str, Any]) -> str:
        """Create a container of an image that is here. Raises ImageNotFound, UnavailableError, RefusedByEngineError."""
        self._check_open()
        await self.open()
        labels = {LABEL: self.instance, **options.pop("labels", {})}
        work = partial(self._api.create_container, image, labels=labels, **options)
        try:
            return str((await self._run(work, CALL_SECONDS_MAX, creates=True))["Id"])
        except ImageNotFound:
            raise
        except APIError as error:
            raise self._refused(error) from None

    async def start(self, container: str) -> int:
        """Start it; the id of its first process, 0 if that has ended. Raises UnavailableError, RefusedByEngineError."""
        try:
            await self.call("start", container)
            return int((await self.state(container))["Pid"])
        except APIError as error:
            raise self._refused(error) from None

    def _check_open(self) -> None:
        if self._closing:
            raise _stopping()

    def _refused(self, error: APIError) -> Exception:
        """For what is wrong with the container, or with the engine."""
        if error.status_code is not None and error.status_code < 500:
            return RefusedByEngineError(str(error.explanation))
        return UnavailableError(f"the Docker engine failed: {error.explanation}", remedy=SEE_LOG)

    def new_folder(self) -> Path:
        """A folder for files of one container; they are in memory, and never on the disk."""
        self._files.mkdir(mode=0o700, exist_ok=True)
        folder = self._files / os.urandom(8).hex()
        folder.mkdir(mode=0o755)
        return folder

    async def state(self, container: str) -> dict[str, Any]:
        """The engine's State of the container. Raises NotFound, UnavailableError."""
        state: dict[str, Any] = (await self.call("inspect_container", container))["State"]
        return state

    async def ended(self, container: str, seconds: int) -> dict[str, Any]:
        """The State of a container whose process ended, once the engine knows. Raises NotFound, UnavailableError."""
        await self.call("wait", container, timeout=seconds)
        return await self.state(container)

    async def attach(self, container: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The output of a container that has not started yet: frames of a header of 8 bytes and a piece."""
        found = await self.call("attach_socket", container, {"stdout": 1, "stderr": 1, "stream": 1})
        connection: socket.socket = found._sock.dup()
        found.close()
        connection.setblocking(False)
        return await asyncio.open_unix_connection(sock=connection)

    def discard(self, *containers: str) -> None:
        """Remove containers, running or not, in the background; what fails is tried again with the next one made."""
        self._left.update(containers)
        for container in containers:
            self._in_background(self._remove(container))

    def _in_background(self, removal: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(removal)
        self._removing.add(task)
        task.add_done_callback(self._removing.discard)

    async def _remove(self, container: str) -> None:
        try:
            await self.call("remove_container", container, force=True, v=True)
        except NotFound:
            pass
        except (APIError, UnavailableError):
            return
        self._left.discard(container)

    async def settled(self) -> None:
        """Return when nothing is being removed; the time limit of calls bounds it."""
        while self._removing:
            await asyncio.gather(*self._removing, return_exceptions=True)

    async def close(self) -> bool:
        """Let go of it, once everything is removed; whether it is."""
        self._closing = True  # who makes a container meanwhile has it discarded
        deadline = asyncio.get_running_loop().time() + CALL_SECONDS_MAX
        while (self._calls or self._removing) and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(CLOSING_LOOK_SECONDS)
        removed = True
        if self._api is not None:
            try:  # an engine that was stopped may have made one and not said so
                await self._run(partial(self._remove_all, self._api), CALL_SECONDS_MAX)
            except (APIError, UnavailableError):
                removed = False
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._api is not None:
            self._api.close()
            shutil.rmtree(self._files, ignore_errors=True)
        return removed and not self._calls


def _stopping() -> UnavailableError:
    return UnavailableError("the node is stopping", remedy="try again")


def _missing(image: ImageConfig, why: str) -> UnavailableError:
    return UnavailableError(
        f"the image {image.uri} is not on this node, {why}",
        path="$.image.uri",
        remedy=f"docker pull {image.uri}, or docker load, on this node"
        if not image.uri.startswith("sha256:")
        else "build or docker load it on this node, or name it as name@sha256:... of a registry",
    )


def _reason(error: Exception) -> str:
    """The innermost words of a nest of exceptions."""
    while (inner := error.__cause__ or error.__context__) is not None and isinstance(inner, Exception):
        error = inner
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
