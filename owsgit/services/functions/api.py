"""Lambda's API behind the front door: functions are invoked, listed and described as AWS's SDKs do it.

What would change a function is refused with the file to commit (written.py).
https://docs.aws.amazon.com/lambda/latest/api/API_Operations.html
"""

import asyncio
import base64
import binascii
import json
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from botocore import xform_name

from owsgit.aws.api import Caller, Need, ServiceError, Streamed
from owsgit.model.errors import InvalidError, OwsgitError, UnavailableError
from owsgit.model.iam.decision import AttachedPolicy, ResourcePolicy
from owsgit.model.resource import Resource
from owsgit.model.service import Answer, Invocation, Site
from owsgit.runtime.budget import ThrottledError
from owsgit.services.functions import access, aliases, written
from owsgit.services.functions.aliases import LATEST
from owsgit.services.functions.described import Descriptions, Standing
from owsgit.services.functions.naming import Named, invalid, not_found
from owsgit.services.functions.rules import CLIENT_CONTEXT_BYTES_MAX, PAYLOAD_BYTES_MAX
from owsgit.services.functions.spec import FunctionSpec
from owsgit.services.functions.streamed_answer import StreamedAnswer

SYNCHRONOUS_BYTES_MAX = 6 * 1024 * 1024
"""Lambda's limit for a synchronous event; that for an asynchronous one is rules.PAYLOAD_BYTES_MAX."""

PAGE_MAX = 50
"""Lambda's: no more functions are listed at once, whatever MaxItems says."""

MARKER_CHARACTERS_MAX = 1024
RETRY_AFTER_SECONDS = 1

Result = TypeVar("Result")


class Functions(Protocol):
    """What the API asks of the handler of functions."""

    async def invoke(self, name: str, invocation: Invocation) -> Answer: ...

    async def enqueue(self, name: str, invocation: Invocation) -> str: ...

    def resource(self, name: str) -> Resource | None:
        """As it is wanted at the head; it need not run."""
        ...

    def names(self) -> list[str]:
        """Of all functions, sorted."""
        ...

    async def version(self, name: str, commit: str) -> Resource:
        """As it was at a commit. Raises OwsgitError."""
        ...

    def standing(self, name: str) -> Standing: ...


class LambdaApi:
    """The operations. What is said of one function is said by the node that was asked: every node has them all."""

    service = "lambda"
    data_events = frozenset({"Invoke", "InvokeAsync", "InvokeWithResponseStream"})

    def __init__(self, site: Site, functions: Functions) -> None:
        self._site, self._functions = site, functions
        self._described = Descriptions(site)

    def needs(self, operation: str, parameters: Mapping[str, Any]) -> Iterable[Need]:
        if operation in written.WRITES:  # nothing is done, whoever asks: there is nothing to allow
            raise written.refusal(operation, parameters, committed=self._site.edit is None)
        if operation == "ListFunctions":
            return (Need("lambda:ListFunctions", "*"),)
        named = self._named(parameters["FunctionName"], parameters.get("Qualifier"))
        if operation in ("Invoke", "InvokeWithResponseStream"):
            return access.to_invoke(named.arn, named.qualifier, self._policy(named))
        context = {access.FUNCTION_ARN: named.arn}
        policy = None if named.qualifier else self._policy(named)
        return (Need(f"lambda:{operation}", named.qualified_arn, context, policy),)

    def home(self, operation: str, parameters: Mapping[str, Any]) -> str | None:
        return None

    def _policy(self, named: Named) -> ResourcePolicy | None:
        """The function's own."""
        resource = self._functions.resource(named.name)
        if resource is None or named.scope.account != self._site.scope().account:
            return None
        assert isinstance(resource.spec, FunctionSpec)
        if resource.spec.policy is None:
            return None
        return ResourcePolicy(AttachedPolicy(resource.file, "$.policy", resource.spec.policy))

    async def invoke(
        self,
        caller: Caller,
        *,
        function_name: str,
        invocation_type: str = "RequestResponse",
        log_type: str = "None",
        client_context: str = "",
        payload: bytes = b"",
        qualifier: str | None = None,
    ) -> dict[str, Any]:
        """RequestResponse waits for the function, Event has it invoked later, DryRun only looks."""
        asynchronous = invocation_type == "Event"
        _check(invocation_type, "invocationType", ("Event", "RequestResponse", "DryRun"))
        _check(log_type, "logType", ("None", "Tail"))
        event = _event(payload, PAYLOAD_BYTES_MAX if asynchronous else SYNCHRONOUS_BYTES_MAX)
        invocation = Invocation(event, caller.request_id, client_context=_client_context(client_context))
        named = self._named(function_name, qualifier)
        resource = self._resource(named)
        if asynchronous:
            name, _ = self._version(named, resource, settled=False)
            await self._told(self._functions.enqueue(name, invocation), named)
            return {"StatusCode": 202, "Payload": b""}
        name, version = self._version(named, resource)
        if invocation_type == "DryRun":
            return {"StatusCode": 204, "Payload": b""}
        wants_log = log_type == "Tail"
        answer = await self._told(self._functions.invoke(name, replace(invocation, wants_log=wants_log)), named)
        output = {"StatusCode": 200, "ExecutedVersion": version, "Payload": answer.payload}
        if answer.error is not None:
            output["FunctionError"] = answer.error
        if wants_log:
            output["LogResult"] = base64.b64encode(answer.log_tail).decode()
        return output

    async def invoke_with_response_stream(
        self,
        caller: Caller,
        *,
        function_name: str,
        invocation_type: str = "RequestResponse",
        log_type: str = "None",
        client_context: str = "",
        payload: bytes = b"",
        qualifier: str | None = None,
    ) -> dict[str, Any]:
        """The pieces of the answer as they come. What a function that does not stream answers is one piece."""
        _check(invocation_type, "invocationType", ("RequestResponse", "DryRun"))
        _check(log_type, "logType", ("None", "Tail"))
        event = _event(payload, SYNCHRONOUS_BYTES_MAX)
        context = _client_context(client_context)
        named = self._named(function_name, qualifier)
        name, version = self._version(named, self._resource(named))
        if invocation_type == "DryRun":
            return {"StatusCode": 204}
        invocation = Invocation(event, caller.request_id, client_context=context, wants_log=log_type == "Tail")
        answer = StreamedAnswer(name, lambda given: self._functions.invoke(name, given), invocation)
        await self._told(answer.begin(), named)
        return {"StatusCode": 200, "ExecutedVersion": version, "EventStream": Streamed(answer)}

    async def list_functions(
        self, caller: Caller, *, function_version: str = "", marker: str = "", max_items: int = PAGE_MAX
    ) -> dict[str, Any]:
        """By name, a page at a time; with ALL, the versions that aliases name follow each function."""
        _check(function_version, "functionVersion", ("", "ALL"))
        every = function_version == "ALL"
        return await self._page("Functions", self._functions.names(), marker, max_items, every=every)

    async def list_versions_by_function(
        self, caller: Caller, *, function_name: str, marker: str = "", max_items: int = PAGE_MAX
    ) -> dict[str, Any]:
        """That at the head, and those that aliases name: of the others, git log tells."""
        name = self._resource(self._named(function_name, None)).name
        return await self._page("Versions", [name], marker, max_items, every=True)

    async def get_function_code_signing_config(self, caller: Caller, *, function_name: str) -> dict[str, Any]:
        """None: code is signed with its commit."""
        return {"FunctionName": self._resource(self._named(function_name, None)).name, "CodeSigningConfigArn": ""}

    async def _page(
        self, member: str, names: Iterable[str], marker: str, max_items: int, *, every: bool
    ) -> dict[str, Any]:
        """Functions, each with its versions if `every`, from behind the marker."""
        if not 1 <= max_items <= 10_000:
            raise invalid(f"MaxItems lies between 1 and 10000, not {max_items}")
        after = _marked(marker)
        found: list[dict[str, Any]] = []
        for name, version in self._listed(names, every):
            if (name, version) <= after:
                continue
            if len(found) == min(max_items, PAGE_MAX):
                last = found[-1]
                return {member: found, "NextMarker": _mark(last["FunctionName"], last["Version"])}
            described = await self._describe_listed(name, version, qualified=every)
            if described is not None:
                found.append(described)
        return {member: found}

    async def get_function(self, caller: Caller, *, function_name: str, qualifier: str | None = None) -> dict[str, Any]:
        resource, configuration = await self._configuration(function_name, qualifier)
        spec = resource.spec
        assert isinstance(spec, FunctionSpec)
        output = {"Configuration": configuration, "Code": self._described.code(spec)}
        if spec.reserved_concurrency is not None:
            output["Concurrency"] = {"ReservedConcurrentExecutions": spec.reserved_concurrency}
        return output

    async def get_function_configuration(
        self, caller: Caller, *, function_name: str, qualifier: str | None = None
    ) -> dict[str, Any]:
        return (await self._configuration(function_name, qualifier))[1]

    async def _configuration(self, function_name: str, qualifier: str | None) -> tuple[Resource, dict[str, Any]]:
        named = self._named(function_name, qualifier)
        resource = self._resource(named)
        _, version = self._version(named, resource)
        if version != LATEST:
            resource = await self._told(self._functions.version(named.name, version), named)
        return resource, await self._describe(resource, version, named.qualifier)

    async def _describe(self, resource: Resource, version: str, qualifier: str) -> dict[str, Any]:
        standing = self._functions.standing(resource.name)
        return await asyncio.to_thread(self._described.configuration, resource, standing, version, qualifier)

    async def _describe_listed(self, name: str, version: str, *, qualified: bool) -> dict[str, Any] | None:
        """None for what has gone meanwhile, or never was: an alias may name a commit that is not there."""
        try:
            resource = self._functions.resource(name)
            if version != LATEST:
                resource = await self._functions.version(name, version)
        except OwsgitError:
            return None
        return None if resource is None else await self._describe(resource, version, version if qualified else "")

    def _listed(self, names: Iterable[str], every: bool) -> Iterator[tuple[str, str]]:
        """Name and version of all that is listed, in order; `$LATEST` comes before all commits."""
        for name in names:
            yield name, LATEST
            resource = self._functions.resource(name)
            if every and resource is not None:
                assert isinstance(resource.spec, FunctionSpec)
                named = resource.spec.aliases.values()
                for commit in sorted({commit for alias in named for commit in (alias.commit, *alias.weights)}):
                    yield name, commit

    def _named(self, function_name: str, qualifier: str | None) -> Named:
        return Named.parse(function_name, qualifier, self._site.scope())

    def _resource(self, named: Named) -> Resource:
        """Raises ServiceError."""
        resource = self._functions.resource(named.name)
        if resource is None or named.scope.account != self._site.scope().account:
            raise not_found(f"Function not found: {named.qualified_arn}")
        return resource

    def _version(self, named: Named, resource: Resource, *, settled: bool = True) -> tuple[str, str]:
        """What the version is called here, and which it is: `$LATEST` or a commit. Raises ServiceError.

        Of an alias with several versions, one is drawn; without `settled`, the alias is kept, for each try to draw.
        """
        qualifier, spec = named.qualifier, resource.spec
        assert isinstance(spec, FunctionSpec)
        if qualifier in ("", LATEST):
            return named.name, LATEST
        if qualifier in spec.aliases:
            commit = aliases.choose(named.name, qualifier, spec.aliases)
            return f"{named.name}@{commit}" if settled else f"{named.name}:{qualifier}", commit
        name = f"{named.name}@{qualifier}"
        try:
            called = aliases.Qualified.parse(name)
        except InvalidError:  # neither an alias nor a commit
            raise not_found(f"Function not found: {named.qualified_arn}") from None
        return name, called.commit

    async def _told(self, work: Awaitable[Result], named: Named) -> Result:
        """Raises ServiceError for what keeps a function from being invoked."""
        try:
            return await work
        except ThrottledError as error:
            raise self._throttled(named, error) from None
        except InvalidError as error:
            if named.qualifier:  # there was no such function at the commit
                raise not_found(f"Function not found: {named.qualified_arn}") from None
            raise invalid(str(error)) from None
        except UnavailableError as error:
            raise self._unavailable(named, error) from None
        except OwsgitError as error:  # a version of another commit that cannot run
            raise ServiceError("ServiceException", str(error), status=500, fields={"Type": "Service"}) from None

    def _throttled(self, named: Named, error: ThrottledError) -> ServiceError:
        resource = self._functions.resource(named.name)
        reserved = resource is not None and getattr(resource.spec, "reserved_concurrency", None) is not None
        reason = (
            "ReservedFunctionConcurrentInvocationLimitExceeded" if reserved else "ConcurrentInvocationLimitExceeded"
        )
        fields = {"Reason": reason, "Type": "User", "retryAfterSeconds": str(RETRY_AFTER_SECONDS)}
        return ServiceError("TooManyRequestsException", error.problems[0].message, status=429, fields=fields)

    def _unavailable(self, named: Named, error: UnavailableError) -> ServiceError:
        """That it does not run is told as Lambda tells it, with why; the SDKs do not try that again."""
        standing = self._functions.standing(named.name)
        if standing.runs:
            return ServiceError("ServiceException", str(error), status=500, fields={"Type": "Service"})
        members = standing.members()
        return ServiceError(
            "ResourceConflictException",
            "The operation cannot be performed at this time. The function is currently in the following state: "
            f"{members['State']}. {members['StateReason']}",
            status=409,
            fields={"Type": "User"},
        )


Operation = Callable[..., Coroutine[Any, Any, dict[str, Any]]]


def _refused(operation: str) -> Operation:
    async def refused(self: LambdaApi, caller: Caller, **parameters: Any) -> dict[str, Any]:
        names = {"FunctionName": parameters.get("function_name"), "LayerName": parameters.get("layer_name")}
        raise written.refusal(operation, names)

    return refused


for _operation in written.WRITES:
    setattr(LambdaApi, xform_name(_operation), _refused(_operation))


def _check(value: str, member: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ServiceError(
            "ValidationException",
            f"1 validation error detected: Value '{value[:256]}' at '{member}' failed to satisfy constraint: Member "
            f"must satisfy enum value set: [{', '.join(filter(None, known))}]",
        )


def _event(payload: bytes, most: int) -> bytes:
    """What the function gets; nothing is an empty object, as on Lambda. Raises ServiceError."""
    if len(payload) > most:
        raise ServiceError(
            "RequestTooLargeException",
            f"Request must be smaller than {most} bytes for the InvokeFunction operation",
            status=413,
            fields={"Type": "User"},
        )
    if not payload:
        return b"{}"
    try:
        json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise _content(f"Could not parse request body into json: Could not parse payload into json: {error}") from None
    return payload


def _client_context(given: str) -> bytes:
    """JSON from base64. Raises ServiceError."""
    if not given:
        return b""
    if len(given) > CLIENT_CONTEXT_BYTES_MAX:
        raise _content(f"Client context must have at most {CLIENT_CONTEXT_BYTES_MAX} bytes of Base64.")
    try:
        data = base64.b64decode(given, validate=True)
        if isinstance(json.loads(data), dict):
            return json.dumps(json.loads(data)).encode()  # in ASCII: it becomes a header for some runtimes
    except (binascii.Error, ValueError, RecursionError):
        pass
    raise _content("Client context must be a valid Base64-encoded JSON object.")


def _content(message: str) -> ServiceError:
    return ServiceError("InvalidRequestContentException", message, fields={"Type": "User"})


def _mark(name: str, version: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([name, version]).encode()).decode()


def _marked(marker: str) -> tuple[str, str]:
    """Behind which function and version a page begins. Raises ServiceError."""
    if not marker:
        return "", ""
    try:
        match json.loads(base64.b64decode(marker[:MARKER_CHARACTERS_MAX], altchars=b"-_", validate=True)):
            case [str(name), str(version)]:
                return name, version
    except (ValueError, RecursionError):
        pass
    raise invalid("Invalid Marker: it has to be the NextMarker of an earlier answer")
