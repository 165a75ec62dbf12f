"""Runs one function of the working tree: `owsgit dev`.

The same handlers as a node's apply it, so that it runs as it would there: its code, layers and packages laid out, in
the sandbox, within its limits. It has one worker, which every save replaces.
"""

import asyncio
import contextlib
import fcntl
import json
import signal
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from owsgit.ledger.repository import Clone
from owsgit.model.errors import InvalidError, OwsgitError, UnavailableError
from owsgit.model.names import NAME
from owsgit.model.service import Answer, Invocation, answered
from owsgit.node import reports
from owsgit.node.dev_events import Event, Events
from owsgit.node.dev_wishes import KIND, Options, Wanted, Wishes
from owsgit.node.node import handlers_of
from owsgit.node.reports import Report
from owsgit.node.working_tree import WorkingTree
from owsgit.runtime import debugger, failures, log_lines
from owsgit.runtime.config import InitError
from owsgit.runtime.debugger import Debugging, DebugPort
from owsgit.runtime.log_reader import Reader
from owsgit.services import KINDS

LOG_SECONDS = 0.05


@dataclass(frozen=True)
class Outcome:
    """What an event came to. `error` as in an Answer; without a `request_id` the code did not load."""

    event: str
    request_id: str
    error: str | None
    payload: Any
    report: Report


class View(Protocol):
    """Who is shown what happens."""

    def say(self, text: str) -> None: ...

    def log(self, message: str, is_platform: bool) -> None: ...

    def outcome(self, outcome: Outcome) -> None: ...


@dataclass
class LocalFunction:
    """One function of a clone's working tree."""

    clone: Clone
    options: Options
    events: Events
    view: View
    failed: bool = False  # whether an event came to an error
    finished: bool = False  # whether it ended by itself
    _problem: str = ""
    _left_out: tuple[str, ...] = ()
    _reports: dict[str, Report] = field(default_factory=dict)

    async def serve(self) -> None:
        """Serve until interrupted, or once. Raises OwsgitError for what is missing on this machine."""
        if not NAME.fullmatch(self.options.name):
            raise InvalidError(f"{self.options.name!r} is not a function's name")
        home = self.clone.git_folder / "owsgit" / "dev" / self.options.name
        self._working = WorkingTree(self.clone, home, self.options.secrets, f"owsgit dev {self.options.name}")
        self._wishes = Wishes(self._working, self.clone.folder, self.options, self.events)
        self._log = Reader(home / "logs" / "functions" / self.options.name).to_end()
        self._saved, self._detached = asyncio.Event(), asyncio.Event()
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        with _lock(home, self.options.name):
            await self._run_until(stop)

    async def _run_until(self, stop: asyncio.Event) -> None:
        debugging = await self._debugging()
        targets: dict[str, Any] = {}
        self._handlers = handlers_of(
            self._working.site(targets, self._report, sandbox=self.options.sandbox, debugging=debugging)
        )
        targets.update({name: each for name, each in self._handlers.items() if hasattr(each, "invoke")})
        self._function: Any = self._handlers[KIND]
        stopping = asyncio.ensure_future(stop.wait())
        tasks = [asyncio.ensure_future(self._once() if self.options.once else self._follow()), stopping]
        pump = asyncio.ensure_future(self._show_log())
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            self.finished = not stopping.done()
        finally:
            for task in (*tasks, pump):
                task.cancel()
            results = await asyncio.gather(*tasks, pump, return_exceptions=True)
            if debugging is not None:
                await debugging.port.close()
            for handler in reversed(self._handlers.values()):
                await handler.close()
            self._show_new_lines()
        for result in results:
            if isinstance(result, Exception):
                raise result

    def _report(self, key: str, text: str) -> None:
        self.view.say(f"{key}: {text}")

    async def _debugging(self) -> Debugging | None:
        if self.options.debug is None:
            return None
        port = DebugPort(*self.options.debug, self._detached.set)
        source = self.clone.folder / KINDS[KIND].folder / self.options.name
        await port.open()
        self.view.say(f"owsgit: a debugger can attach to {port.host}:{port.port}")
        if not debugger.is_loopback(port.host):
            self.view.say("owsgit: whoever reaches that port can run what they like as this function")
        return Debugging(port, source, self.options.wait)

    async def _once(self) -> None:
        wanted = await asyncio.to_thread(self._wishes.read)
        try:
            await self._apply(wanted)
        except InitError as error:
            self._tell_init_error(error)
            return
        for event in wanted.events:
            await self._invoke(event)

    async def _follow(self) -> None:
        """Do what is wanted now, dropping what was wanted before."""
        wanted: Wanted | None = None
        work: asyncio.Task[None] | None = None
        folders = [*self.events.folders, *([self.options.secrets] if self.options.secrets else [])]
        if self.options.typed:
            self.events.follow_input(lambda error: self._tell(error, "not an event"))
        try:
            with self._working.watching(self._saved.set, *folders):
                while True:
                    self._saved.clear()
                    now = await self._look()
                    if now is not None and not now.same(wanted):
                        if work is not None:
                            await _end(work)
                        work = asyncio.ensure_future(self._work(now, wanted))
                        wanted = now
                    await self._until_saved(work)
        finally:
            if work is not None:
                await _end(work)

    async def _until_saved(self, work: asyncio.Task[None] | None) -> None:
        saved = asyncio.ensure_future(self._saved.wait())
        try:
            await asyncio.wait([saved, *([work] if work else [])], return_when=asyncio.FIRST_COMPLETED)
        finally:
            saved.cancel()
        if work is not None and work.done():
            work.result()

    async def _look(self) -> Wanted | None:
        """The function as it is saved; None, and told why, while it is not valid."""
        try:
            wanted = await asyncio.to_thread(self._wishes.read)
        except OwsgitError as error:
            if str(error) != self._problem:
                self._problem = str(error)
                self._tell(error, "not valid, what runs goes on running")
            return None
        self._problem = ""
        return wanted

    async def _work(self, wanted: Wanted, before: Wanted | None) -> None:
        """Have the function run, answer the events, then whatever is typed."""
        try:
            await self._apply(wanted)
        except InitError as error:
            self._tell_init_error(error)
            self._note_what_runs(before)
        except OwsgitError as error:
            self._tell(error, "not applied")
            self._note_what_runs(before)
        else:
            for event in wanted.events:
                await self._invoke(event)
        while True:
            await self._answer_one(wanted)

    def _note_what_runs(self, before: Wanted | None) -> None:
        self.view.say("owsgit: what ran before goes on" if before else "owsgit: the next save is tried again")

    async def _answer_one(self, wanted: Wanted) -> None:
        """The next event that is typed; or a new worker once a debugger has left."""
        typed, detached = asyncio.ensure_future(self.events.typed()), asyncio.ensure_future(self._detached.wait())
        try:
            await asyncio.wait([typed, detached], return_when=asyncio.FIRST_COMPLETED)
            if detached.done():
                self._detached.clear()
                await self._renew(wanted)
            if typed.done():
                await self._invoke(typed.result())
        finally:
            typed.cancel()
            detached.cancel()

    async def _renew(self, wanted: Wanted) -> None:
        with contextlib.suppress(OwsgitError):  # who asks next is told
            await self._function.observe(wanted.resource)

    async def _apply(self, wanted: Wanted) -> None:
        if self._working.left_out != self._left_out:
            self._left_out = self._working.left_out
            self.view.say(f"owsgit: left out, as not valid: {', '.join(self._left_out) or 'nothing any more'}")
        if self.options.wait:
            self.view.say("owsgit: waiting for a debugger")
        for each in wanted.needs:
            await self._handlers[each.kind.name].apply(each, self._working.tree)
        applied = await self._function.apply(wanted.resource, self._working.tree)
        self._show_new_lines()
        if not self.options.once:
            self.view.say(f"owsgit: {self.options.name} runs: {applied.message}")

    async def _invoke(self, event: Event) -> None:
        request_id = str(uuid.uuid4())
        try:
            answer: Answer = await self._function.invoke(self.options.name, Invocation(event.payload, request_id))
        except OwsgitError as error:
            self.failed = True
            self._tell(error, "not answered")
            return
        self._show_new_lines()
        report = self._reports.pop(request_id, Report())
        self._tell_outcome(Outcome(event.name, request_id, answer.error, answered(answer.payload), report))

    def _tell_init_error(self, error: InitError) -> None:
        self._show_new_lines()
        self._tell_outcome(Outcome("", "", "Unhandled", json.loads(failures.dump(error.report)), Report()))

    def _tell_outcome(self, outcome: Outcome) -> None:
        self.failed = self.failed or outcome.error is not None
        self.view.outcome(outcome)

    def _tell(self, error: OwsgitError, what: str) -> None:
        self.view.say(f"owsgit: {what}:")
        for problem in error.problems:
            for line in problem.lines():
                self.view.say(f"  {line}")

    async def _show_log(self) -> None:
        while True:
            await asyncio.sleep(LOG_SECONDS)
            self._show_new_lines()

    def _show_new_lines(self) -> None:
        for line in self._log:
            with contextlib.suppress(ValueError):
                self._show_line(json.loads(line))

    def _show_line(self, entry: dict[str, Any]) -> None:
        is_platform = entry["level"] == log_lines.PLATFORM
        if is_platform and (found := reports.parse(entry["message"])):
            self._reports[found.request_id] = found
        self.view.log(entry["message"], is_platform)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@contextlib.contextmanager
def _lock(home: Path, name: str) -> Iterator[None]:
    """Only one process may run a function of a clone: another would end its workers as left over."""
    with (home / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UnavailableError(
                f"owsgit dev {name} is running in this clone already", remedy="stop it first, or use another clone"
            ) from None
        yield
