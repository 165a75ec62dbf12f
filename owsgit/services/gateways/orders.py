"""Certificates that are ordered from authorities (ACME): one node orders, all show what it got.

Which node orders follows from the names of the nodes alone (rendezvous hashing), so there is nothing to agree on; if
it brings nothing, the next one takes over after a time. The one that orders tells the others what the authority is
going to ask, as it may ask any of them; the others fetch the certificate from it. All of this goes over the nodes' own
connections. Accounts and certificates are kept in the node's home, so that a start orders nothing anew.
"""

import asyncio
import contextlib
import hashlib
import logging
import os
import random
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from owsgit.gateway.certificates import Certificate
from owsgit.model.errors import InvalidError, OwsgitError, UnavailableError
from owsgit.model.service import Neighbours, Told
from owsgit.services.gateways.tls import AcmeSpec

if TYPE_CHECKING:
    from owsgit.gateway.acme import Authority, Challenge

TOPIC = "certificates"
TAKE_OVER_SECONDS = 300.0
"""How long the next node waits for the one before it, before it orders itself."""

ASK_SECONDS = 15.0
"""How often a node that waits for another's certificate asks for it."""

LOOK_SECONDS = 6 * 3600.0
RETRY_SECONDS_FIRST = 120.0
RETRY_SECONDS_MAX = 6 * 3600.0
"""Let's Encrypt refuses a name after five failures within an hour."""

CHALLENGE_SECONDS = 600.0
CHALLENGES_MAX = 1000
TELL_SECONDS_MAX = 6.0
_ANSWER = re.compile(r"[A-Za-z0-9_-]{1,256}\.[A-Za-z0-9_-]{1,128}")
log = logging.getLogger("owsgit.gateways")


@dataclass
class _Wanted:
    """A certificate that gateways want, and how far it is."""

    host: str
    acme: AcmeSpec
    owners: set[str] = field(default_factory=set)
    certificate: Certificate | None = None
    problem: str = ""
    since: float | None = None  # when there was none, or one to be renewed; by the loop's clock
    failures: int = 0
    tried: asyncio.Event = field(default_factory=asyncio.Event)  # set when there is one, or an order has failed
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    task: "asyncio.Task[None] | None" = None


class Orders:
    """All certificates of this node that come from authorities."""

    def __init__(
        self,
        folder: Path,
        neighbours: Neighbours,
        changed: Callable[[str], None],
        prove: Callable[[str, bytes | None], None],
    ) -> None:
        """`changed` is told the owner of a certificate that is new; `prove` has one shown to an authority."""
        self._folder, self._neighbours = folder, neighbours
        self._changed, self._prove = changed, prove
        self._wanted: dict[tuple[str, str], _Wanted] = {}  # by directory and host
        self._challenges: dict[tuple[str, str], tuple[str, float]] = {}  # by host and token: answer, until when
        self._one = asyncio.Lock()  # an order at a time
        neighbours.answer(TOPIC, self._on_told)

    def want(self, owner: str, wanted: Mapping[str, AcmeSpec]) -> None:
        """`owner` needs certificates for these hosts, and no others from now on."""
        keys = {(acme.directory, host): acme for host, acme in wanted.items()}
        for key, acme in keys.items():
            known = self._wanted.get(key)
            if known is None:
                known = self._wanted[key] = _Wanted(key[1], acme)
                known.certificate = self._stored(known)
            elif known.acme != acme:
                known.acme, known.failures = acme, 0
                known.wake.set()
            known.owners.add(owner)
            if known.task is None:
                known.task = asyncio.ensure_future(self._keep(known))
        for key, known in list(self._wanted.items()):
            if key not in keys:
                known.owners.discard(owner)
            if not known.owners:
                del self._wanted[key]
                if known.task is not None:
                    known.task.cancel()

    def certificate(self, host: str, acme: AcmeSpec) -> Certificate | None:
        known = self._wanted.get((acme.directory, host))
        return known.certificate if known is not None else None

    def problem(self, host: str, acme: AcmeSpec) -> str:
        """Why there is no certificate (yet), or no newer one; '' if all is well."""
        known = self._wanted.get((acme.directory, host))
        return known.problem if known is not None else ""

    async def settle(self, owner: str, seconds: float) -> None:
        """Wait until each certificate of `owner` is there or was tried in vain, at most so long."""
        waiting = [each.tried.wait() for each in self._wanted.values() if owner in each.owners]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.gather(*waiting)

    def answer(self, host: str, token: str) -> str | None:
        """What to say to an authority that asks with http-01."""
        found = self._challenges.get((host, token))
        wanted = any(each.host == host and each.acme.challenge == "http-01" for each in self._wanted.values())
        return found[0] if found is not None and wanted and found[1] > _now() else None

    async def close(self) -> None:
        tasks = [each.task for each in self._wanted.values() if each.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # keeping one certificate

    async def _keep(self, wanted: _Wanted) -> None:
        while True:
            pause = LOOK_SECONDS
            try:
                pause = await self._look(wanted)
            except OwsgitError as error:
                wanted.problem = error.problems[0].message
                wanted.failures += 1
                pause = min(RETRY_SECONDS_FIRST * 2 ** (wanted.failures - 1), RETRY_SECONDS_MAX)
                pause *= random.uniform(0.8, 1.2)  # noqa: S311 - jitter, not a secret
                log.warning("%s; tried again in %d s", wanted.problem, pause)
                wanted.tried.set()
            except Exception:
                log.exception("the certificate of %s", wanted.host)
                wanted.problem = "an order failed; the node's log says why"
                wanted.tried.set()
            wanted.wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await wanted.wake.wait()

    async def _look(self, wanted: _Wanted) -> float:
        """Do what is due; seconds until there may be something to do again. Raises OwsgitError."""
        due = _due(wanted.certificate)
        if due > 0:
            wanted.tried.set()
            return min(due, LOOK_SECONDS)
        loop = asyncio.get_running_loop()
        wanted.since = wanted.since if wanted.since is not None else loop.time()
        before = self._before(wanted.host)
        for node in (*before, *(each for each in self._neighbours.others() if each not in before)):
            if (found := await self._ask(node, wanted)) is not None:
                return self._take(wanted, found)
        left = wanted.since + len(before) * TAKE_OVER_SECONDS - loop.time()
        if left > 0:
            wanted.problem = f"a certificate is awaited from {before[0]}, which orders it"
            return min(left, ASK_SECONDS)
        async with self._one:
            wanted.problem = f"a certificate is being ordered from {wanted.acme.directory}"
            pem = await self._order(wanted)
        pause = self._take(wanted, Certificate.parse(pem, f"the certificate of {wanted.host}", ""))
        told = Told({"do": "ready", "host": wanted.host, "directory": wanted.acme.directory})
        await self._tell_all(told)
        return pause

    def _before(self, host: str) -> list[str]:
        """The nodes whose turn to order a certificate for `host` is before this one's."""
        nodes = sorted(
            [self._neighbours.own, *self._neighbours.others()],
            key=lambda node: hashlib.sha256(f"{host}\0{node}".encode()).digest(),
        )
        return nodes[: nodes.index(self._neighbours.own)]

    def _take(self, wanted: _Wanted, certificate: Certificate) -> float:
        certificate.check(wanted.host, f"the certificate of {wanted.host}", "")
        _write(self._path(wanted, "pem"), certificate.pem)
        wanted.certificate, wanted.problem, wanted.since, wanted.failures = certificate, "", None, 0
        log.info("a certificate for %s, until %s", wanted.host, certificate.ends)
        wanted.tried.set()
        for owner in wanted.owners:
            self._changed(owner)
        return min(max(_due(certificate), 1.0), LOOK_SECONDS)

    # on disk

    def _path(self, wanted: _Wanted, suffix: str) -> Path:
        place = hashlib.sha256(wanted.acme.directory.encode()).hexdigest()[:16]
        return self._folder / place / (f"{wanted.host}.{suffix}" if suffix == "pem" else suffix)

    def _stored(self, wanted: _Wanted) -> Certificate | None:
        try:
            pem = self._path(wanted, "pem").read_bytes()
            found = Certificate.parse(pem, "what is kept", "")
            found.check(wanted.host, "what is kept", "")
        except (OSError, InvalidError):
            return None  # it is ordered anew
        return found

    # ordering

    async def _order(self, wanted: _Wanted) -> bytes:
        from owsgit.gateway import acme  # noqa: PLC0415 - large, and only for nodes that order

        path = self._path(wanted, "account.pem")
        if not path.exists():
            _write(path, acme.new_account())
        account = path.read_bytes()
        spec = wanted.acme
        authority = acme.Authority(spec.directory, spec.email or "", spec.challenge, spec.ca_certificate or "")
        return await self._in_thread(authority, account, wanted.host)

    async def _in_thread(self, authority: "Authority", account: bytes, host: str) -> bytes:
        """Order in a thread that nobody waits for when the node stops: each of its requests is bounded in time."""
        from owsgit.gateway import acme  # noqa: PLC0415 - see above

        loop = asyncio.get_running_loop()
        done: asyncio.Future[bytes] = loop.create_future()
        told: list[Challenge] = []

        def publish(challenge: "Challenge") -> None:
            told.append(challenge)
            asyncio.run_coroutine_threadsafe(self._publish(challenge), loop).result(TELL_SECONDS_MAX + 1)

        def finish(pem: bytes | None, error: Exception | None) -> None:
            if done.done():
                return
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(pem or b"")

        def work() -> None:
            pem, failed = None, None
            try:
                pem = acme.order(authority, account, host, publish)
            except Exception as error:
                failed = error
            with contextlib.suppress(RuntimeError):  # the node has stopped
                loop.call_soon_threadsafe(finish, pem, failed)

        threading.Thread(target=work, name=f"order {host}", daemon=True).start()
        try:
            async with asyncio.timeout(acme.ORDER_SECONDS_MAX * 2):
                return await done
        except TimeoutError:
            raise UnavailableError(f"{authority.directory} took too long") from None
        finally:
            for challenge in told:
                self._forget(challenge)

    async def _publish(self, challenge: "Challenge") -> None:
        """Have this node and all others know what the authority will ask."""
        self._expect(challenge)
        await self._tell_all(
            Told(
                {
                    "do": "expect",
                    "kind": challenge.kind,
                    "host": challenge.host,
                    "token": challenge.token,
                    "answer": challenge.answer,
                }
            )
        )

    def _expect(self, challenge: "Challenge") -> None:
        from owsgit.gateway import acme  # noqa: PLC0415 - see above

        now = _now()
        self._challenges = {key: kept for key, kept in self._challenges.items() if kept[1] > now}
        if len(self._challenges) >= CHALLENGES_MAX or not _ANSWER.fullmatch(challenge.answer):
            raise InvalidError("this challenge is not taken")
        self._challenges[challenge.host, challenge.token] = challenge.answer, now + CHALLENGE_SECONDS
        if challenge.kind == "tls-alpn-01":
            self._prove(challenge.host, acme.proof(challenge))
            asyncio.get_running_loop().call_later(CHALLENGE_SECONDS, self._forget, challenge)

    def _forget(self, challenge: "Challenge") -> None:
        if self._challenges.pop((challenge.host, challenge.token), None) is not None:
            self._prove(challenge.host, None)

    # the other nodes

    async def _tell_all(self, told: Told) -> None:
        """Those that do not hear it in time are left out."""
        asked = (self._neighbours.ask(node, TOPIC, told) for node in self._neighbours.others())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TELL_SECONDS_MAX):
                await asyncio.gather(*asked, return_exceptions=True)

    async def _ask(self, node: str, wanted: _Wanted) -> Certificate | None:
        """Another node's certificate, if it is better than what is here."""
        told = Told({"do": "give", "host": wanted.host, "directory": wanted.acme.directory})
        try:
            answered = await self._neighbours.ask(node, TOPIC, told)
            if not answered.body:
                return None
            found = Certificate.parse(answered.body, f"what {node} has for {wanted.host}", "")
            found.check(wanted.host, f"what {node} has for {wanted.host}", "")
        except OwsgitError as error:
            log.info("%s", error.problems[0].message)
            return None
        return found if _due(found) > 0 else None

    async def _on_told(self, node: str, told: Told) -> Told:
        fields = told.fields
        match fields.get("do"):
            case "give":
                known = self._known(fields)
                has = known is not None and known.certificate is not None
                return Told({}, known.certificate.pem if has else b"")  # type: ignore[union-attr]
            case "ready":
                if (known := self._known(fields)) is not None:
                    known.wake.set()
            case "expect":
                from owsgit.gateway.acme import Challenge  # noqa: PLC0415 - see above

                kind, host, token, answer = (str(fields[name])[:512] for name in ("kind", "host", "token", "answer"))
                self._expect(Challenge(kind, host, token, answer))
            case _:
                raise InvalidError("this is not known")
        return Told({})

    def _known(self, fields: Mapping[str, Any]) -> _Wanted | None:
        return self._wanted.get((str(fields.get("directory")), str(fields.get("host"))))


def _due(certificate: Certificate | None) -> float:
    """Seconds until a certificate is to be renewed: after two thirds of its life, not all at the same moment."""
    if certificate is None:
        return 0.0
    life = (certificate.ends - certificate.begins).total_seconds()
    early = life * 0.05 * (certificate.serial % 1000 / 1000)
    gone = (datetime.now(UTC) - certificate.begins).total_seconds()
    return max(life * 2 / 3 - early - gone, 0.0)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all, for the node's user alone."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
