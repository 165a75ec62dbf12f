"""Functions that say whether a request may pass (API Gateway's Lambda authorizers): what they are asked, what they may
answer, and how long an answer is good for whoever shows the same identity.

https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-lambda-authorizer.html
https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-use-lambda-authorizer.html
"""

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Literal

import orjson
from pydantic import ValidationError

from owsgit.gateway import payload
from owsgit.gateway.exchange import DeniedError, Exchange, Handler, RefusedError, Response, Step
from owsgit.gateway.identity import Identity
from owsgit.model.errors import OwsgitError
from owsgit.model.iam.context import Context
from owsgit.model.iam.decision import AttachedPolicy, Policies
from owsgit.model.iam.document import PolicyDocument
from owsgit.model.service import Answer, Invocation, Target

ACTION = "execute-api:Invoke"
ANSWER_BYTES_MAX = 32 * 1024
CACHED_MAX = 10_000
CACHED_BYTES_MAX = 8 * 1024 * 1024
"""Of all answers that are kept, as they came."""

UNAUTHORIZED = "Unauthorized"
"""What a function throws so that the client gets 401, as on AWS."""

log = logging.getLogger("owsgit.gateway")


class MalformedAnswerError(Exception):
    """What the function answered is no authorizer's answer."""


@dataclass(frozen=True)
class Verdict:
    """What a function answered: a yes or no for every route, or a policy that says it for each."""

    allowed: bool | None  # None: the policy says
    policy: Policies | None = None
    principal: str = ""
    context: Mapping[str, Any] = field(default_factory=dict)
    key: str = ""  # usageIdentifierKey


class Verdicts:
    """The verdicts of one authorizer that are still good, by identity: bounded, whoever was not seen for longest goes
    first. They outlive deployments that do not change the authorizer."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, tuple[float, int, Verdict]] = OrderedDict()
        self._bytes = 0
        self.asking: dict[bytes, asyncio.Task[Verdict]] = {}

    def get(self, identity: bytes, now: float) -> Verdict | None:
        found = self._kept.get(identity)
        if found is None:
            return None
        if found[0] <= now:
            self._drop(identity)
            return None
        self._kept.move_to_end(identity)
        return found[2]

    def put(self, identity: bytes, until: float, size: int, verdict: Verdict) -> None:
        self._drop(identity)
        self._kept[identity] = until, size, verdict
        self._bytes += size
        while len(self._kept) > CACHED_MAX or self._bytes > CACHED_BYTES_MAX:
            self._drop(next(iter(self._kept)))

    def _drop(self, identity: bytes) -> None:
        found = self._kept.pop(identity, None)
        if found is not None:
            self._bytes -= found[1]

    def __len__(self) -> int:
        return len(self._kept)


@dataclass(frozen=True)
class Asking:
    """How an authorizer asks its function."""

    kind: Literal["token", "request"]
    target: Target
    function: str
    version: Literal["1.0", "2.0"]  # of what the function is sent
    identity: Identity
    simple: bool  # whether it answers isAuthorized and not a policy
    ttl: float  # seconds for which an answer is good; 0: for its request alone
    timeout: float


class FunctionAuthorizer:
    """One authorizer. `method` gives the ARN of what a request calls, `context` the condition keys of a request."""

    def __init__(
        self,
        name: str,
        asking: Asking,
        verdicts: Verdicts,
        method: Callable[[Exchange], str],
        context: Callable[[Exchange], Context],
    ) -> None:
        self._name, self._asking, self._verdicts = name, asking, verdicts
        self._method, self._context = method, context

    def step(self, payload_version: str) -> Step:
        """Let through whom the function allows, and tell the integration, of that payload format, what it said."""

        def step(handler: Handler) -> Handler:
            async def handle(exchange: Exchange) -> Response:
                verdict = await self._verdict(exchange)
                self._check(verdict, exchange)
                exchange.facts["authorizer.principalId"] = verdict.principal
                if payload_version == "1.0":
                    exchange.authorizer = {**verdict.context, "principalId": verdict.principal}
                else:
                    exchange.authorizer = {"lambda": dict(verdict.context)}
                if verdict.key:
                    exchange.identity["apiKey"] = verdict.key
                return await handler(exchange)

            return handle

        return step

    async def _verdict(self, exchange: Exchange) -> Verdict:
        asking = self._asking
        identity = asking.identity.shown(exchange)
        if identity is None:
            raise RefusedError(401, UNAUTHORIZED, "UNAUTHORIZED")
        if not asking.ttl:
            verdict, _ = await self._ask(exchange, identity)
            return verdict
        digest = hashlib.sha256(orjson.dumps([exchange.mount.stage, *identity])).digest()
        verdicts = self._verdicts
        found = verdicts.get(digest, exchange.began)
        if found is not None:
            return found
        task = verdicts.asking.get(digest)
        if task is None:  # one question for all who show the same at once
            task = verdicts.asking[digest] = asyncio.ensure_future(self._ask_and_keep(exchange, identity, digest))
            task.add_done_callback(lambda done: self._asked(digest, done))
        return await asyncio.shield(task)

    def _asked(self, digest: bytes, done: "asyncio.Task[Verdict]") -> None:
        self._verdicts.asking.pop(digest, None)
        if not done.cancelled():
            done.exception()  # told to those who wait, if anybody still does

    async def _ask_and_keep(self, exchange: Exchange, identity: list[str], digest: bytes) -> Verdict:
        verdict, size = await self._ask(exchange, identity)
        self._verdicts.put(digest, monotonic() + self._asking.ttl, size, verdict)
        return verdict

    async def _ask(self, exchange: Exchange, identity: list[str]) -> tuple[Verdict, int]:
        """The function's verdict, and the bytes of its answer. Raises RefusedError."""
        asking = self._asking
        invocation = Invocation(orjson.dumps(self._event(exchange, identity)), exchange.id)
        try:
            answer = await asyncio.wait_for(asking.target.invoke(asking.function, invocation), asking.timeout)
            return self._read(answer), len(answer.payload)
        except TimeoutError:
            problem = f"{asking.function} did not answer within {asking.timeout:g} s"
        except (OwsgitError, MalformedAnswerError) as error:
            problem = f"{asking.function}: {error}"
        log.warning("%s: the authorizer %s: %s", exchange.mount.api, self._name, problem)
        exchange.facts["authorizer.error"] = problem
        raise RefusedError(500, "Internal Server Error", "AUTHORIZER_FAILURE")

    def _event(self, exchange: Exchange, identity: list[str]) -> dict[str, Any]:
        arn, asking = self._method(exchange), self._asking
        if asking.kind == "token":
            return {"type": "TOKEN", "methodArn": arn, "authorizationToken": identity[0]}
        event = payload.description(asking.version, exchange)
        if asking.version == "2.0":
            return {**event, "type": "REQUEST", "routeArn": arn, "identitySource": identity}
        joined = ",".join(identity)
        return {**event, "type": "REQUEST", "methodArn": arn, "identitySource": joined, "authorizationToken": joined}

    def _read(self, answer: Answer) -> Verdict:
        if answer.error is not None:
            said = _error_message(answer.payload)
            if said == UNAUTHORIZED:
                raise RefusedError(401, UNAUTHORIZED, "UNAUTHORIZED")
            raise MalformedAnswerError(f"it failed: {said:.200}")
        if len(answer.payload) > ANSWER_BYTES_MAX:
            raise MalformedAnswerError(f"it answered more than {ANSWER_BYTES_MAX:,} bytes")
        try:
            said = orjson.loads(answer.payload)
        except orjson.JSONDecodeError as error:
            raise MalformedAnswerError(f"its answer is not JSON: {error}") from None
        if not isinstance(said, dict):
            raise MalformedAnswerError("its answer is not an object")
        return self._verdict_of(said)

    def _verdict_of(self, said: dict[str, Any]) -> Verdict:
        context, key = said.get("context") or {}, said.get("usageIdentifierKey") or ""
        if not isinstance(context, dict) or not isinstance(key, str):
            raise MalformedAnswerError("context is not an object, or usageIdentifierKey no text")
        if self._asking.simple:
            if not isinstance(said.get("isAuthorized"), bool):
                raise MalformedAnswerError("isAuthorized is not true or false (enableSimpleResponses)")
            return Verdict(said["isAuthorized"], context=context, key=key)
        principal = said.get("principalId")
        if not isinstance(principal, str) and (self._asking.version == "1.0" or principal is not None):
            raise MalformedAnswerError("principalId is no text")
        if self._asking.version == "1.0":
            context = {name: _text(name, value) for name, value in context.items()}
        return Verdict(None, self._policy(said.get("policyDocument")), principal or "", context, key)

    def _policy(self, document: Any) -> Policies:
        try:
            parsed = PolicyDocument.model_validate(document)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in ("policyDocument", *first["loc"]))
            raise MalformedAnswerError(f"{place}: {first['msg']}") from None
        return Policies((AttachedPolicy(f"the authorizer {self._name}", "policyDocument", parsed),))

    def _check(self, verdict: Verdict, exchange: Exchange) -> None:
        """Raises RefusedError unless the verdict allows this very request."""
        rest = self._asking.version == "1.0"
        if verdict.policy is None:
            denied, allowed = None, bool(verdict.allowed)
        else:
            arn, context = self._method(exchange), self._context(exchange)
            denied = verdict.policy.denies(ACTION, arn, context)
            allowed = denied is None and verdict.policy.allows(ACTION, arn, context) is not None
        if not allowed:
            words = "User is not authorized to access this resource" + (" with an explicit deny" if denied else "")
            raise DeniedError(words) if rest else RefusedError(403, "Forbidden", "ACCESS_DENIED")


def _error_message(said: bytes) -> str:
    try:
        error = orjson.loads(said)
    except orjson.JSONDecodeError:
        return ""
    return str(error.get("errorMessage", "")) if isinstance(error, dict) else ""


def _text(name: str, value: Any) -> str:
    """REST APIs show their functions texts, and take nothing that is no single value."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise MalformedAnswerError(f"context.{name} is not a text, a number or a boolean")
