"""Keeping in touch: hellos, statuses, the notes that tell everybody, and what is applied where."""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from owsgit.model.errors import OwsgitError
from owsgit.peers import recovery, restored, statuses
from owsgit.peers.certificates import Certificate
from owsgit.peers.following import DECISIONS_AT_ONCE_MAX, Following
from owsgit.peers.links import Link
from owsgit.peers.members import Member
from owsgit.peers.notes import Notes
from owsgit.peers.recovering import Recovering
from owsgit.peers.reviewing import Reviewing
from owsgit.peers.standing import Standing
from owsgit.peers.statuses import NodeStatus, SignedStatus

HELLO_SECONDS = 10.0
"""Anti-entropy: how often a node compares heads with each neighbour when nothing happens."""

NOTES_SECONDS = 0.5
VOTES_SECONDS = 0.15
"""A push has its answer before the notes are written; whoever fetches after it finds them."""


APPLIED_SECONDS_MAX = 20.0
"""How long another node's question whether something is applied waits for its answer; it asks again."""

AWAY_SECONDS = 5.0
"""How long a pusher who waits for others waits for one that cannot be reached."""
log = logging.getLogger("owsgit.peers")


class Contact:
    """Says hello to each neighbour again and again: anti-entropy."""

    def __init__(self, at: Standing, following: Following, recovering: Recovering, reviewing: Reviewing) -> None:
        self._at = at
        self._reviewing = reviewing
        self._following = following
        self._recovering = recovering
        self._notes = Notes(at.ledger.repository.path)
        self._fresh = asyncio.Event()  # there are notes to write
        self._votes: list[Certificate] = []
        self._recoveries_written = 0
        self._applied = ""
        self._failed: tuple[str, ...] = ()
        self._settled = asyncio.Condition()
        self._heads_seen: dict[str, str | None] = {}  # since the start: for a node that was restored
        at.on_up = self.on_up
        at.on_reviewed = self._on_reviewed
        at.on_moved.append(self._on_moved)

    async def _on_moved(self, decided: Sequence[Certificate]) -> None:
        self._votes += decided
        self._fresh.set()
        await self._end_abstaining()

    def _on_reviewed(self) -> None:
        """Something was proposed or said: the others ask for it when they hear of it."""
        self._fresh.set()
        for link, _ in self._at.links.values():
            if link.up:
                self._at.spawn(self.say_hello(link))

    def on_up(self, link: Link) -> None:
        self._at.spawn(self._greet(link))

    async def _greet(self, link: Link) -> None:
        """Compare heads: at once, and again and again while the link is up."""
        while link.up and self._at.links.get(link.member.id, (None,))[0] is link:
            try:
                await self._following.resume()
                await self.say_hello(link)
            except OwsgitError as error:
                self._at.note(link.member.id, problem=error.problems[0].message)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                self._at.note(link.member.id, problem=f"it answers with nonsense ({type(error).__name__})")
            except Exception as error:  # a full disk, for instance: the next round may do better
                log.exception("catching up with %s failed", link.member.name)
                self._at.note(link.member.id, problem=f"this node failed: {type(error).__name__}")
            await asyncio.sleep(HELLO_SECONDS * random.uniform(0.7, 1.3))  # noqa: S311 - jitter, not a secret

    def hello(self, to: str) -> dict[str, Any]:
        head = self._at.ledger.head
        relevant = self._recovering.relevant(to)
        told: dict[str, Any] = {
            "head": head.commit if head else None,
            "status": self.own_status().document(),
            "recoveries": [recovery.document(signed) for signed in relevant],
            "reviews": self._reviewing.digest() if head else None,
        }
        for signed in relevant:
            decided = self._at.store.decision(signed.recovery.head)
            if to in signed.recovery.lost and decided is not None and decided.instance.recovery == signed.recovery.id:
                told["without"] = decided.document()
        return told

    async def met(self, member: Member, told: Mapping[str, Any]) -> None:
        """What a node told of itself: remember it, and catch up if it is ahead."""
        self._at.note(member.id)
        if told.get("empty") and member.id in self._at.links:
            await self._at.links[member.id][0].request("found", {"port": self._at.own.port})
            return
        await self._recovering.take_recoveries(told)
        if "status" in told:
            signed = statuses.check(told["status"], member.key, member.name)
            seen = self._at.seen.get(member.id)
            if seen is not None:
                changed = seen.status is None or seen.status.status.applied != signed.status.applied
                seen.status = signed
                if changed:
                    self._fresh.set()
        head = told.get("head")
        if isinstance(head, str):
            self._heads_seen[member.id] = head
            if not self._at.knows(head) and member.id in self._at.links:
                link = self._at.links[member.id][0]
                link.wake()
                self._following.sync(link)
            else:
                await self._end_abstaining()
        if member.id in self._at.links:
            self._reviewing.met(self._at.links[member.id][0], told)

    async def look_around(self, seconds: float) -> None:
        """Ask all connected nodes how they are, for at most `seconds`."""

        async def ask(link: Link) -> None:
            with contextlib.suppress(OwsgitError):
                await self.say_hello(link)

        asking = [asyncio.ensure_future(ask(link)) for link, _ in self._at.links.values() if link.up]
        if asking:
            _, late = await asyncio.wait(asking, timeout=seconds)
            for task in late:
                task.cancel()

    def own_status(self) -> SignedStatus:
        """This node's status, signed."""
        head = self._at.ledger.head
        return statuses.sign(
            self._at.own.key,
            NodeStatus.model_validate(
                {
                    "node": self._at.own.name,
                    "head": head.commit if head else None,
                    "applied": self._applied or None,
                    "failed": list(self._failed[: statuses.FAILED_MAX]),
                    "version": self._at.own.version,
                    "time": self._at.host.now(),
                    "problem": (self._at.problem or self._at.host.lack())[:2000],
                }
            ),
        )

    async def settled(self, commit: str, failed: Iterable[str]) -> None:
        """The reconciler has tried everything for `commit`."""
        self._applied, self._failed = commit, tuple(failed)
        self._fresh.set()
        async with self._settled:
            self._settled.notify_all()

    async def write_notes(self) -> None:
        """Notes are written behind everything else; they can always be made again from what is stored."""
        told: dict[str, tuple[str | None, tuple[str, ...]]] = {}
        names: set[str] = set()
        try:
            await asyncio.to_thread(self._complete_votes)
        except Exception:
            log.exception("the notes of votes could not be completed")
        while True:
            await self._fresh.wait()
            await asyncio.sleep(VOTES_SECONDS if self._votes else NOTES_SECONDS)
            self._fresh.clear()
            votes, self._votes = self._votes, []
            reviews = self._at.ledger.reviews
            reviewed, reviews.fresh = reviews.fresh, set()
            signed = [self.own_status(), *(seen.status for seen in self._at.seen.values() if seen.status is not None)]
            fresh = [each for each in signed if told.get(each.status.node) != _essence(each)]
            present = {self._at.own.name, *(member.name for member in self._at.members.values())}
            try:
                await asyncio.to_thread(self._write, votes, fresh, present if present != names else None, reviewed)
                told |= {each.status.node: _essence(each) for each in fresh}
                names = present
            except OSError as error:  # a full disk, mostly: as often as there is something to note
                log.error("notes could not be written: %s", error)
            except Exception:
                log.exception("notes could not be written")
                self._votes = votes + self._votes
                reviews.fresh |= reviewed
                await asyncio.sleep(HELLO_SECONDS)
                self._fresh.set()

    def _write(
        self, votes: list[Certificate], fresh: list[SignedStatus], present: set[str] | None, reviewed: set[str]
    ) -> None:
        if reviewed:  # before the votes: whoever sees these can verify what they are about
            kept = self._at.ledger.reviews.kept
            self._notes.write_reviews({commit: kept(commit) for commit in reviewed})
        if votes:
            self._notes.write_votes(votes)
        recoveries = self._at.store.recoveries()
        if len(recoveries) != self._recoveries_written:
            self._notes.write_recoveries(recoveries)
            self._recoveries_written = len(recoveries)
        for signed in fresh:
            self._notes.write_status(signed)
        if present is not None:
            self._notes.keep_only(present)

    def _complete_votes(self) -> None:
        """Votes whose notes were not written before the node ended."""
        missing: list[Certificate] = []
        head = self._at.ledger.head
        self._notes.drop_damaged()
        present = self._notes.votes() if head is not None else {}
        if reviews := self._at.ledger.reviews:
            unwritten = set(reviews.commits()) - self._notes.reviewed()
            self._notes.write_reviews({commit: reviews.kept(commit) for commit in unwritten})
        at = head.commit if head is not None else ""
        while at and at not in present and (decided := self._at.store.decision_for(at)) is not None:
            missing.append(decided)
            at = decided.instance.head
        if missing:
            self._notes.write_votes(missing)

    async def wait_applied(self, commit: str, seconds: float) -> bool:
        """Whether everything was tried for `commit`, or for a head after it, within `seconds`."""

        def done() -> bool:
            at: str | None = self._applied
            for _ in range(DECISIONS_AT_ONCE_MAX):
                if not at or at == commit:
                    return at == commit
                decided = self._at.store.decision_for(at)
                at = decided.instance.head if decided else None
            return False

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._settled:
                await self._settled.wait_for(done)
        return done()

    async def others_applied(self, commit: str, seconds: float, report: Callable[[Member, NodeStatus], None]) -> None:
        """Tell `report` of every other node that has applied `commit`, as it comes, for at most `seconds`."""

        end = time.monotonic() + seconds

        async def ask(link: Link) -> None:
            done = False
            while not done and (left := end - time.monotonic()) > 0 and await link.wait_up(min(left, AWAY_SECONDS)):
                wait = min(left, APPLIED_SECONDS_MAX)
                with contextlib.suppress(OwsgitError):
                    fields = {"commit": commit, "seconds": wait}
                    answer = await link.request("applied", fields, seconds=wait + 5)
                    signed = statuses.check(answer.head.get("status"), link.member.key, link.member.name)
                    await self.met(link.member, {"status": signed.document()})
                    done = answer.head.get("done") is True
                    if done:
                        report(link.member, signed.status)
                    if done or signed.status.problem:  # a node that says why it does not follow is not waited for
                        return
                await asyncio.sleep(0.2)

        await asyncio.gather(*(ask(link) for link, _ in list(self._at.links.values())))

    async def say_hello(self, link: Link) -> None:
        answer = await link.request("hello", self.hello(link.member.id))
        await self.met(link.member, answer.head)

    async def _end_abstaining(self) -> None:
        """After a restore: note the newest head, once enough others have told theirs and this node has caught up."""
        head = self._at.ledger.head
        if head is None or not self._at.abstains:
            return
        told = [self._heads_seen.get(id_) for id_ in self._at.members if id_ != self._at.own.id]
        known = [each for each in told if each is not None and self._at.knows(each)]
        everyone = frozenset(self._at.members)
        if await asyncio.to_thread(restored.note_newest, self._at.store, head.commit, everyone, len(known)):
            log.info("restored: this node votes again after two more decisions")

    async def dial_back(self, member: Member) -> None:
        link = Link(self._at.dialer, member, lambda _: None)
        task = asyncio.ensure_future(link.run())
        try:
            if await link.wait_up(10) and self._at.ledger.head is None:
                sync = self._following.sync(link)
                if sync is not None:
                    await sync
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _essence(signed: SignedStatus) -> tuple[str | None, tuple[str, ...]]:
    return signed.status.applied, tuple(signed.status.failed)
