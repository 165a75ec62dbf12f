"""Following what was decided: one decision at a time, or thousands after a long absence."""

import asyncio
import json
import logging
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from owsgit.ledger.verify import CommitReport, Verified
from owsgit.model import keys
from owsgit.model.core import NodeSpec
from owsgit.model.errors import RefusedError
from owsgit.peers import certificates, members, recovery, transfer, wire
from owsgit.peers.certificates import Certificate, CertificateError
from owsgit.peers.holding import Holding
from owsgit.peers.links import Link
from owsgit.peers.recovery import SignedRecovery
from owsgit.peers.standing import Standing

DECISIONS_AT_ONCE_MAX = 500

STALL_SECONDS = 3.0
"""After so long without progress from one neighbour, a node catches up from another as well."""

FOUNDING = "founding"
log = logging.getLogger("owsgit.peers")


class Following:
    """Moves the head: never without a certificate, never to what this node did not verify."""

    def __init__(self, at: Standing, holding: Holding) -> None:
        self._at = at
        self._holding = holding
        self.syncs: dict[str, asyncio.Task[None]] = {}
        self._progress = 0.0  # when a sync last brought something

    async def found(self, tip: str) -> None:
        """The first push to an empty node: its history up to the first head that names nodes needs no votes."""
        await self._at.uninterrupted(self._found(tip))

    async def _found(self, tip: str) -> None:
        async with self._at.moving:
            if self._at.ledger.head is not None:
                return  # somebody else founded it: this push goes on as any other
            async with self._at.host.reading:
                objects = self._at.ledger.repository.objects
                first = await asyncio.to_thread(self._at.ledger.founding, tip, objects)
                await asyncio.to_thread(self._at.store.put_fact, FOUNDING, first.commit)
                await asyncio.to_thread(self._at.ledger.adopt, first)
            await self._at.moved(None, [])
        for member in self._at.members.values():
            if member.id != self._at.own.id:
                log.info("the project names the node %s at %s:%s", member.name, member.address, member.port)

    async def learn(self, certificate: Certificate, sources: Iterable[str]) -> bool:
        """Follow one decision, if it is the next one. Raises CertificateError, RefusedError or LinkError."""
        head = self._at.ledger.head
        if head is None or certificate.instance.head != head.commit:
            return False
        self._at.check_certificate(certificate, head.state)
        await self._holding.hold(head.commit, certificate.value, sources)
        return await self._at.uninterrupted(self._follow(head, certificate))

    async def _follow(self, head: Verified, certificate: Certificate) -> bool:
        async with self._at.moving:
            if self._at.ledger.head is not head:
                return False
            async with self._at.host.reading:
                await asyncio.to_thread(self._at.store.put_decisions, [certificate])
                await asyncio.to_thread(self._at.ledger.follow, certificate.value)
            await self._at.moved(head, [certificate])
            return True

    async def resume(self) -> None:
        """Follow what is known to be decided, where following it failed before: on a full disk, for instance."""
        head = self._at.ledger.head
        if head is None:
            return
        if (decided := self._at.store.decision(head.commit)) is not None:
            await self.learn(decided, decided.votes)
        async with self._at.moving:
            head = self._at.ledger.head
            assert head is not None
            if self._at.core.instance is None or self._at.core.instance.head != head.commit:
                await self._at.moved(None, [])

    def sync(self, link: Link) -> "asyncio.Task[None] | None":
        """Catch up from a neighbour, unless another one is at it and makes progress."""
        id_ = link.member.id
        if id_ in self.syncs:
            return self.syncs[id_]
        if self.syncs and time.monotonic() - self._progress < STALL_SECONDS:
            return None
        task = self._at.spawn(self._catch_up(link))
        self.syncs[id_] = task
        self._progress = time.monotonic()
        task.add_done_callback(lambda _: self.syncs.pop(id_, None))
        return task

    async def _catch_up(self, link: Link) -> None:
        """Step by step, so that memory stays bounded however long the node was away."""
        count = DECISIONS_AT_ONCE_MAX
        while True:
            head = self._at.ledger.head
            answer = await link.request("history", {"after": head.commit if head else None, "count": count})
            self._at.note(link.member.id)
            self._at.take_approvals(answer.head, link.member.id)
            if head is not None and answer.head.get("unknown"):
                self._at.fork(link.member, str(answer.head.get("head")))
                return
            told = {each.recovery.id: each for each in recovery.told(answer.head)}
            chain = [
                certificates.parse(json.dumps(each)) for each in wire.list_of(answer.head.get("decisions"))[:count]
            ]
            if head is None:
                await self._adopt(
                    link, wire.commit_id(answer.head.get("founding")), wire.commit_id(answer.head.get("head"))
                )
                continue
            if not chain:
                return
            try:
                await self._take(link, head, chain, answer.body, told)
            except transfer.TooLargeError:
                if count == 1:
                    raise
                count = max(1, count // 8)

    async def _take(
        self,
        link: Link,
        head: Verified,
        chain: list[Certificate],
        body: bytes,
        recoveries: Mapping[str, SignedRecovery],
    ) -> None:
        """Verify and follow a chain of decisions from `head`. `recoveries` are what the neighbour told of them."""
        repository = self._at.ledger.repository
        async with transfer.quarantine(self._at.own.home) as folder:
            if body:
                await transfer.unpack(repository, body, folder)
            else:
                await transfer.fetch(repository, link, chain[-1].value, folder)
            self._progress = time.monotonic()
            await self._at.uninterrupted(self._follow_chain(head, chain, folder, recoveries))
        self._progress = time.monotonic()
        log.info("followed %s to %s (%s decisions)", link.member.name, chain[-1].value[:10], len(chain))

    async def _follow_chain(
        self, head: Verified, chain: list[Certificate], folder: Path, recoveries: Mapping[str, SignedRecovery]
    ) -> None:
        async with self._at.moving:
            if self._at.ledger.head is not head:
                return  # somebody else was quicker
            async with self._at.host.reading:
                last = await asyncio.to_thread(self._verify_chain, head, chain, folder, recoveries)
                await asyncio.to_thread(transfer.migrate, self._at.ledger.repository, folder)
                for id_ in {certificate.instance.recovery for certificate in chain} & recoveries.keys():
                    await asyncio.to_thread(self._at.store.put_recovery, recoveries[id_])
                await asyncio.to_thread(self._at.store.put_decisions, chain)
                await asyncio.to_thread(self._at.ledger.adopt, last)
            await self._at.moved(head, chain)

    def _verify_chain(
        self, head: Verified, chain: list[Certificate], folder: Path, recoveries: Mapping[str, SignedRecovery]
    ) -> Verified:
        objects = self._at.ledger.repository.quarantined(folder)
        for certificate in chain:
            if certificate.instance.head != head.commit:
                raise CertificateError("the decisions do not follow each other")
            self._at.check_certificate(certificate, head.state, recoveries)
            before = members.of(head.state)
            head = self._at.ledger.extend(head, certificate.value, objects)
            for gone in before.keys() - members.of(head.state).keys():
                self._at.store.put_former(gone, before[gone].name, head.commit)
        return head

    async def _adopt(self, link: Link, first: str, newest: str) -> None:
        """An empty node takes its owner's project from a node of it.

        The owner has to have signed the genesis commit, or what adds this node: that a project lists the owner's key
        proves nothing. And the newest head has to name this node. Votes are checked when it catches up from there.
        """
        repository = self._at.ledger.repository
        async with transfer.quarantine(self._at.own.home) as folder:
            await transfer.fetch(repository, link, newest, folder)
            await self._ask_reviews(link)
            await self._at.uninterrupted(self._take_first(first, newest, folder))

    async def _ask_reviews(self, link: Link) -> None:
        """All approvals that a neighbour keeps: the whole history is verified with them."""
        after = 0
        while True:
            answer = await link.request("reviews", {"after": after})
            page = [(int(row), text) for row, text in wire.list_of(answer.head.get("approvals"))]
            if not page or page[-1][0] <= after:
                return
            self._at.take_approvals({"approvals": [text for _, text in page]}, link.member.id)
            after = page[-1][0]

    async def _take_first(self, first: str, newest: str, folder: Path) -> None:
        signers: set[str] = set()

        def seen(report: CommitReport) -> None:
            adds = any(
                change.after is not None and self._at.own.id in _keys_of(change.after.spec) for change in report.changes
            )
            if adds or not report.commit.parents:
                signers.add(report.signer.fingerprint)

        async with self._at.moving:
            if self._at.ledger.head is not None:
                return
            objects = self._at.ledger.repository.quarantined(folder)
            async with self._at.host.reading:
                found = await asyncio.to_thread(self._at.ledger.founding, newest, objects, seen)
                last = await asyncio.to_thread(self._at.ledger.walk, found, newest, objects)
                if found.commit != first or self._at.own.id not in members.of(last.state):
                    raise RefusedError("the project does not name this node")
                self._at.host.check_owner(frozenset(signers))
                await asyncio.to_thread(transfer.migrate, self._at.ledger.repository, folder)
                await asyncio.to_thread(self._at.store.put_fact, FOUNDING, first)
                await asyncio.to_thread(self._at.ledger.adopt, found)
            await self._at.moved(None, [])

    def founding(self) -> str:
        found = self._at.store.fact(FOUNDING)
        if found is None:
            head = self._at.ledger.head
            assert head is not None
            found = self._at.ledger.founding(head.commit, self._at.ledger.repository.objects).commit
            self._at.store.put_fact(FOUNDING, found)
        return found


def _keys_of(spec: object) -> set[str]:
    return {keys.parse_ssh(spec.key).fingerprint} if isinstance(spec, NodeSpec) else set()
