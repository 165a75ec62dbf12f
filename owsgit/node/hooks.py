"""Answers git's hooks: pre-receive verifies, proc-receive decides and tells how the new head is applied.

Pushes are checked as they come, and decided one at a time; of several that follow the same head, the others are late.
"""

import asyncio
import contextlib
import logging
import os
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from owsgit.ledger import receive
from owsgit.ledger.receive import TOPIC_OPTION, ProposalPush, RefUpdate, VerdictPush
from owsgit.ledger.repository import MAIN
from owsgit.ledger.verdicts import APPROVE
from owsgit.ledger.verify import NotFastForwardError, Report
from owsgit.model import terminal
from owsgit.model.errors import OwsgitError, RefusedError
from owsgit.model.spec import nearest
from owsgit.peers.reviewing import Reviewing
from owsgit.reconcile import story
from owsgit.reconcile.inventory import Phase
from owsgit.reconcile.loop import Event, Reconciler, Settled, Stepped

MESSAGE_BYTES_MAX = 2 << 20
SETTLE_SECONDS_MAX = 300.0
"""How long a pusher is kept waiting for applying; what is left goes on without them."""

PUSH_OPTIONS = ("no-wait", "acks=majority", "acks=all", "topic=")
_ACKS = re.compile(r"acks=([0-9]{1,4}|majority|all)")
LATE = "fetch first"
"""What git prints behind `[remote rejected]` for a push that lost a race."""

log = logging.getLogger("owsgit.hooks")


@dataclass(frozen=True)
class Push:
    """What a hook hands over."""

    hook: str
    quarantine: str
    certificate: str  # the id of its blob, and what git says of its nonce
    user: str  # whose key the push came with
    options: tuple[str, ...]
    commands: str


@dataclass(frozen=True)
class Duties:
    """What the hooks need of their node."""

    check: Callable[[RefUpdate, Path | None], Awaitable[Report]]  # raises OwsgitError
    head: Callable[[], str | None]
    reconciler: Reconciler
    decide: Callable[[RefUpdate], Awaitable[tuple[list[str], int]]]  # who voted, of how many; raises OwsgitError
    others: Callable[[str, float, Callable[[str, list[str]], None]], Awaitable[None]]  # see Council.others_applied
    names: Callable[[], tuple[str, list[str]]]  # this node, and the others
    reviewing: Reviewing
    pusher: Callable[[str, Path | None], str]  # who signed a push certificate; raises RefusedError


class HookServer:
    """Listens on the node's unix socket."""

    def __init__(self, duties: Duties, ledger: Path) -> None:
        self._duties = duties
        self._ledger = ledger
        self._server: asyncio.Server | None = None

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
        status, reason = 1, ""
        try:
            push = _parse(await _read(reader))
            answer = self._pre_receive if push.hook == "pre-receive" else self._proc_receive
            status, reason = await answer(push, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        except Exception:
            log.exception("a hook failed")
            _say(writer, ["owsgit: internal error, nothing was changed; the node's log says more"])
        with contextlib.suppress(ConnectionError):
            writer.write(f"\0{status} {reason}\n".encode())
            await writer.drain()
        writer.close()

    async def _pre_receive(self, push: Push, writer: asyncio.StreamWriter) -> tuple[int, str]:
        try:
            update = receive.update(push.commands, push.options)
            _check_options(push.options)
            lines = await self._let_in(update, push)
            pusher = self._pusher(push)
        except OwsgitError as error:
            log.info("push is refused: %s", error.problems[0])
            _say(writer, receive.refusal(error))
            return 1, ""
        log.info("push of %s is let in", update.new[:10])
        _say(writer, lines)
        _say(writer, [f"  pushed by {pusher}, who signed the push"] if pusher else [])
        return 0, ""

    async def _let_in(self, update: receive.Update, push: Push) -> list[str]:
        """Verify what is in quarantine; what there is to say of it. Raises OwsgitError."""
        quarantine = self._quarantine(push.quarantine)
        match update:
            case RefUpdate():
                return list(receive.welcome(await self._checked(update, push)))
            case ProposalPush():
                _, proposed = await self._duties.reviewing.check(update.new, update.topic, quarantine, push.user)
                return story.proposed(proposed)
            case VerdictPush():
                verdict = self._duties.reviewing.parse(update.new, quarantine)
                await self._duties.reviewing.check_said(verdict, now=time.time())
                return []

    async def _checked(self, update: RefUpdate, push: Push) -> Report:
        try:
            return await self._duties.check(update, self._quarantine(push.quarantine))
        except NotFastForwardError:
            main = self._duties.head()
            if main == update.old:
                raise
            raise NotFastForwardError(
                f"fetch first: main moved to {(main or 'nothing')[:10]} while you pushed",
                remedy="git pull --rebase, then push again",
            ) from None

    def _pusher(self, push: Push) -> str:
        """Who signed the push itself (git push --signed), '' if nobody did. Raises RefusedError."""
        blob, _, nonce = push.certificate.partition(" ")
        if not blob or set(blob) == {"0"}:
            return ""
        if nonce not in ("OK", "SLOP"):
            raise RefusedError(
                f"the push certificate is not for this push (nonce {nonce})", remedy="push again: git push --signed"
            )
        return self._duties.pusher(blob, self._quarantine(push.quarantine))

    def _quarantine(self, given: str) -> Path | None:
        """Only a folder that git itself made within this repository is read."""
        if not given:
            return None
        path = Path(given).resolve()
        if not path.is_relative_to((self._ledger / "objects").resolve()):
            raise RefusedError("the push is not in this repository's quarantine")
        return path

    async def _proc_receive(self, push: Push, writer: asyncio.StreamWriter) -> tuple[int, str]:
        """Have the nodes decide; the head is moved when they have."""
        try:
            update = receive.update(push.commands, push.options)
            match update:
                case RefUpdate():
                    await self._decided(update, push, writer)
                    return 0, ""
                case ProposalPush():
                    proposal, _ = await self._duties.reviewing.propose(update.new, update.topic, push.user)
                    _say(writer, story.opened(proposal))
                    return 0, proposal.ref
                case VerdictPush():
                    await self._said(update, push, writer)
                    return 0, ""
        except OwsgitError as error:
            log.info("push is not decided: %s", error.problems[0])
            _say(writer, receive.refusal(error))
            late = isinstance(error, NotFastForwardError)
            return 1, LATE if late else terminal.safe(error.problems[0].message, 200)

    async def _decided(self, update: RefUpdate, push: Push, writer: asyncio.StreamWriter) -> None:
        """Have main moved, and tell how that is applied. Raises OwsgitError."""
        async with self._duties.reconciler.events() as events:
            voters, nodes = await self._duties.decide(update)
            among = f", decided by {', '.join(voters)} ({len(voters)} of {nodes} nodes)" if nodes > 1 else ""
            _say(writer, [f"owsgit: main is now {update.new[:10]}{among}"])
            if "no-wait" in push.options:
                return
            await writer.drain()
            await self._applied(update.new, push.options, events, writer)

    async def _said(self, update: VerdictPush, push: Push, writer: asyncio.StreamWriter) -> None:
        """Keep an approval or a rejection; with the last approval that was missing, main moves."""
        reviewing = self._duties.reviewing
        said = await reviewing.say(reviewing.parse(update.new, None))
        proposal, verdict = said.proposal, said.verdict
        done = "approves" if verdict.kind == APPROVE else "withdraws" if said.user == proposal.user else "rejects"
        _say(writer, [f"owsgit: {said.user} {done} {proposal.number} ({proposal.name}, {verdict.commit[:10]})"])
        if verdict.kind != APPROVE:
            return
        if lacking := await reviewing.lacks(proposal):
            _say(writer, [f"owsgit: it is not applied yet: {lacking}"])
            return
        _say(writer, ["owsgit: it has all approvals that it needs"])
        await self._decided(RefUpdate(MAIN, self._duties.head(), verdict.commit), push, writer)

    async def _applied(
        self, commit: str, options: tuple[str, ...], events: "asyncio.Queue[Event]", writer: asyncio.StreamWriter
    ) -> None:
        """Tell how the new head is applied: here, and on as many of the other nodes as the pusher wants to hear of."""
        name, others = self._duties.names()
        wanted = _acks(options, len(others) + 1)
        began = time.monotonic()
        told: asyncio.Queue[str] = asyncio.Queue()
        applied: dict[str, list[str]] = {}  # by node, what failed there

        def report(node: str, failed: list[str]) -> None:
            applied[node] = failed
            told.put_nowait(f"applied on {node}" + (f", but {', '.join(failed)} failed" if failed else ""))

        asking = asyncio.ensure_future(self._duties.others(commit, SETTLE_SECONDS_MAX, report)) if others else None
        try:
            async with asyncio.timeout(SETTLE_SECONDS_MAX):
                own: list[str] = []
                while not self._tell(event := await events.get(), writer):
                    if isinstance(event, Stepped) and event.row is not None and event.row.phase is Phase.FAILED:
                        own.append(event.row.key)
                    await writer.drain()
                applied[name] = own
                while len(applied) < wanted and asking is not None and not (asking.done() and told.empty()):
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.2):
                            _say(writer, [f"owsgit: {await told.get()} ({time.monotonic() - began:.2f} s)"])
                    await writer.drain()
        except TimeoutError:
            _say(writer, ["owsgit: still applying; owsgit status shows how it goes on"])
        finally:
            if asking is not None:
                asking.cancel()
        if others:
            _say(writer, [_summary(applied, {name, *others}, wanted)])

    def _tell(self, event: Event, writer: asyncio.StreamWriter) -> bool:
        """Say what happened; True when everything was tried for main as it is now."""
        if isinstance(event, Settled) and event.commit != self._duties.head():
            return False
        _say(writer, story.lines(event))
        return isinstance(event, Settled)


def _acks(options: tuple[str, ...], nodes: int) -> int:
    """On how many nodes the pusher waits for the commit to be applied."""
    found = next((match[1] for option in options if (match := _ACKS.fullmatch(option))), "1")
    return {"majority": nodes // 2 + 1, "all": nodes}.get(found) or min(int(found), nodes)


def _summary(applied: Mapping[str, list[str]], nodes: set[str], wanted: int) -> str:
    rest = sorted(nodes - set(applied))
    well = sorted(node for node, failed in applied.items() if not failed)
    if not rest and len(well) == len(nodes):
        return f"owsgit: applied on all {len(nodes)} nodes"
    failing = [f"{node} ({', '.join(failed)})" for node, failed in sorted(applied.items()) if failed]
    line = f"owsgit: applied on {', '.join(well) or 'no node whole'}"
    line += f"; with failures on {', '.join(failing)}" if failing else ""
    line += f"; not yet on {', '.join(rest)}" if rest else ""
    return line + (" (to wait for them: git push -o acks=all)" if len(applied) >= wanted else "")


def _check_options(options: tuple[str, ...]) -> None:
    for option in options:
        if option not in PUSH_OPTIONS and not _ACKS.fullmatch(option) and not option.startswith(TOPIC_OPTION):
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
    hook, quarantine, certificate, user, options, commands = data.decode("utf-8", "surrogateescape").split("\0", 5)
    given = tuple(option for option in options.split("\n") if option)
    return Push(hook, quarantine, certificate, user, given, commands)


def _say(writer: asyncio.StreamWriter, lines: "list[str] | Iterator[str]") -> None:
    """Lines for the pusher's terminal. What comes from code or commits can hold no control character."""
    text = "".join(f"{terminal.safe(line)}\n" for line in lines)
    writer.write(text.encode("utf-8", "backslashreplace"))
