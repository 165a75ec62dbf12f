"""The loop that makes the desired state real, again and again."""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from owsgit.model import terminal
from owsgit.model.change import Verb
from owsgit.model.errors import OwsgitError
from owsgit.model.resource import Resource
from owsgit.model.service import Handler
from owsgit.model.spec import Suspendable
from owsgit.model.state import State
from owsgit.reconcile import plan
from owsgit.reconcile.inventory import Inventory, Phase, Row, now
from owsgit.reconcile.plan import Plan, Step

APPLY_SECONDS_MAX = 120.0
"""A resource that takes longer has failed, and is tried again later."""

APPLY_AT_ONCE_MAX = 4
RETRY_SECONDS_FIRST = 1.0
RETRY_SECONDS_MAX = 300.0
OBSERVE_SECONDS = 10.0
"""How often every resource is compared with what was applied."""

PROGRESS_CHARACTERS_MAX = 200
log = logging.getLogger("owsgit.reconcile")


@dataclass(frozen=True)
class Desired:
    """What is wanted: the state at a commit."""

    commit: str
    state: State


@dataclass(frozen=True)
class Planned:
    commit: str
    plan: Plan


@dataclass(frozen=True)
class Stepped:
    """A step that was tried; `row` is None after a deletion."""

    commit: str
    step: Step
    row: Row | None
    seconds: float


@dataclass(frozen=True)
class Progress:
    """How it goes with a resource (by key) that takes long to apply, in words."""

    key: str
    text: str


@dataclass(frozen=True)
class Settled:
    """Everything was tried once for `commit`; `failed` resources are in the state failed."""

    commit: str
    failed: int = 0


Event = Planned | Stepped | Progress | Settled


@dataclass
class _Retry:
    attempts: int = 0
    due: float = 0.0


class Reconciler:
    """Applies what `desired` reads, by `handlers` (by kind name), and remembers it in `inventory`."""

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        inventory: Inventory,
        desired: Callable[[], Awaitable[Desired | None]],
        *,
        observe_seconds: float = OBSERVE_SECONDS,
    ) -> None:
        self._handlers = handlers
        self._inventory = inventory
        self._desired = desired
        self._observe_seconds = observe_seconds
        self._wake = asyncio.Event()
        self._live: dict[str, str] = {}  # key → version that runs in this process
        self._retries: dict[str, _Retry] = {}
        self._subscribers: set[asyncio.Queue[Event]] = set()
        self._slots = asyncio.Semaphore(APPLY_AT_ONCE_MAX)
        self.settled = ""  # the last commit for which everything was tried

    def wake(self) -> None:
        """Look at the desired state now."""
        self._wake.set()

    @asynccontextmanager
    async def events(self) -> AsyncIterator[asyncio.Queue[Event]]:
        """Everything that happens from now on."""
        queue: asyncio.Queue[Event] = asyncio.Queue()
        self._subscribers.add(queue)
        try:
            yield queue
        finally:
            self._subscribers.discard(queue)

    def _publish(self, event: Event) -> None:
        for queue in self._subscribers:
            queue.put_nowait(event)

    def report(self, key: str, text: str) -> None:
        """Tell how it goes with a resource that is being applied: whoever waits for it, and its status."""
        text = terminal.safe(text, PROGRESS_CHARACTERS_MAX)
        row = self._inventory.rows.get(key)
        if row is not None and row.phase is Phase.PROGRESSING:
            self._inventory.put(replace(row, message=text))
        self._publish(Progress(key, text))

    async def run(self) -> None:
        """Reconcile until cancelled."""
        observe_at = time.monotonic() + self._observe_seconds
        while True:
            self._wake.clear()
            try:
                desired = await self._desired()
                if desired is not None:
                    await self.reconcile(desired)
            except Exception:  # whatever it is: what runs goes on running, and the next round may do better
                log.exception("reconciling failed")
            if time.monotonic() >= observe_at:
                await self._observe()
                observe_at = time.monotonic() + self._observe_seconds
            due = [observe_at, *(retry.due for retry in self._retries.values())]
            try:
                await asyncio.wait_for(self._wake.wait(), max(min(due) - time.monotonic(), 0.01))
            except TimeoutError:
                continue

    def _plan(self, state: State) -> Plan:
        """Differences to the inventory, and what is applied by it but does not run in this process (yet)."""
        wanted = plan.of_kinds(state.resources.values(), self._handlers.__contains__)
        applied = self._inventory.applied()
        running = {key: resource for key, resource in applied.items() if key not in wanted or key in self._live}
        gone = {key: row for key, row in self._inventory.rows.items() if key not in wanted and key not in running}
        for key in gone:  # never made real: nothing to delete
            self._inventory.remove(key)
        made = plan.make(running, wanted)
        return Plan((*made.levels, tuple(self._stale(wanted, {step.key for step in made.steps}))))

    def _stale(self, wanted: Mapping[str, Resource], planned: set[str]) -> Iterator[Step]:
        """What is as wanted, as after a revert, but has the status of something else that was tried in between."""
        for key, resource in wanted.items():
            row = self._inventory.rows.get(key)
            suspended = isinstance(resource.spec, Suspendable) and resource.spec.suspend
            if row is not None and key not in planned and row.phase is not Phase.READY and not suspended:
                yield Step(Verb.UPDATE, resource)

    async def reconcile(self, desired: Desired) -> None:
        """Try once everything that is due for `desired`."""
        made = self._plan(desired.state)
        open_keys = {step.key for step in made.steps}
        self._retries = {key: retry for key, retry in self._retries.items() if key in open_keys}
        due = Plan(tuple(tuple(step for step in level if self._is_due(step, desired)) for level in made.levels))
        self._publish(Planned(desired.commit, due))
        for level in due.levels:
            await asyncio.gather(*(self._step(step, desired.commit) for step in level))
        self.settled = desired.commit
        failed = [row.key for row in self._inventory.rows.values() if row.phase is Phase.FAILED]
        self._publish(Settled(desired.commit, len(failed)))

    def _is_due(self, step: Step, desired: Desired) -> bool:
        retry = self._retries.get(step.key)
        row = self._inventory.rows.get(step.key)
        if row is not None and row.commit != desired.commit and (row.phase is not Phase.SUSPENDED):
            return True  # the ledger moved on: what failed gets a new chance at once
        if retry is not None:
            return time.monotonic() >= retry.due
        return not (
            row is not None and row.phase is Phase.SUSPENDED and row.commit == desired.commit and self._held(row)
        )

    def _held(self, row: Row) -> bool:
        return row.applied is None or row.key in self._live

    async def _step(self, step: Step, commit: str) -> None:
        async with self._slots:
            began = time.monotonic()
            row = await (self._delete(step) if step.verb is Verb.DELETE else self._apply(step.resource, commit))
            outcome = f"{row.phase}: {row.message}" if row is not None else "deleted"
            log.info("%s %s at %s: %s", step.verb, step.key, commit[:10], outcome)
            self._publish(Stepped(commit, step, row, time.monotonic() - began))

    async def _delete(self, step: Step) -> Row | None:
        row = self._inventory.rows[step.key]
        try:
            async with asyncio.timeout(APPLY_SECONDS_MAX):
                await self._handlers[step.resource.kind.name].delete(step.resource.name)
        except Exception as error:
            return self._failed(row, error)
        self._inventory.remove(step.key)
        self._live.pop(step.key, None)
        self._retries.pop(step.key, None)
        return None

    async def _apply(self, resource: Resource, commit: str) -> Row:
        key = resource.key
        row = self._inventory.rows.get(key) or Row(key, resource.kind.name, resource.name, Phase.PROGRESSING)
        suspended = isinstance(resource.spec, Suspendable) and resource.spec.suspend
        if key not in self._live and row.applied is not None and (suspended or row.applied.version != resource.version):
            await self._bring_back(row.applied, commit)
        if suspended:
            message = "suspended: changes wait until suspend is false"
            return self._inventory.put(replace(row, phase=Phase.SUSPENDED, message=message, commit=commit, attempts=0))
        if row.phase is not Phase.READY or row.applied is None or row.applied.version != resource.version:
            row = self._inventory.put(replace(row, phase=Phase.PROGRESSING, message="applying", commit=commit))
        try:
            async with asyncio.timeout(APPLY_SECONDS_MAX):
                applied = await self._handlers[resource.kind.name].apply(resource, commit)
        except Exception as error:
            return self._failed(replace(row, commit=commit), error, resource.file)
        if row.phase is Phase.READY and row.applied is not None and row.applied.version == resource.version:
            commit = row.commit or commit  # it only runs again, as after a start
        self._live[key] = resource.version
        self._retries.pop(key, None)
        return self._inventory.put(
            replace(
                row,
                phase=Phase.READY,
                message=applied.message,
                commit=commit,
                attempts=0,
                urls=applied.urls,
                applied=resource,
            )
        )

    async def _bring_back(self, applied: Resource, commit: str) -> None:
        """After a start: have what served last serve again, before something newer is tried."""
        try:
            async with asyncio.timeout(APPLY_SECONDS_MAX):
                await self._handlers[applied.kind.name].apply(applied, commit)
            self._live[applied.key] = applied.version
        except Exception as error:
            log.warning("%s: what served before does not any more: %s", applied.key, error)

    def _failed(self, row: Row, error: Exception, file: str = "") -> Row:
        retry = self._retries.setdefault(row.key, _Retry())
        retry.attempts += 1
        pause = min(RETRY_SECONDS_FIRST * 2 ** (retry.attempts - 1), RETRY_SECONDS_MAX)
        retry.due = time.monotonic() + pause * random.uniform(0.8, 1.2)  # noqa: S311 - jitter, not a secret
        if isinstance(error, OwsgitError):
            placed = [replace(each, file=each.file or (file if each.path else "")) for each in error.problems]
            message = "\n".join(line for each in placed for line in each.lines())
        elif isinstance(error, TimeoutError):
            message = f"not done within {APPLY_SECONDS_MAX:.0f} s"
        else:
            log.error("%s failed", row.key, exc_info=error)
            message = f"{type(error).__name__}: {error}"
        message = terminal.safe_lines(message)
        if row.applied is not None and row.key in self._live and row.applied.version == self._live[row.key]:
            message += "\n  what was applied before goes on serving"
        return self._inventory.put(replace(row, phase=Phase.FAILED, message=message, attempts=retry.attempts))

    async def _observe(self) -> None:
        """Look for drift; what drifted is applied again."""
        for key in list(self._live):
            row = self._inventory.rows.get(key)
            if row is None or row.applied is None or row.phase is not Phase.READY:
                continue
            handler = self._handlers[row.kind]
            try:
                drift = await handler.observe(row.applied)
                if drift is None:
                    continue
                log.warning("%s drifted: %s", key, drift)
                async with asyncio.timeout(APPLY_SECONDS_MAX):
                    await handler.apply(row.applied, row.commit)
            except Exception as error:
                self._live.pop(key, None)
                self._failed(row, error)
                continue
            self._inventory.put(replace(row, drift=f"{now()} {drift}; repaired"))
