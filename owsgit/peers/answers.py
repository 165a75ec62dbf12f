"""What other nodes ask, and what they are answered. Nobody is believed; every count is bounded."""

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable

from owsgit.model import keys, terminal
from owsgit.model.errors import OwsgitError, RefusedError, UnavailableError
from owsgit.model.service import Told
from owsgit.peers import certificates, recovery, transfer, wire
from owsgit.peers.certificates import Certificate
from owsgit.peers.contact import APPLIED_SECONDS_MAX, Contact
from owsgit.peers.following import DECISIONS_AT_ONCE_MAX, Following
from owsgit.peers.holding import Holding
from owsgit.peers.members import Member
from owsgit.peers.paxos import Accept, Instance, Message, Prepare
from owsgit.peers.proposing import INLINE_BYTES_MAX, Proposing
from owsgit.peers.recovering import Recovering
from owsgit.peers.reviewing import Reviewing
from owsgit.peers.standing import APPROVALS_BYTES_MAX, Caller, Standing
from owsgit.peers.wire import Frame

SYNC_SECONDS_MAX = 5.0
"""How long a node that is asked to vote may catch up first."""

WAITING_MAX = 64
"""Requests at once that wait for something to be applied."""

PACKS_AT_ONCE_MAX = 4
"""Packs that are made at once for other nodes."""

REVIEWS_AT_ONCE_MAX = 100
"""Approvals in one page: at most 800 KB."""

PREPARES_PER_SECOND_MAX = 4.0

PREPARES_AT_ONCE_MAX = 20.0
"""How fast one neighbour may ask for promises: one that asks for ever newer ones keeps nobody from deciding."""


class Answers:
    """The answering side, for every verb."""

    def __init__(
        self,
        at: Standing,
        holding: Holding,
        following: Following,
        recovering: Recovering,
        proposing: Proposing,
        contact: Contact,
        reviewing: Reviewing,
    ) -> None:
        self._at = at
        self._reviewing = reviewing
        self._holding = holding
        self._following = following
        self._recovering = recovering
        self._proposing = proposing
        self._contact = contact
        self._waiting = 0
        self._meeting: set[str] = set()
        self._packing = asyncio.Semaphore(PACKS_AT_ONCE_MAX)
        self._prepares: dict[str, tuple[float, float]] = {}  # of each neighbour: tokens, and when they were counted

    async def answer(self, caller: Caller, frame: Frame) -> Frame:
        """The answer to a request. Problems are told, never raised."""
        verbs: dict[str, Callable[[Caller, Frame], Awaitable[Frame]]]
        verbs = {"hello": self._on_stranger, "found": self._on_found}
        if caller.kind != "stranger":
            verbs = {"hello": self._on_hello, "history": self._on_history}
        if caller.kind == "node":
            more = {"paxos": self._on_paxos, "decided": self._on_decided, "objects": self._on_objects}
            verbs |= {**more, "applied": self._on_applied, "offer": self._on_offer, "reviews": self._on_reviews}
            verbs["open"] = self._on_open
            verbs["service"] = self._on_service
        handler = verbs.get(str(frame.head.get("verb")))
        try:
            if handler is None:
                raise RefusedError(f"a {caller.kind} cannot ask for {terminal.safe(str(frame.head.get('verb')), 20)!r}")
            if caller.kind == "node":
                self._at.take_approvals(frame.head, caller.id)
            return await handler(caller, frame)
        except OwsgitError as error:
            return Frame({"problem": error.problems[0].message})
        except (ValueError, KeyError, TypeError) as error:
            return Frame({"problem": f"the request cannot be read: {type(error).__name__}"})

    async def _on_service(self, caller: Caller, frame: Frame) -> Frame:
        """What the services of nodes say to each other."""
        fields = frame.head.get("fields")
        answer = self._at.host.topics.get(str(frame.head.get("topic")))
        if answer is None or not isinstance(fields, dict):
            raise RefusedError("nobody answers for this topic")
        told = await answer(caller.name, Told(fields, frame.body))
        if len(told.body) > wire.BODY_BYTES_MAX:
            raise RefusedError("the answer is too long")
        return Frame({"fields": dict(told.fields)}, told.body)

    async def _on_hello(self, caller: Caller, frame: Frame) -> Frame:
        if caller.kind == "node":
            member = self._at.members[caller.id]
            if caller.id in self._at.links:
                self._at.links[caller.id][0].wake()
            if caller.id not in self._meeting:  # one at a time
                self._meeting.add(caller.id)
                task = self._at.spawn(self._contact.met(member, frame.head))
                task.add_done_callback(lambda _: self._meeting.discard(caller.id))
        return Frame(self._contact.hello(caller.id))

    async def _on_offer(self, caller: Caller, frame: Frame) -> Frame:
        """Objects that somebody will ask this node to vote for: verified now, so that the vote is quick."""
        head = self._at.ledger.head
        if head is not None and frame.head.get("head") == head.commit and frame.body:
            await self._holding.hold(
                head.commit, wire.commit_id(frame.head.get("tip")), [caller.id], frame.body, by=caller.id
            )
        return Frame({})

    async def _on_paxos(self, caller: Caller, frame: Frame) -> Frame:
        message = wire.message_from_json(frame.head.get("message"))
        await self._recovering.take_recoveries(frame.head)
        if frame.body and isinstance(message, Prepare):
            tip = wire.commit_id(frame.head.get("tip"))
            if self._is_here(message.instance):
                self._at.spawn(self._holding.hold(message.instance.head, tip, [caller.id], frame.body, by=caller.id))
        if not self._is_here(message.instance):
            await self._come_to(caller, message.instance.head)
        head = self._at.ledger.head
        if head is None or message.instance.head != head.commit:
            decided = self._at.store.decision(message.instance.head)
            if decided is None:
                return Frame({"behind": head.commit if head else None})
            return Frame({"decided": decided.document(), **self._at.evidence_for(decided)})
        if not self._is_here(message.instance):
            return Frame({"recoveries": [recovery.document(signed) for signed in self._recovering.relevant(caller.id)]})
        if isinstance(message, Prepare) and not self._may_prepare(caller.id):
            return Frame({"busy": True})
        if isinstance(message, Accept) and not self._at.core.is_late(message):
            try:
                await self._holding.hold(message.instance.head, message.value, [caller.id], by=caller.id)
            except OwsgitError as error:
                return Frame({"refused": error.problems[0].message})
        return await self._at.uninterrupted(self._vote(caller, message))

    async def _vote(self, caller: Caller, message: Message) -> Frame:
        async with self._at.deciding:
            if self._at.core.abstains:
                return Frame({"abstains": True})
            decided = self._at.store.decision(message.instance.head)
            if decided is not None:
                return Frame({"decided": decided.document(), **self._at.evidence_for(decided)})
            if isinstance(message, Accept) and (message.instance.head, message.value) not in self._at.held:
                late = self._at.core.is_late(message) and self._is_here(message.instance)
                if not late:  # the head has moved meanwhile
                    return Frame({"behind": message.instance.head})
            reply = await self._proposing.perform(self._at.core.receive(caller.id, message), caller.id)
        if reply is None:
            return Frame({"behind": message.instance.head})
        return Frame({"message": wire.message_to_json(reply)})

    def _may_prepare(self, node: str) -> bool:
        """A token bucket for each neighbour."""
        now = time.monotonic()
        tokens, counted = self._prepares.get(node, (PREPARES_AT_ONCE_MAX, now))
        tokens = min(PREPARES_AT_ONCE_MAX, tokens + (now - counted) * PREPARES_PER_SECOND_MAX)
        self._prepares[node] = max(0.0, tokens - 1), now
        return tokens >= 1

    def _is_here(self, instance: Instance) -> bool:
        return self._at.core.instance == instance

    async def _come_to(self, caller: Caller, head: str) -> None:
        """Catch up from who asks, for a moment: a node that just missed a decision votes on the next one."""
        if self._at.knows(head) or caller.id not in self._at.links:
            return
        link = self._at.links[caller.id][0]
        link.wake()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SYNC_SECONDS_MAX):
                while not self._at.knows(head) and await link.wait_up(SYNC_SECONDS_MAX):
                    task = self._following.sync(link)
                    if task is not None:
                        await asyncio.shield(task)
                    else:
                        await asyncio.sleep(0.05)

    async def _on_decided(self, caller: Caller, frame: Frame) -> Frame:
        await self._recovering.take_recoveries(frame.head)
        certificate = certificates.parse(json.dumps(frame.head.get("certificate")))
        head = self._at.ledger.head
        if head is not None and certificate.instance.head == head.commit:
            await self._following.learn(certificate, [caller.id])
        elif not self._at.knows(certificate.value) and caller.id in self._at.links:
            self._following.sync(self._at.links[caller.id][0])
        return Frame({"head": self._at.ledger.head.commit if self._at.ledger.head else None})

    async def _on_history(self, caller: Caller, frame: Frame) -> Frame:
        head = self._at.ledger.head
        if head is None:
            raise UnavailableError("this node is empty")
        after = frame.head.get("after")
        founding = await asyncio.to_thread(self._following.founding)
        if after is not None and not self._at.knows(str(after)) and after != founding:
            return Frame({"unknown": True, "head": head.commit, "decisions": []})
        count = min(int(frame.head.get("count", 1)), DECISIONS_AT_ONCE_MAX)
        chain = await asyncio.to_thread(self._at.store.decisions_after, str(after or founding), max(count, 1))
        if caller.kind == "former":  # up to what took the node out, and no further
            _, last = self._at.store.former(caller.id) or ("", "")
            at = next((index for index, each in enumerate(chain) if each.value == last), None)
            before = bool(chain) and self._at.store.is_before(chain[-1].value, last)
            chain = chain[: at + 1] if at is not None else chain if before else []
        chain, approvals = await asyncio.to_thread(self._with_approvals, str(after or founding), chain)
        known = {signed.recovery.id: signed for signed in self._at.store.recoveries()}
        used = [known[each.instance.recovery] for each in chain if each.instance.recovery in known]
        body = b""
        if chain and after is not None:
            async with self._packing:
                objects = await transfer.pack(self._at.ledger.repository, chain[-1].value, str(after), INLINE_BYTES_MAX)
            body = objects or b""
        told = {"founding": founding, "head": head.commit, "decisions": [each.document() for each in chain]}
        return Frame(
            {**told, "recoveries": [recovery.document(signed) for signed in used], "approvals": approvals}, body
        )

    def _with_approvals(self, after: str, chain: list[Certificate]) -> tuple[list[Certificate], list[str]]:
        """As many of the decisions as fit into one message together with the approvals that they rest on."""
        found: list[str] = []
        for index, certificate in enumerate(chain):
            more = self._at.approvals_between(certificate.instance.head, certificate.value).get("approvals", [])
            if index and sum(map(len, (*found, *more))) > APPROVALS_BYTES_MAX:
                return chain[:index], found
            found += more
        return chain, found

    async def _on_objects(self, caller: Caller, frame: Frame) -> Frame:
        want, have = (wire.commit_id(frame.head.get(name)) for name in ("want", "have"))
        async with self._packing:
            data = await transfer.pack(self._at.ledger.repository, want, have, wire.OBJECTS_BYTES_MAX)
        return Frame({"large": data is None, **self._at.approvals_between(have, want)}, data or b"")

    async def _on_open(self, caller: Caller, frame: Frame) -> Frame:
        """What is proposed, and what was said of it."""
        return Frame(await asyncio.to_thread(self._reviewing.listed))

    async def _on_reviews(self, caller: Caller, frame: Frame) -> Frame:
        """A page of everything that this node keeps of reviews: for an empty node, which verifies all of history."""
        after = int(frame.head.get("after", 0))
        page = await asyncio.to_thread(self._at.ledger.reviews.all_after, after, REVIEWS_AT_ONCE_MAX)
        return Frame({"approvals": [(row, verdict.data.decode("latin-1")) for row, verdict in page]})

    async def _on_applied(self, caller: Caller, frame: Frame) -> Frame:
        """Answers when `commit`, or something after it, was applied; at the latest after `seconds`."""
        commit = wire.commit_id(frame.head.get("commit"))
        seconds = min(float(frame.head.get("seconds", 0)), APPLIED_SECONDS_MAX)
        self._waiting += 1
        try:
            done = await self._contact.wait_applied(commit, seconds if self._waiting <= WAITING_MAX else 0.0)
        finally:
            self._waiting -= 1
        return Frame({"done": done, "status": self._contact.own_status().document()})

    async def _on_stranger(self, caller: Caller, frame: Frame) -> Frame:
        return Frame({"empty": True})

    async def _on_found(self, caller: Caller, frame: Frame) -> Frame:
        """A node that names this empty one says where it is: dial back, and look at what it has."""
        port = int(frame.head.get("port", 0))
        if self._at.ledger.head is not None or not 0 < port < 65536 or len(self._following.syncs) >= 4:
            raise RefusedError("this node is not waiting for a project")
        key = keys.parse_ssh(caller.key)
        self._at.spawn(self._contact.dial_back(Member(caller.id, caller.host, key, caller.host, port)))
        return Frame({})
