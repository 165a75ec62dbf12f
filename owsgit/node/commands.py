"""The commands that the client runs on a node, over SSH: each takes words and standard input, and prints JSON lines."""

import asyncio
import base64
import hashlib
import json
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import asyncssh

from owsgit import __version__
from owsgit.aws.credentials import Given, Holder
from owsgit.model.change import project_arn
from owsgit.model.core import NodeSpec
from owsgit.model.errors import InvalidError, NotAllowedError, OwsgitError, UnavailableError
from owsgit.model.iam.context import Context
from owsgit.model.iam.decision import Session as RoleSession
from owsgit.model.names import unqualified
from owsgit.model.resource import AUDIT_ACTION, METRICS_ACTION, Resource
from owsgit.model.service import Invocation, SecretValue, Target
from owsgit.model.spec import nearest
from owsgit.model.state import State
from owsgit.node.event_commands import EventCommands
from owsgit.node.home import NodeSettings
from owsgit.node.log_stream import LogStreams, Wanted
from owsgit.node.ssh import Session
from owsgit.reconcile import inventory
from owsgit.reconcile.inventory import Inventory
from owsgit.services import gateways, secrets
from owsgit.services.functions import access
from owsgit.services.gateways.spec import GatewaySpec
from owsgit.services.secrets import sealing, watch
from owsgit.services.secrets.spec import SecretSpec

PAYLOAD_BYTES_MAX = 6 * 1024 * 1024
"""Lambda's limit for a synchronous event."""

PAYLOAD_SECONDS_MAX = 60
SESSION_NAME_CHARACTERS_MAX = 64
OF_ANY_NODE = frozenset({"status", "applied", "recover"})
"""What also a node answers that the ledger does not name."""

log = logging.getLogger("owsgit.commands")


@dataclass(frozen=True)
class Facts:
    """What the commands may know of their node."""

    settings: NodeSettings
    state: Callable[[], State | None]
    is_member: Callable[[], bool]  # whether the ledger names this node
    user_of: Callable[[str], str | None]  # by a key's fingerprint
    head: Callable[[], str | None]  # of the repository
    verified: Callable[[], str | None]
    settled: Callable[[], str]
    problem: Callable[[], str]  # why main is not followed, if it is not
    warnings: Callable[[], list[str]]
    inventory: Inventory
    details: Callable[[str, str], Mapping[str, Any]]  # kind, name → live facts
    targets: Mapping[str, Target]
    logs: Callable[[str, str], Path]  # kind, name → the folder of a log
    public_key: str
    started: str
    nodes: Callable[[], Awaitable[list[dict[str, Any]]]]  # all nodes of the project, as this one sees them
    abstains: Callable[[], bool]  # whether this node was restored, and only follows for now
    recover: Callable[[bytes], Awaitable[dict[str, Any]]]  # raises OwsgitError
    unseal: Callable[[Resource], SecretValue]  # raises OwsgitError
    sign_rewrapped: Callable[[bytes], dict[str, str]]  # this node's word on what it sealed anew
    give: Callable[[Holder, State], Given]  # credentials; raises OwsgitError
    metrics: Callable[[], bytes]  # as Prometheus' text
    usage: Callable[[str], list[dict[str, Any]]]  # of a usage plan's keys


Process = asyncssh.SSHServerProcess[bytes]


async def _payload(process: Process) -> bytearray:
    payload = bytearray()
    try:
        async with asyncio.timeout(PAYLOAD_SECONDS_MAX):
            while piece := await process.stdin.read(1 << 16):
                payload += piece
                if len(payload) > PAYLOAD_BYTES_MAX:
                    raise InvalidError(f"the payload has more than {PAYLOAD_BYTES_MAX:,} bytes")
    except TimeoutError:
        raise InvalidError(f"the payload did not arrive within {PAYLOAD_SECONDS_MAX} s") from None
    return payload


LOGS = ("kind=gateway", "kind=audit", "kind=audit-data")
"""Logs that are not a function's."""


def _context(process: Process) -> Context:
    """What is known of a call: unlike a commit, it has a time and a place."""
    peer = process.get_extra_info("peername")
    keys = {"aws:CurrentTime": inventory.now(), "aws:EpochTime": str(int(time.time()))}
    return Context.of({**keys, **({"aws:SourceIp": str(peer[0])} if peer else {})})


def _role(words: list[str]) -> str | None:
    """The role that a command asks to be run as."""
    return next((word.removeprefix("role=") for word in words if word.startswith("role=")), None)


def _session_name(user: str) -> str:
    """A name for a user's sessions that no other user's have: policies may name the session itself."""
    name = f"owsgit-{user}"
    if len(name) <= SESSION_NAME_CHARACTERS_MAX:
        return name
    digest = hashlib.sha256(user.encode()).hexdigest()[:16]
    return f"owsgit+{user[:39]}+{digest}"  # no user's name has a plus


def _take_on(state: State, user: str, role: str, context: Context) -> RoleSession:
    """A user's session of a role. Raises NotAllowedError."""
    if state.get("role", role) is None:
        known = [each.name for each in state.of_kind("role")]
        raise InvalidError(f"there is no role {role!r}", remedy=nearest(role, known, "role", "roles"))
    taken = RoleSession(role, _session_name(user))
    decision = state.assume(user, taken, context)
    if not decision.allowed:
        raise NotAllowedError(
            f"{user} may not take on the role {role} (sts:AssumeRole): {decision.reason}",
            remedy=f"the role's trust policy has to name {user}, in {state.kinds['role'].file(role)} $.trust",
        )
    return taken


async def _send_piece(process: Process, piece: bytes) -> None:
    process.stdout.write(json.dumps({"piece": base64.b64encode(piece).decode()}).encode() + b"\n")
    await process.stdout.drain()


class Commands:
    """Runs the client's commands for a session."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._log_streams = LogStreams(self._members)
        self._verbs: dict[str, Callable[[Session, list[str], Process], Awaitable[int]]] = {
            "status": self._status,
            "applied": self._applied,
            "invoke": self._invoke,
            "events": EventCommands(facts.targets, self._allow).run,
            "logs": self._logs,
            "metrics": self._metrics,
            "usage": self._usage,
            "recover": self._recover,
            "secret": self._secret,
            "rewrap": self._rewrap,
            "credentials": self._credentials,
        }

    async def run(self, session: Session, words: list[str], process: Process) -> int:
        """Run one command; the exit status for the client. Errors are told as JSON on standard error."""
        verb = self._verbs.get(words[0]) if words else None
        try:
            if verb is None:
                raise InvalidError(
                    f"this node (owsgit {__version__}) does not know the command {' '.join(words[:1])!r}",
                    remedy="use the same version of owsgit on both sides",
                )
            if words[0] not in OF_ANY_NODE and self._facts.state() is not None and not self._facts.is_member():
                raise UnavailableError(
                    "the ledger does not name this node (any more), so it serves nothing",
                    remedy="ask another one: --node NAME",
                )
            return await verb(session, words[1:], process)
        except OwsgitError as error:
            told = [{"message": p.message, "file": p.file, "path": p.path, "remedy": p.remedy} for p in error.problems]
            process.stderr.write(json.dumps({"problems": told, "exitCode": error.exit_code}).encode() + b"\n")
            return error.exit_code

    def _state(self) -> State:
        state = self._facts.state()
        if state is None:
            raise UnavailableError("the ledger is still empty", remedy="push a genesis commit: owsgit init, git push")
        return state

    def _allow(
        self, session: Session, action: str, kind: str, name: str, process: Process, role: str | None = None
    ) -> None:
        """Raises NotAllowedError unless the session's user, or the `role` that it takes on, may do `action`."""
        state = self._state()
        resource = state.get(kind, name)
        arn = resource.arn(state.scope) if resource else state.scope.arn(state.kinds[kind].arn, name)
        self._decide(session, action, arn, process, role)
        if resource is None:
            known = ", ".join(other.name for other in state.of_kind(kind)) or "none"
            raise InvalidError(f"there is no {kind} {name!r}", remedy=f"there are: {known}")

    def _allow_invoke(self, session: Session, name: str, process: Process, role: str | None) -> None:
        """Raises NotAllowedError."""
        function = unqualified(name)
        resource = self._state().get("function", function)
        if resource is None or function == name:
            self._allow(session, access.INVOKE, "function", name, process, role)
            return
        for need in access.to_invoke(resource.arn(self._state().scope), name[len(function) + 1 :]):
            self._decide(session, need.action, need.arn, process, role, denied_only=need.denied_only)

    def _decide(
        self, session: Session, action: str, arn: str, process: Process, role: str | None, *, denied_only: bool = False
    ) -> None:
        """Raises NotAllowedError; with `denied_only`, not for the want of a statement."""
        state = self._state()
        if self._facts.user_of(session.key) != session.user:
            raise NotAllowedError("your key is not in the ledger any more", remedy="log in with the one that is")
        context = _context(process)
        who = _take_on(state, session.user, role, context) if role is not None else session.user
        decision = state.decide(who, action, arn, context)
        if not decision.allowed and (decision.explicit or not denied_only):
            raise NotAllowedError(
                f"{state.caller(who).name} may not {action} on {arn}: {decision.reason}",
                remedy=f"ask a root for a policy that allows {session.user if role is None else 'the role'} it",
            )

    async def _status(self, session: Session, words: list[str], process: Process) -> int:
        facts = self._facts
        state = facts.state()
        resources = [
            {**row.document(), "live": dict(facts.details(row.kind, row.name))}
            for row in sorted(facts.inventory.rows.values(), key=lambda row: row.key)
        ]
        answer = {
            "project": {"name": state.project.name, "id": state.project_id} if state else None,
            "node": {
                "name": facts.settings.name,
                "address": facts.settings.address,
                "sshPort": facts.settings.ssh_port,
                "version": __version__,
                "sandbox": facts.settings.sandbox,
                "started": facts.started,
                "key": facts.public_key,
            },
            "head": facts.head(),
            "verified": facts.verified(),
            "applied": facts.settled() or None,
            "problem": facts.problem(),
            "warnings": facts.warnings(),
            "time": inventory.now(),
            "abstains": facts.abstains(),
            "nodes": await facts.nodes(),
            "resources": resources,
        }
        process.stdout.write(json.dumps(answer).encode() + b"\n")
        return 0

    async def _recover(self, session: Session, words: list[str], process: Process) -> int:
        """The roots' statement comes on standard input; their signatures are what counts, not who brings it."""
        process.stdout.write(json.dumps(await self._facts.recover(bytes(await _payload(process)))).encode() + b"\n")
        return 0

    async def _secret(self, session: Session, words: list[str], process: Process) -> int:
        """Words: the secret's name, and role=NAME if wanted. Its value, as JSON."""
        name = words[0] if words else ""
        self._allow(session, secrets.READ_ACTION, "secret", name, process, _role(words[1:]))
        resource = self._state().get("secret", name)
        assert resource is not None
        value = await asyncio.to_thread(self._facts.unseal, resource)
        answer: dict[str, Any] = {"name": name, "version": value.version}
        if value.binary:
            answer["binary"] = base64.b64encode(value.content).decode()
        else:
            answer["string"] = value.content.decode()
        process.stdout.write(json.dumps(answer).encode() + b"\n")
        return 0

    async def _rewrap(self, session: Session, words: list[str], process: Process) -> int:
        """Words: names of secrets. Each sealed anew, for the nodes of the head and for nobody else, one a line."""
        for name in words:
            self._allow(session, secrets.REWRAP_ACTION, "secret", name, process)
        state = self._state()
        nodes = watch.nodes_of(state)
        for name in words:
            resource = state.get("secret", name)
            assert resource is not None and isinstance(resource.spec, SecretSpec)
            value = await asyncio.to_thread(self._facts.unseal, resource)
            sealed = sealing.seal(value, resource.file, [key for _, key in nodes.values()])
            readers = {**resource.spec.readers, **{fingerprint: node for fingerprint, (node, _) in nodes.items()}}
            word = self._facts.sign_rewrapped(
                sealing.statement(resource.file, value.version, resource.spec.sealed, sealed)
            )
            answer = {"name": name, "version": value.version, "readers": readers, "sealed": sealed, "rewrapped": word}
            process.stdout.write(json.dumps(answer).encode() + b"\n")
        return 0

    async def _credentials(self, session: Session, words: list[str], process: Process) -> int:
        """Words: role=NAME if wanted. Credentials for an hour, as the SDKs' credential_process prints them."""
        state = self._state()
        if self._facts.user_of(session.key) != session.user:
            raise NotAllowedError("your key is not in the ledger any more", remedy="log in with the one that is")
        role = _role(words)
        taken = _take_on(state, session.user, role, _context(process)) if role is not None else None
        given = await asyncio.to_thread(self._facts.give, Holder(session.user, session.key, taken), state)
        answer = {"Version": 1, **given.document("SessionToken")}
        process.stdout.write(json.dumps(answer).encode() + b"\n")
        return 0

    async def _applied(self, session: Session, words: list[str], process: Process) -> int:
        """What is applied, one resource a line: what `owsgit plan` compares with."""
        for resource in self._facts.inventory.applied().values():
            process.stdout.write(inventory.dump(resource).encode() + b"\n")
            await process.stdout.drain()
        return 0

    async def _invoke(self, session: Session, words: list[str], process: Process) -> int:
        """Words: the function's name; role=NAME, async, key=K and stream if wanted. The event comes on standard input.

        The answer is a line of JSON about it, then the payload. With `stream`, pieces of the response come before, each
        as a line of JSON.
        """
        name = words[0] if words else ""
        self._allow_invoke(session, name, process, _role(words[1:]))
        payload = await _payload(process)
        try:
            json.loads(payload)
        except (ValueError, RecursionError) as error:
            raise InvalidError(
                f"the payload is not JSON: {error}", remedy="quote it for the shell: '{\"a\": 1}'"
            ) from None
        request_id = str(uuid.uuid4())
        target, invocation = self._facts.targets["function"], Invocation(bytes(payload), request_id, wants_log=True)
        if "async" in words[1:]:
            key = next((word.removeprefix("key=") for word in words[1:] if word.startswith("key=")), "")
            accepted = await target.enqueue(name, invocation, idempotency_key=key)
            process.stdout.write(json.dumps({"requestId": accepted, "statusCode": 202}).encode() + b"\n")
            return 0
        if "stream" in words[1:]:
            invocation = replace(invocation, sink=partial(_send_piece, process))
        answer = await target.invoke(name, invocation)
        told = {"requestId": request_id, "error": answer.error, "logTail": answer.log_tail.decode("utf-8", "replace")}
        process.stdout.write(json.dumps(told).encode() + b"\n" + answer.payload + b"\n")
        return 0

    async def _logs(self, session: Session, words: list[str], process: Process) -> int:
        """Words: a name, what of its log is wanted (see log_stream.Wanted), one of LOGS unless it is a function's (the
        audit log's name is not looked at), and role=NAME if wanted.
        """
        name, role = words[0] if words else "", _role(words[1:])
        kind = next((word.removeprefix("kind=") for word in words[1:] if word in LOGS), "function")

        def check() -> None:  # rights may be taken away meanwhile
            if kind.startswith("audit"):
                self._decide(session, AUDIT_ACTION, project_arn(self._state().scope), process, role)
            else:
                self._allow(session, "logs:GetLogEvents", kind, name, process, role)

        check()
        wanted = Wanted.parse(words[1:])
        await self._log_streams.send(
            self._facts.logs(kind, name), wanted, process, check, lambda: self._hint(kind, name)
        )
        return 0

    def _hint(self, kind: str, name: str) -> str:
        """Why nothing is written to a log; empty if something is."""
        found = self._state().get(kind, name) if kind == gateways.KIND.name else None
        if found is None or not isinstance(found.spec, GatewaySpec) or found.spec.access_log is not None:
            return ""
        return f'the gateway {name} keeps no access log: add "accessLog": {{}} to {found.file}, commit and push'

    def _members(self) -> dict[str, Any]:
        """This node's name, and where all nodes of the project are reached."""
        specs = [(node.name, node.spec) for node in self._state().of_kind("node")]
        members = [
            {"name": name, "address": spec.address, "port": spec.ports.ssh}
            for name, spec in specs
            if isinstance(spec, NodeSpec)
        ]
        return {"node": self._facts.settings.name, "members": members}

    async def _usage(self, session: Session, words: list[str], process: Process) -> int:
        """Words: the usage plan's name, and role=NAME if wanted. What its keys have used, and all nodes."""
        name = words[0] if words else ""
        self._allow(session, gateways.USAGE_ACTION, "usageplan", name, process, _role(words[1:]))
        process.stdout.write(json.dumps({**self._members(), "keys": self._facts.usage(name)}).encode() + b"\n")
        return 0

    async def _metrics(self, session: Session, words: list[str], process: Process) -> int:
        """Words: role=NAME if wanted. This node's metrics, as Prometheus' text."""
        arn = project_arn(self._state().scope)
        self._decide(session, METRICS_ACTION, arn, process, _role(words))
        process.stdout.write(await asyncio.to_thread(self._facts.metrics))
        return 0
