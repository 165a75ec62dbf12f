"""Lambda's API: its operations, called as the front door calls them, with functions that really run."""

import asyncio
import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore import xform_name

from owsgit.aws.api import Caller, ServiceError
from owsgit.model.errors import InvalidError, UnavailableError
from owsgit.model.resource import Resource
from owsgit.runtime.budget import ThrottledError
from owsgit.services.functions import api as api_module
from owsgit.services.functions import written
from owsgit.services.functions.api import LambdaApi
from owsgit.services.functions.streamed_answer import CHUNK_BYTES_MAX
from tests.support import projects
from tests.support.sites import Services

CALLER = Caller("ann", "arn:aws:iam::111111111111:user/ann", "ann", "1" * 12, "us-east-1", "11111111-2222-3333")
ARN = "arn:aws:lambda:us-east-1:111111111111:function:"
OLD, UNKNOWN = "a" * 40, "b" * 40

ECHO = """
import os
def handler(event, context):
    print("said", event)
    if event == "fail":
        raise ValueError("no")
    custom = context.client_context.custom if context.client_context else None
    return {"event": event, "id": context.aws_request_id, "arn": context.invoked_function_arn, "custom": custom}
"""
OLDER = """
def handler(event, context):
    return "older"
"""
STREAMS = """
exports.handler = awslambda.streamifyResponse(async (event, stream) => {
  stream.write("first ");
  await new Promise((done) => setTimeout(done, 5));
  if (event.fail) throw new Error("half");
  stream.write("x".repeat(event.size || 1));
  stream.end();
});
"""


class Running:
    """Functions that run, and their API."""

    def __init__(self, home: Path) -> None:
        self.at_commits: dict[tuple[str, str], Resource] = {}
        self.services = Services(home, {"resource_at": self._resource_at})
        self.handler = self.services.handlers["function"]
        (self.api,) = self.handler.apis

    def _resource_at(self, kind: str, name: str, commit: str) -> Resource:
        found = self.at_commits.get((name, commit))
        if found is None:
            raise InvalidError(f"there was no {kind} {name}")
        return found

    def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self.services.run(getattr(self.api, operation)(CALLER, **parameters))
        return answer

    def error(self, operation: str, **parameters: Any) -> ServiceError:
        with pytest.raises(ServiceError) as raised:
            self.call(operation, **parameters)
        return raised.value


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    made = Running(tmp_path_factory.mktemp("home"))
    services = made.services
    made.at_commits[("echo", OLD)] = services.resource(
        "function", "echo", projects.function(timeout=7), **{"app.py": OLDER}
    )
    document = projects.function(
        aliases={"live": {"commit": OLD}, "lost": {"commit": UNKNOWN}},
        environment={"STAGE": "test"},
        role="reader",
        description="says it again",
        reservedConcurrency=2,
        policy={
            "Version": "2012-10-17",
            "Statement": [
                {"Effect": "Allow", "Principal": "*", "Action": "lambda:InvokeFunction", "Resource": f"{ARN}echo"}
            ],
        },
    )
    with pytest.raises(InvalidError, match="there was no function echo"):  # of the alias lost: the function runs
        services.apply(services.resource("function", "echo", document, **{"app.py": ECHO}))
    streams = {"runtime": "nodejs", "handler": "app.handler"}
    services.apply(services.resource("function", "streams", streams, **{"app.js": STREAMS}))
    broken = projects.function()
    with pytest.raises(Exception, match="no_such_module"):
        services.apply(services.resource("function", "broken", broken, **{"app.py": "import no_such_module"}))
    yield made
    services.close()


def test_a_function_is_invoked(running: Running) -> None:
    context = base64.b64encode(json.dumps({"custom": {"a": "ä"}}).encode()).decode()
    answer = running.call("invoke", function_name="echo", payload=b'{"a": 1}', log_type="Tail", client_context=context)
    assert json.loads(answer["Payload"]) == {
        "event": {"a": 1},
        "id": CALLER.request_id,
        "arn": f"{ARN}echo",
        "custom": {"a": "ä"},
    }
    assert answer["StatusCode"] == 200 and answer["ExecutedVersion"] == "$LATEST" and "FunctionError" not in answer
    log = base64.b64decode(answer["LogResult"]).decode()
    assert "said {'a': 1}" in log and f"REPORT RequestId: {CALLER.request_id}" in log


def test_no_payload_is_an_empty_object(running: Running) -> None:
    assert json.loads(running.call("invoke", function_name="echo")["Payload"])["event"] == {}


def test_what_the_function_does_wrong_is_no_error_of_the_call(running: Running) -> None:
    answer = running.call("invoke", function_name="echo", payload=b'"fail"')
    assert answer["StatusCode"] == 200 and answer["FunctionError"] == "Unhandled" and "LogResult" not in answer
    assert json.loads(answer["Payload"])["errorType"] == "ValueError"


@pytest.mark.parametrize(
    "name", ["echo", f"{ARN}echo", "111111111111:function:echo", "function:echo", "echo:$LATEST", f"{ARN}echo:$LATEST"]
)
def test_a_function_is_named_in_all_of_lambdas_ways(running: Running, name: str) -> None:
    answer = running.call("invoke", function_name=name, payload=b"1")
    assert answer["ExecutedVersion"] == "$LATEST" and json.loads(answer["Payload"])["event"] == 1


@pytest.mark.parametrize(
    ("name", "qualifier"), [("echo", "live"), ("echo:live", None), (f"{ARN}echo:live", "live"), ("echo", OLD)]
)
def test_an_alias_and_a_commit_name_a_version(running: Running, name: str, qualifier: str | None) -> None:
    answer = running.call("invoke", function_name=name, qualifier=qualifier)
    assert answer["ExecutedVersion"] == OLD and answer["Payload"] == b'"older"'


@pytest.mark.parametrize(
    ("parameters", "code", "status", "message"),
    [
        ({"function_name": "none"}, "ResourceNotFoundException", 404, f"Function not found: {ARN}none"),
        ({"function_name": "echo:1"}, "ResourceNotFoundException", 404, f"Function not found: {ARN}echo:1"),
        ({"function_name": "echo:lost"}, "ResourceNotFoundException", 404, f"Function not found: {ARN}echo:lost"),
        (
            {"function_name": "222222222222:function:echo"},
            "ResourceNotFoundException",
            404,
            "Function not found: arn:aws:lambda:us-east-1:222222222222:function:echo",
        ),
        (
            {"function_name": "arn:aws:lambda:eu-west-1:111111111111:function:echo"},
            "ResourceNotFoundException",
            404,
            "Functions from 'eu-west-1' are not reachable in this region ('us-east-1')",
        ),
        (
            {"function_name": "echo:live", "qualifier": "other"},
            "InvalidParameterValueException",
            400,
            "The derived qualifier from the function name does not match the specified qualifier.",
        ),
        (
            {"function_name": "a b"},
            "ValidationException",
            400,
            "1 validation error detected: Value 'a b' at 'functionName' failed to satisfy constraint: Member must "
            "satisfy regular expression pattern: (arn:",
        ),
        ({"function_name": "echo", "qualifier": "a.b"}, "ValidationException", 400, "at 'qualifier' failed"),
        ({"function_name": "x" * 257}, "ValidationException", 400, "length less than or equal to 256"),
        ({"function_name": "echo", "qualifier": "x" * 129}, "ValidationException", 400, "less than or equal to 128"),
        ({"function_name": "echo", "invocation_type": "Odd"}, "ValidationException", 400, "enum value set: [Event, "),
        (
            {"function_name": "echo", "payload": b"{a"},
            "InvalidRequestContentException",
            400,
            "Could not parse request body into json: Could not parse payload into json: ",
        ),
        (
            {"function_name": "echo", "payload": b"[" * 100_000},
            "InvalidRequestContentException",
            400,
            "Could not parse",
        ),
        (
            {"function_name": "echo", "payload": b"x" * (6 * 1024 * 1024 + 1)},
            "RequestTooLargeException",
            413,
            "Request must be smaller than 6291456 bytes for the InvokeFunction operation",
        ),
        (
            {"function_name": "echo", "payload": b"x" * (1024 * 1024 + 1), "invocation_type": "Event"},
            "RequestTooLargeException",
            413,
            "Request must be smaller than 1048576 bytes for the InvokeFunction operation",
        ),
        ({"function_name": "echo", "client_context": "{}"}, "InvalidRequestContentException", 400, "valid Base64"),
        ({"function_name": "echo", "client_context": "W10="}, "InvalidRequestContentException", 400, "JSON object"),
        ({"function_name": "echo", "client_context": "A" * 4000}, "InvalidRequestContentException", 400, "3583 bytes"),
        (
            {"function_name": "broken"},
            "ResourceConflictException",
            409,
            "The operation cannot be performed at this time. The function is currently in the following state: Failed.",
        ),
    ],
    ids=range(19),
)
def test_what_is_wrong_is_told_as_lambda_tells_it(
    running: Running, parameters: dict[str, Any], code: str, status: int, message: str
) -> None:
    error = running.error("invoke", **parameters)
    assert (error.code, error.status) == (code, status) and message in error.message
    assert len(error.message) < 1000, "whatever was sent, little of it comes back"


def test_an_event_is_accepted_and_run_later(running: Running) -> None:
    answer = running.call("invoke", function_name="echo", payload=b'"later"', invocation_type="Event")
    assert answer == {"StatusCode": 202, "Payload": b""}

    async def ran() -> None:
        folder = running.handler.logs("echo")
        while not any("said later" in path.read_text() for path in folder.glob("*.jsonl*")):
            await asyncio.sleep(0.01)

    running.services.run(asyncio.wait_for(ran(), 10))
    assert running.error("invoke", function_name="echo", qualifier=UNKNOWN, invocation_type="Event").status == 404


def test_a_dry_run_runs_nothing(running: Running) -> None:
    dry = {"function_name": "echo", "payload": b'"dry"', "invocation_type": "DryRun"}
    assert running.call("invoke", **dry) == {"StatusCode": 204, "Payload": b""}
    assert running.call("invoke_with_response_stream", **dry) == {"StatusCode": 204}
    assert running.error("invoke", **{**dry, "function_name": "none"}).status == 404


class Failing:
    """A handler whose functions cannot be invoked."""

    def __init__(self, handler: Any, error: Exception) -> None:
        self._handler, self._error = handler, error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handler, name)

    async def invoke(self, name: str, invocation: Any) -> Any:
        raise self._error


@pytest.mark.parametrize("operation", ["invoke", "invoke_with_response_stream"])
def test_too_many_requests_say_when_to_come_back(running: Running, operation: str) -> None:
    api = LambdaApi(running.services.site, Failing(running.handler, ThrottledError("Rate Exceeded.", remedy="wait")))
    for name, reason in (
        ("echo", "ReservedFunctionConcurrentInvocationLimitExceeded"),
        ("streams", "ConcurrentInvocationLimitExceeded"),
    ):
        with pytest.raises(ServiceError) as raised:
            running.services.run(getattr(api, operation)(CALLER, function_name=name))
        error = raised.value
        assert (error.code, error.status, error.message) == ("TooManyRequestsException", 429, "Rate Exceeded.")
        assert error.fields == {"Reason": reason, "Type": "User", "retryAfterSeconds": "1"}


def test_what_cannot_be_had_now_may_be_tried_again(running: Running) -> None:
    api = LambdaApi(running.services.site, Failing(running.handler, UnavailableError("the node is stopping")))
    with pytest.raises(ServiceError, match="the node is stopping") as raised:
        running.services.run(api.invoke(CALLER, function_name="echo"))
    assert (raised.value.code, raised.value.status) == ("ServiceException", 500)


def streamed(running: Running, **parameters: Any) -> list[Any]:
    async def collect() -> list[Any]:
        answer = await running.api.invoke_with_response_stream(CALLER, **parameters)
        assert answer["StatusCode"] == 200 and answer["ExecutedVersion"] == "$LATEST"
        assert answer["EventStream"].content_type == "application/vnd.amazon.eventstream"
        return [event async for event in answer["EventStream"].events]

    return running.services.run(asyncio.wait_for(collect(), 20))


def chunks(events: list[Any]) -> bytes:
    return b"".join(event["PayloadChunk"]["Payload"] for event in events if "PayloadChunk" in event)


def test_pieces_come_as_they_are_written(running: Running) -> None:
    events = streamed(running, function_name="streams", payload=b'{"size": 3}', log_type="Tail")
    assert chunks(events) == b"first xxx" and len(events) >= 3
    assert set(events[-1]) == {"InvokeComplete"}
    assert "REPORT" in base64.b64decode(events[-1]["InvokeComplete"]["LogResult"]).decode()


def test_large_pieces_are_several_events(running: Running) -> None:
    size = 3 * CHUNK_BYTES_MAX
    events = streamed(running, function_name="streams", payload=json.dumps({"size": size}).encode())
    assert len(chunks(events)) == size + len("first ")
    assert max(len(event["PayloadChunk"]["Payload"]) for event in events[:-1]) <= CHUNK_BYTES_MAX
    assert events[-1] == {"InvokeComplete": {}}


def test_an_error_in_the_middle_ends_the_stream(running: Running) -> None:
    events = streamed(running, function_name="streams", payload=b'{"fail": true}')
    assert chunks(events) == b"first "
    told = events[-1]["InvokeComplete"]
    assert told["ErrorCode"] == "Unhandled" and json.loads(told["ErrorDetails"])["errorMessage"] == "half"


def test_what_does_not_stream_comes_in_one_piece(running: Running) -> None:
    events = streamed(running, function_name="echo", payload=b"[1]")
    assert json.loads(chunks(events))["event"] == [1] and events[-1] == {"InvokeComplete": {}}
    failed = streamed(running, function_name="echo", payload=b'"fail"')
    assert [set(event) for event in failed] == [{"InvokeComplete"}]


def test_a_client_that_leaves_ends_its_stream_alone(running: Running) -> None:
    async def leave() -> None:
        answer = await running.api.invoke_with_response_stream(CALLER, function_name="streams", payload=b"{}")
        events = answer["EventStream"].events
        await events.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(events)

    running.services.run(leave())
    assert chunks(streamed(running, function_name="streams", payload=b"{}")) == b"first x"


def test_all_that_is_known_of_a_function_is_told(running: Running) -> None:
    told = running.call("get_function_configuration", function_name="echo")
    assert told["FunctionArn"] == f"{ARN}echo" and told["Version"] == "$LATEST"
    assert told["Environment"] == {"Variables": {"STAGE": "test"}}
    assert told["Role"] == "arn:aws:iam::111111111111:role/reader"
    assert told["CodeSize"] == len(ECHO) and len(base64.b64decode(told["CodeSha256"])) == 32
    assert (told["Runtime"], told["Handler"], told["Timeout"], told["MemorySize"]) == ("python", "app.handler", 3, 128)
    assert (told["State"], told["Description"], told["PackageType"]) == ("Active", "says it again", "Zip")
    whole = running.call("get_function", function_name="echo")
    assert whole["Configuration"] == told and whole["Code"] == {"RepositoryType": "Git"}
    assert whole["Concurrency"] == {"ReservedConcurrentExecutions": 2}


def test_a_version_is_told_as_it_was(running: Running) -> None:
    told = running.call("get_function_configuration", function_name="echo", qualifier="live")
    assert (told["Version"], told["Timeout"], told["FunctionArn"]) == (OLD, 7, f"{ARN}echo:live")
    assert running.error("get_function", function_name="echo:lost").message == f"Function not found: {ARN}echo:lost"


def test_a_function_that_does_not_run_says_why(running: Running) -> None:
    told = running.call("get_function_configuration", function_name="broken")
    assert (told["State"], told["LastUpdateStatus"]) == ("Failed", "Failed")
    assert "no_such_module" in told["StateReason"] and "no_such_module" in told["LastUpdateStatusReason"]


def test_the_digest_of_a_package_is_that_of_its_zip(running: Running) -> None:
    document = projects.function(package="code.zip")
    resource = running.services.resource("function", "zipped", document, **{"code.zip": b"PK"})
    told = running.api._described.configuration(resource, running.handler.standing("zipped"), "$LATEST", "")
    assert told["CodeSha256"] == base64.b64encode(hashlib.sha256(b"PK").digest()).decode()
    assert (told["State"], told["LastUpdateStatus"]) == ("Pending", "InProgress")


def test_an_image_is_told_as_an_image(running: Running) -> None:
    uri = "shop@sha256:" + "1" * 64
    document = {"runtime": "container", "image": {"uri": uri, "command": ["app.handler"]}}
    resource = running.services.resource("function", "image", document)
    told = running.api._described.configuration(resource, running.handler.standing("image"), "$LATEST", "")
    assert (told["PackageType"], told["CodeSha256"]) == ("Image", "1" * 64) and "Runtime" not in told
    assert told["ImageConfigResponse"] == {"ImageConfig": {"Command": ["app.handler"]}}
    assert running.api._described.code(resource.spec)["ImageUri"] == uri


def test_functions_are_listed_in_pages(running: Running) -> None:
    first = running.call("list_functions", max_items=2)
    assert [each["FunctionName"] for each in first["Functions"]] == ["broken", "echo"]
    second = running.call("list_functions", max_items=2, marker=first["NextMarker"])
    assert [each["FunctionName"] for each in second["Functions"]] == ["streams"] and "NextMarker" not in second
    every = running.call("list_functions", function_version="ALL")["Functions"]
    versions = [("broken", "$LATEST"), ("echo", "$LATEST"), ("echo", OLD), ("streams", "$LATEST")]
    assert [(each["FunctionName"], each["Version"]) for each in every] == versions
    assert every[2]["FunctionArn"] == f"{ARN}echo:{OLD}"


def test_no_page_is_larger_than_lambdas(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "PAGE_MAX", 1)
    assert len(running.call("list_functions", max_items=10_000)["Functions"]) == 1


@pytest.mark.parametrize(
    "parameters",
    [{"max_items": 0}, {"max_items": 10_001}, {"marker": "?"}, {"marker": "e30="}, {"function_version": "x"}],
    ids=range(5),
)
def test_lists_are_asked_for_in_bounds(running: Running, parameters: dict[str, Any]) -> None:
    assert running.error("list_functions", **parameters).status == 400


def test_calls_need_what_they_need_on_aws(running: Running) -> None:
    def needs(operation: str, **parameters: Any) -> list[tuple[str, str, bool, bool]]:
        found = list(running.api.needs(operation, parameters))
        assert all((need.context or {}) in ({}, {"lambda:FunctionArn": f"{ARN}echo"}) for need in found)
        return [(need.action, need.arn, need.policy is not None, need.denied_only) for need in found]

    invoke = "lambda:InvokeFunction"
    assert needs("Invoke", FunctionName="echo") == [(invoke, f"{ARN}echo", True, False)]
    versioned = [(invoke, f"{ARN}echo:live", False, False), (invoke, f"{ARN}echo", True, True)]
    assert needs("InvokeWithResponseStream", FunctionName="echo", Qualifier="live") == versioned
    assert needs("ListFunctions") == [("lambda:ListFunctions", "*", False, False)]
    assert needs("GetFunction", FunctionName="echo") == [("lambda:GetFunction", f"{ARN}echo", True, False)]
    configuration = [("lambda:GetFunctionConfiguration", f"{ARN}echo:live", False, False)]
    assert needs("GetFunctionConfiguration", FunctionName="echo:live") == configuration


@pytest.mark.parametrize("operation", written.WRITES)
def test_what_would_change_functions_names_the_file_to_commit(running: Running, operation: str) -> None:
    member = "LayerName" if "Layer" in operation else "FunctionName"
    with pytest.raises(ServiceError, match=f"{operation} changes nothing here") as raised:
        running.api.needs(operation, {member: "cart"})
    assert raised.value.code == "InvalidParameterValueException" and "/cart" in raised.value.message
    told = running.error(xform_name(operation), **{xform_name(member): f"{ARN}cart:live"})
    assert told.message == raised.value.message
    assert "Commit " in str(running.error(xform_name(operation)))
