"""Answers git's hooks: pre-receive verifies, post-receive tells how the new head is applied.

One push at a time is between its check and its move of main; the next one waits, and then learns that it is late.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from owsgit.ledger import receive
from owsgit.ledger.receive import RefUpdate
from owsgit.ledger.verify import NotFastForwardError, Report
from owsgit.model import terminal
from owsgit.model.errors import OwsgitError, RefusedError
from owsgit.model.spec import nearest
from owsgit.reconcile import story
from owsgit.reconcile.loop import Event, Reconciler, Settled

MESSAGE_BYTES_MAX = 2 << 20
TURN_SECONDS_MAX = 20.0
"""How long one push may take between its check and its move of main."""

SETTLE_SECONDS_MAX = 300.0
"""How long a pusher is kept waiting for applying; what is left goes on without them."""

PUSH_OPTIONS = ("no-wait",)
log = logging.getLogger("owsgit.hooks")


@dataclass(frozen=True)
class Push:
    """What a hook hands over."""

    hook: str
    session: str
    quarantine: str
    options: tuple[str, ...]
    commands: str


class Turns:
    """Lets one push at a time through; the turn ends with the push, or after TURN_SECONDS_MAX."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._holder = ""
        self._timer: asyncio.TimerHandle | None = None

    async def take(self, session: str) -> None:
        await self._lock.acquire()
        self._holder = session
        self._timer = asyncio.get_running_loop().call_later(TURN_SECONDS_MAX, self.end, session)

    def end(self, session: str) -> None:
        if self._lock.locked() and self._holder == session:
            assert self._timer is not None
            self._timer.cancel()
            self._holder = ""
            self._lock.release()


@dataclass(frozen=True)
class Verdicts:
    """What the hooks need of their node."""

    check: Callable[[RefUpdate, Path | None], Awaitable[Report]]  # raises OwsgitError
    head: Callable[[], str | None]
    reconciler: Reconciler


class HookServer:
    """Listens on the node's unix socket."""

    def __init__(self, verdicts: Verdicts, ledger: Path) -> None:
        self._verdicts = verdicts
        self._ledger = ledger
        self._server: asyncio.Server | None = None
        self.turns = Turns()

    async def open(self, path: Path) -> None:
        """Bind by way of the folder's descriptor: the path of a socket may have 107 bytes only."""
        path.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        mask = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._serve, f"/proc/self/fd/{folder}/{path.name}")
        finally:
            os.umask(mask)
            os.close(folder)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        status = 1
        try:
            push = _parse(await _read(reader))
            answer = self._pre_receive if push.hook == "pre-receive" else self._post_receive
            status = await answer(push, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        except Exception:
            log.exception("a hook failed")
            _say(writer, ["owsgit: internal error, nothing was changed; the node's log says more"])
        with contextlib.suppress(ConnectionError):
            writer.write(f"\0{status}\n".encode())
            await writer.drain()
        writer.close()

    async def _pre_receive(self, push: Push, writer: asyncio.StreamWriter) -> int:
        try:
            update = receive.main_update(push.commands)
            _check_options(push.options)
            await self.turns.take(push.session)
            report = await self._checked(update, push)
        except OwsgitError as error:
            self.turns.end(push.session)
            log.info("push is refused: %s", error.problems[0])
            _say(writer, receive.refusal(error))
            return 1
        except BaseException:
            self.turns.end(push.session)
            raise
        log.info("push of %s is let in", update.new[:10])
        _say(writer, receive.welcome(report))
        if not push.session:  # pushed by path on this machine: nobody would tell when it ends
            self.turns.end(push.session)
        return 0

    async def _checked(self, update: RefUpdate, push: Push) -> Report:
        main = self._verdicts.head()
        if main != update.old:
            raise NotFastForwardError(
                f"fetch first: main moved to {(main or 'nothing')[:10]} while you pushed",
                remedy="git pull --rebase, then push again",
            )
        return await self._verdicts.check(update, self._quarantine(push.quarantine))

    def _quarantine(self, given: str) -> Path | None:
        """Only a folder that git itself made within this repository is read."""
        if not given:
            return None
        path = Path(given).resolve()
        if not path.is_relative_to((self._ledger / "objects").resolve()):
            raise RefusedError("the push is not in this repository's quarantine")
        return path

    async def _post_receive(self, push: Push, writer: asyncio.StreamWriter) -> int:
        self.turns.end(push.session)
        update = receive.main_update(push.commands)
        reconciler = self._verdicts.reconciler
        _say(writer, [f"owsgit: main is now {update.new[:10]}"])
        async with reconciler.events() as events:
            reconciler.wake()
            if "no-wait" in push.options:
                return 0
            try:
                async with asyncio.timeout(SETTLE_SECONDS_MAX):
                    while not self._tell(await events.get(), writer):
                        await writer.drain()
            except TimeoutError:
                _say(writer, ["owsgit: still applying; owsgit status shows how it goes on"])
        return 0

    def _tell(self, event: Event, writer: asyncio.StreamWriter) -> bool:
        """Say what happened; True when everything was tried for main as it is now."""
        if isinstance(event, Settled) and event.commit != self._verdicts.head():
            return False
        _say(writer, story.lines(event))
        return isinstance(event, Settled)


def _check_options(options: tuple[str, ...]) -> None:
    for option in options:
        if option not in PUSH_OPTIONS:
            shown = terminal.safe(option, 60)
            raise RefusedError(
                f"unknown push option {shown!r}", remedy=nearest(shown, PUSH_OPTIONS, "option", "options")
            )


async def _read(reader: asyncio.StreamReader) -> bytes:
    """All that the hook hands over, within bounds."""
    data = b""
    while piece := await reader.read(1 << 16):
        data += piece
        if len(data) > MESSAGE_BYTES_MAX:
            raise ValueError("a hook handed over too much")
    return data


def _parse(data: bytes) -> Push:
    hook, session, quarantine, options, commands = data.decode("utf-8", "surrogateescape").split("\0", 4)
    return Push(hook, session, quarantine, tuple(option for option in options.split("\n") if option), commands)


def _say(writer: asyncio.StreamWriter, lines: "list[str] | Iterator[str]") -> None:
    """Lines for the pusher's terminal. What comes from code or commits can hold no control character."""
    text = "".join(f"{terminal.safe(line)}\n" for line in lines)
    writer.write(text.encode("utf-8", "backslashreplace"))
