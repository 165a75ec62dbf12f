"""The front door: one HTTP endpoint for all APIs of AWS that this node answers for.

Every request is held against its signature (signer.py), parsed by the service's model (protocols/), decided by IAM,
answered here or by the node that has what it is about, and told to the audit log.
"""

import asyncio
import contextlib
import inspect
import ipaddress
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

from botocore import xform_name
from botocore.model import OperationModel

from owsgit.aws import passing, signer, sigv4
from owsgit.aws.api import AccessDeniedError, Api, Caller, Need, ServiceError, Streaming, data_events
from owsgit.aws.audit import Auditing, Record
from owsgit.aws.further import NODE
from owsgit.aws.payload import Payload, inflated, without_framing
from owsgit.aws.protocols import protocol_of, protocols_of
from owsgit.aws.protocols.wire import Incoming, Protocol, Reply, signing_name
from owsgit.aws.sigv4 import Request, SignatureError, Signed
from owsgit.model.errors import OwsgitError, UnavailableError
from owsgit.model.iam.context import Context, Later, iso, of_request
from owsgit.model.names import Scope
from owsgit.model.seldom import Seldom
from owsgit.model.service import Credential, CredentialError, Decide, Neighbours, Told

BODY_BYTES_MAX = 16 * 1024 * 1024
"""DynamoDB's limit for a request, the largest of all here."""

TOPIC = "aws"
"""Under which nodes pass requests on to each other."""

BUILT_LATER = "is not built in owsgit yet"

log = logging.getLogger("owsgit.aws")


@dataclass(slots=True)
class Arrival:
    """A request at the door, before anything in it is believed.

    `body` reads all of its body, up to BODY_BYTES_MAX; `pieces` has it as it comes, of whatever size, if `body` was not
    called. Both raise ServiceError. `id` is what it is called in its answer and in the audit log.
    """

    id: str
    request: Request
    body: Callable[[], Awaitable[bytes]]
    pieces: Callable[[], AsyncIterator[bytes]]
    address: str
    secure: bool
    passed_on: bool = False  # whether another node brings it, which is answered here or not at all

    @property
    def unseen(self) -> bool:
        """Whether nobody on the way could read or change it."""
        with contextlib.suppress(ValueError):
            return self.secure or ipaddress.ip_address(self.address).is_loopback
        return False


@dataclass(frozen=True)
class House:
    """What the door knows of its node."""

    scope: Callable[[], Scope]
    credential: Callable[[str], Credential]
    decide: Decide
    neighbours: Neighbours
    audit: Auditing
    node: Callable[[Arrival], Awaitable[Reply]] | None = None
    """Has the node's own process answer; None in that process."""


class Door:
    """Answers requests of AWS's SDKs."""

    def __init__(self, apis: Iterable[Api], house: House) -> None:
        self._house = house
        self._apis = list(apis)
        self._speaking: asyncio.Task[_Speaking] | None = None
        self._not_there = Seldom()
        house.neighbours.answer(TOPIC, self._answer_neighbour)

    async def answer(self, arrival: Arrival) -> Reply:
        """Never raises but CancelledError."""
        began = time.monotonic()
        asked = _Asked(arrival)
        try:
            reply = await self._answer(asked)
        except SignatureError as error:
            reply = asked.refuse(ServiceError(error.code, str(error), status=_status_of(error.code)))
        except CredentialError as error:
            asked.reason = str(error)
            told = signer.not_good(error)
            reply = asked.refuse(ServiceError(told.code, str(told), status=_status_of(told.code)))
        except ServiceError as error:
            reply = asked.refuse(error)
        except UnavailableError as error:
            self._tell(f"{asked.operation or 'a request'}: {error}")
            said = [text for each in error.problems for text in (each.message, each.remedy) if text]
            reply = asked.refuse(ServiceError("ServiceUnavailable", "; ".join(said), status=503))  # no path of ours
        except OwsgitError as error:
            reply = asked.refuse(ServiceError("ValidationException", str(error)))
        except Exception:
            log.exception("%s failed", asked.operation or "a request")
            reply = asked.refuse(ServiceError("InternalFailure", "The request processing has failed.", status=500))
        if not asked.elsewhere:
            self._house.audit.write(asked.record(reply, time.monotonic() - began))
        return reply

    def _tell(self, text: str) -> None:
        """Log why something is not there; the same not again for a while, as clients try again."""
        if self._not_there.takes(text):
            log.warning("%s", text)

    async def _answer(self, asked: "_Asked") -> Reply:
        arrival, house = asked.arrival, self._house
        spoken = await self._spoken()
        signed = signer.read(arrival.request)
        speakers = spoken.get(signed.service, [])
        asked.speak(signed.service, speakers)
        scope = house.scope()
        sigv4.check_scope(signed, scope.region, signed.service)
        credential = asked.credential = await _signer(signed, arrival, house.credential)
        if not speakers:
            raise ServiceError("UnknownOperationException", f"the service {signed.service} {BUILT_LATER}", status=404)
        api, operation, incoming = await self._taken(asked, speakers, signed, credential)
        protocol = asked.protocol
        assert protocol is not None
        function = _function(api, operation.name)
        if function is None:
            raise ServiceError("NotImplemented", f"{protocol.name}:{operation.name} {BUILT_LATER}", status=501)
        parameters = protocol.read(operation, incoming)
        asked.needs = list(api.needs(operation.name, parameters))
        self._decide(asked, credential)
        home = api.home(operation.name, parameters)
        if home == NODE and house.node is not None:
            asked.elsewhere = True
            return await house.node(arrival)
        if home is not None and home != house.neighbours.own:
            if arrival.passed_on:
                raise UnavailableError("nodes do not agree on where this is", remedy="try again")
            return await self._pass_on(home, asked)
        caller = Caller(
            credential.who,
            credential.arn,
            credential.user_id,
            scope.account,
            scope.region,
            arrival.id,
            arrival.address,
            credential.access_key,
            credential.user,
            credential.key,
            credential.function,
            credential.commit,
            credential.function_role,
            credential.expires,
            asked.context,
            arrival.request.values[b"host"][0].decode("latin-1"),  # signed, and so there
        )
        result = await function(caller, **_named(function, operation, parameters))
        if isinstance(incoming.body, Payload):
            await incoming.body.drain()
        return protocol.write(operation, result or {}, arrival.id)

    async def _taken(
        self, asked: "_Asked", speakers: list[tuple[Protocol, Api]], signed: Signed, credential: Credential
    ) -> tuple[Api, OperationModel, Incoming]:
        """What is asked for, and the request with its body: whole, and what was signed; or still to be read, and then
        held against that. Raises ServiceError."""
        arrival, request = asked.arrival, asked.arrival.request
        if signed.service != sigv4.S3:
            body = await arrival.body()
            if b"content-encoding" in request.values:
                body = inflated(body, request.headers, BODY_BYTES_MAX)
            incoming = Incoming(request.method, request.path, request.query, request.headers, body)
            return *asked.find(speakers, incoming), incoming
        said = [*request.headers, *sigv4.hoisted(signed, request)]
        headers = without_framing(signed, said)
        head = Incoming(request.method, request.path, request.query, headers, b"")
        api, operation = asked.find(speakers, head)
        in_pieces = isinstance(api, Streaming) and operation.name in api.streams
        source = arrival.pieces() if in_pieces else _once(await arrival.body())
        checked = operation.http_checksum is not None and "requestAlgorithmMember" in operation.http_checksum
        payload = Payload(source, signed, credential.secret, said, checked=checked)
        return api, operation, replace(head, body=payload if in_pieces else await payload.read(BODY_BYTES_MAX))

    async def warm(self) -> None:
        """Have it ready for the first request."""
        await self._spoken()

    async def _spoken(self) -> "_Speaking":
        """The APIs, by the name of the service that their requests are signed for. Their models are read by the first
        request, in a thread: that takes a quarter of a second, and megabytes that a node need not spend before."""
        speaking = self._speaking
        if speaking is not None and speaking.done() and speaking.exception() is None:
            return speaking.result()
        if speaking is None or speaking.done():
            speaking = self._speaking = asyncio.ensure_future(asyncio.to_thread(_read_models, self._apis))
        return await asyncio.shield(speaking)

    def _decide(self, asked: "_Asked", credential: Credential) -> None:
        """Raises AccessDeniedError unless all that is needed is allowed."""
        for need in asked.needs:
            context = asked.context.with_values(need.context) if need.context is not None else asked.context
            decision = self._house.decide(credential.who, need.action, need.arn, context, need.policy)
            if not decision.allowed and (decision.explicit or not need.denied_only):
                asked.reason = decision.reason
                why = (
                    f"with an explicit deny in {decision.reason.removeprefix('denied by ')}"
                    if decision.explicit
                    else f"because no {decision.wanted} allows the {need.action} action"
                )
                raise AccessDeniedError(
                    f"User: {credential.arn} is not authorized to perform: {need.action} on resource: {need.arn} {why}",
                    need.refusal,
                )

    async def _pass_on(self, node: str, asked: "_Asked") -> Reply:
        """Have another node answer. It gets the request as it was signed, and believes this node nothing."""
        arrival = asked.arrival
        told = passing.told(arrival.request, await arrival.body(), arrival.address, secure=arrival.secure)
        try:
            await self._house.neighbours.await_back(node)
            answer = await self._house.neighbours.ask(node, TOPIC, told)
        except UnavailableError as error:
            raise UnavailableError(f"node {node} has what this is about, and cannot be asked now: {error}") from None
        asked.elsewhere = True  # it stands in that node's log
        return passing.reply(answer)

    async def _answer_neighbour(self, node: str, told: Told) -> Told:
        """Whoever passes a request on is a node of the ledger: what it says of the client's address and of TLS is
        taken, and nothing else."""

        async def body() -> bytes:
            return told.body

        request, address, secure = passing.heard(told)
        arrival = Arrival(str(uuid.uuid4()), request, body, partial(_once, told.body), address, secure, passed_on=True)
        return await passing.answered(await self.answer(arrival))


async def _signer(signed: Signed, arrival: Arrival, credential: Callable[[str], Credential]) -> Credential:
    """Who signed a request. Raises SignatureError, CredentialError."""
    if signed.service == sigv4.S3:
        return signer.streaming_signer(signed, arrival.request, credential, unseen=arrival.unseen)
    if signed.payload == sigv4.UNSIGNED_PAYLOAD:
        raise SignatureError("InvalidSignatureException", f"{signed.service} takes no body that is not signed.")
    return await signer.signer(signed, arrival.request, arrival.body, credential, secure=arrival.secure)


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


_Speaking = dict[str, list[tuple[Protocol, Api]]]


def _read_models(apis: Iterable[Api]) -> _Speaking:
    found: _Speaking = {}
    for api in apis:
        for protocol in protocols_of(api.service):
            found.setdefault(signing_name(protocol.model), []).append((protocol, api))
    for service in _ANY:
        protocol_of(service)
    return found


class _Asked:
    """One request on its way through the door, and what was found out about it."""

    def __init__(self, arrival: Arrival) -> None:
        self.arrival = arrival
        self.at = time.time()
        self.context = Context(Later(self._known))  # the condition keys that are known of every request
        self.service = ""  # as it was signed for
        self.protocol: Protocol | None = None
        self.operation = ""
        self.needs: list[Need] = []
        self.credential: Credential | None = None
        self.error: ServiceError | None = None
        self.reason = ""
        self.is_data = False
        self.elsewhere = False

    def _known(self) -> Mapping[str, Any]:
        arrival, credential = self.arrival, self.credential
        known = of_request(arrival.address, arrival.request.headers, self.at, secure=arrival.secure)
        if credential is not None:
            known = known.with_values({"aws:TokenIssueTime": iso(credential.issued)})
        return known.values

    def speak(self, service: str, speakers: list[tuple[Protocol, Api]]) -> None:
        """Answer as the client speaks, as far as that is seen before all is read."""
        self.service = service
        if len(speakers) > 1:
            suiting = (protocol for protocol, _ in speakers if protocol.suits(self.arrival.request))
            self.protocol = next(suiting, speakers[0][0])
        elif speakers:
            self.protocol = speakers[0][0]

    def find(self, speakers: list[tuple[Protocol, Api]], incoming: Incoming) -> tuple[Api, OperationModel]:
        """Raises ServiceError if none of them knows the operation."""
        found: tuple[Api, OperationModel] | None = None
        for protocol, api in speakers:
            operation = protocol.find(incoming)
            if operation is None:
                continue
            has_it = _function(api, operation.name) is not None  # several may speak for one service, each of its part
            if found is None or has_it:
                self.protocol, self.operation = protocol, operation.name
                self.is_data = operation.name in data_events(api)
                found = api, operation
            if has_it:
                break
        if found is not None:
            return found
        raise ServiceError("UnknownOperationException", "The requested operation is not known.", status=404)

    def refuse(self, error: ServiceError) -> Reply:
        self.error = error
        protocol = self.protocol or _speaks_like(self.arrival.request, self.service)
        return protocol.refuse(error, self.arrival.id)

    def record(self, reply: Reply, seconds: float) -> Record:
        credential, error, needs = self.credential, self.error, self.needs
        return Record(
            self.arrival.id,
            credential.arn if credential is not None else "",
            credential.access_key if credential is not None else "",
            self.arrival.address,
            self.protocol.name if self.protocol is not None else "",
            self.operation,
            [needs[0].action] if len(needs) == 1 else sorted({need.action for need in needs}),
            [needs[0].arn] if len(needs) == 1 else list(dict.fromkeys(need.arn for need in needs)),
            reply.status,
            error.code if error is not None else "",
            error.message if error is not None else "",
            self.reason,
            round(seconds * 1000, 2),
            self.is_data,
        )


_CBOR = "cloudwatch"
_ANY = ("dynamodb", "sts", "lambda")
"""One service of each protocol, in whose ways clients are told what they do wrong whose service is not known; those
that are often spoken are read ahead."""


def _speaks_like(request: Request, service: str) -> Protocol:
    """A protocol in which a client is told what it does wrong whose service is not known."""
    if service == sigv4.S3:
        return protocol_of("s3")
    others = (protocol_of(each) for each in (*_ANY[:-1], _CBOR))
    return next((each for each in others if each.suits(request)), protocol_of(_ANY[-1]))


def _status_of(code: str) -> int:
    """Of an error in a signature."""
    return 403 if code.startswith("MissingAuthentication") else 400


@lru_cache(4096)
def _xformed(name: str) -> str:
    return str(xform_name(name))


def _function(api: Api, operation: str) -> Callable[..., Awaitable[Mapping[str, Any] | None]] | None:
    found: Callable[..., Awaitable[Mapping[str, Any] | None]] | None = getattr(api, _xformed(operation), None)
    return found


def _named(
    function: Callable[..., Awaitable[Any]], operation: OperationModel, parameters: Mapping[str, Any]
) -> dict[str, Any]:
    """The parameters as the function calls them. Raises ServiceError for those that it does not take."""
    taken = _taken(getattr(function, "__func__", function))
    found = {}
    for name, value in parameters.items():
        argument = _xformed(name)
        if taken is not None and argument not in taken:
            raise ServiceError("ValidationException", f"{name} of {operation.name} {BUILT_LATER}")
        found[argument] = value
    return found


@lru_cache(4096)
def _taken(function: Callable[..., Any]) -> frozenset[str] | None:
    """The names of a function's parameters; None if it takes all."""
    parameters = inspect.signature(function).parameters.values()
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters):
        return None
    return frozenset(each.name for each in parameters)
