"""Custom runtimes: AWS's own for Python, a shell script and a compiled program, and clients that mean harm."""

import asyncio
import json
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from owsgit.model.service import Answer, Invocation, Sink
from owsgit.runtime import runtime_http, worker
from owsgit.runtime.bubblewrap import Bubblewrap
from owsgit.runtime.config import FunctionConfig, InitError
from owsgit.runtime.log_lines import message
from owsgit.runtime.log_reader import last_lines
from owsgit.runtime.logs import FunctionLog
from owsgit.runtime.python_worker import RESPONSE_BYTES_MAX
from owsgit.runtime.runtime_api import RuntimeApi
from owsgit.runtime.runtimes import Runtimes
from owsgit.runtime.sandbox import Sandbox, Unconfined
from owsgit.runtime.worker import NotBegunError, Worker
from tests.support.loops import end_tasks
from tests.support.processes import freeze

MIB = 1024 * 1024
ARN = "arn:aws:lambda:us-east-1:1:function:f"

PYTHON = f"#!/bin/sh\nexec {sys.executable} -m awslambdaric $_HANDLER\n"
APP = """
import json, os, sys, time
def handler(event, context):
    if event == "context":
        return {"id": context.aws_request_id, "arn": context.invoked_function_arn, "trace": os.environ["_X_AMZN_TRACE_ID"],
                "left": context.get_remaining_time_in_millis(), "title": context.client_context.client.app_title,
                "stream": context.log_stream_name, "memory": context.memory_limit_in_mb}
    if event == "raise":
        raise LookupError("näh")
    if event == "exit":
        sys.exit(4)
    if event == "set":
        return {1}
    if isinstance(event, int):
        return "x" * event
    return event
"""
SHELL = """#!/bin/sh
set -eu
HEADERS=$(mktemp)
while true; do
  EVENT=$(curl -sS -LD "$HEADERS" "http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation/next")
  ID=$(grep -Fi Lambda-Runtime-Aws-Request-Id "$HEADERS" | tr -d '[:space:]' | cut -d: -f2)
  echo "handling $EVENT"
  printf '%s' "{\\"got\\": $EVENT}" | curl -sS -o /dev/null --data-binary @- \
    "http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation/$ID/response"
done
"""


class Lab:
    """Runs custom runtimes in one event loop of its own."""

    def __init__(self, folder: Path, sandbox: Sandbox) -> None:
        self.folder = folder
        self.loop = uvloop.new_event_loop()
        self.sandbox = sandbox
        self.runtimes = Runtimes(sandbox)
        self.workers: list[Worker] = []

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(work, 60))

    def folder_of(self, files: dict[str, str | Path]) -> Path:
        code = self.folder / uuid.uuid4().hex[:8]
        code.mkdir()
        for name, content in files.items():
            if isinstance(content, Path):
                shutil.copy(content, code / name)
            else:
                (code / name).write_text(content)
                (code / name).chmod(0o755)
        return code

    def start(self, code: Path, *, timeout: float = 10.0, opt: Path | None = None, **variables: str) -> "Function":
        config = FunctionConfig(
            name="f", arn=ARN, runtime="provided", handler="app.handler", code=code, timeout=timeout, memory_size=128,
            environment=variables, region="us-east-1", version="$LATEST", opt=opt,
        )  # fmt: skip
        log = FunctionLog(self.folder / uuid.uuid4().hex[:8])
        try:
            started: Worker = self.run(self.runtimes.start(config, log))
        except InitError as error:
            error.add_note("\n".join(_lines(log)))
            raise
        self.workers.append(started)
        return Function(self, started, log)

    def close(self) -> None:
        async def end() -> None:
            for each in self.workers:
                each.close()
            await asyncio.sleep(0.1)
            await self.sandbox.close()

        self.run(end())
        self.loop.run_until_complete(end_tasks())
        self.loop.close()


class Function:
    def __init__(self, lab: Lab, started: Worker, log: FunctionLog) -> None:
        self.lab, self.worker, self._log = lab, started, log

    def answer(self, event: Any, **fields: Any) -> Answer:
        invocation = Invocation(
            json.dumps(event).encode(), fields.pop("request_id", None) or str(uuid.uuid4()), **fields
        )
        found: Answer = self.lab.run(self.worker.invoke(invocation))
        return found

    def __call__(self, event: Any, **fields: Any) -> Any:
        answer = self.answer(event, **fields)
        assert answer.error is None, answer.payload
        return json.loads(answer.payload)

    def error(self, event: Any, **fields: Any) -> dict[str, Any]:
        answer = self.answer(event, **fields)
        assert answer.error == "Unhandled", answer.payload
        found: dict[str, Any] = json.loads(answer.payload)
        return found

    def log(self) -> list[str]:
        return _lines(self._log)


def _lines(log: FunctionLog) -> list[str]:
    return [message(line) for line in last_lines(log.folder, 1000)]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Without a sandbox: the node's own interpreter, with awslambdaric, is in reach."""
    made = Lab(tmp_path_factory.mktemp("lab"), Unconfined())
    yield made
    made.close()


@pytest.fixture(scope="module", params=["none", "bubblewrap"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, lab: Lab) -> Iterator[Lab]:
    """With each kind of sandbox."""
    if request.param == "none":
        yield lab
        return
    made = Lab(tmp_path_factory.mktemp("contained"), Bubblewrap(f"owsgit-test-{uuid.uuid4().hex[:8]}"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def python(lab: Lab) -> Function:
    """awslambdaric, warm: for tests that leave it alive."""
    return lab.start(lab.folder_of({"bootstrap": PYTHON, "app.py": APP}))


@pytest.fixture(scope="module")
def program(lab: Lab) -> Path:
    """The folder of the compiled program."""
    code = lab.folder_of({})
    source = Path(__file__).with_name("bootstrap.c")
    subprocess.run(["gcc", "-O1", "-o", str(code / "bootstrap"), str(source)], check=True)
    return code


@pytest.fixture(scope="module")
def compiled(place: Lab, program: Path) -> Function:
    """The compiled program, warm: for tests that leave it alive."""
    return place.start(program)


def test_awslambdaric_answers_events_of_all_sizes(python: Function) -> None:
    for event in (None, {}, [1, 2.5, "ü", True], {"a": {"b": None}}, "x" * (6 * MIB - 2)):
        assert python(event) == event


def test_awslambdaric_sees_the_whole_context(python: Function) -> None:
    found = python(
        "context", request_id="abc-1", trace_id="Root=1-5e;Sampled=0",
        client_context='{"client": {"app_title": "tü"},\n "custom": {}}'.encode(),
    )  # fmt: skip
    assert 9000 < found.pop("left") <= 10000
    assert "/[$LATEST]" in found.pop("stream")
    trace = "Root=1-5e;Sampled=0"
    assert found == {"id": "abc-1", "arn": ARN, "trace": trace, "title": "tü", "memory": "128"}


def test_an_error_has_its_type_and_the_worker_goes_on(python: Function) -> None:
    found = python.error("raise")
    assert (found["errorType"], found["errorMessage"]) == ("LookupError", "näh")
    assert any("app.py" in line for line in found["stackTrace"])
    assert python.error("set")["errorType"] == "Runtime.MarshalError"
    assert python.worker.alive and python("still here") == "still here"


def test_a_response_above_the_limit_is_refused_and_told(lab: Lab) -> None:
    function = lab.start(lab.folder_of({"bootstrap": PYTHON, "app.py": APP}))
    found = function.error(RESPONSE_BYTES_MAX)
    assert found["errorType"] == "Function.ResponseSizeTooLarge"
    assert found["errorMessage"] == (
        "Response payload size (6291558 bytes) exceeded maximum allowed payload size (6291556 bytes)."
    )


def test_the_log_has_lambdas_lines_and_the_init_duration_once(lab: Lab) -> None:
    function = lab.start(lab.folder_of({"bootstrap": PYTHON, "app.py": 'print("module")\n' + APP}))
    for number in range(2):
        function("x", request_id=f"r{number}")
    lines = [line for line in function.log() if line]
    assert lines[0] == "module" and lines[1] == "START RequestId: r0 Version: $LATEST"
    assert "END RequestId: r0" in lines and [("Init Duration" in line) for line in lines if "REPORT" in line] == [
        True,
        False,
    ]


def test_sys_exit_in_a_handler_is_an_exit(lab: Lab) -> None:
    function = lab.start(lab.folder_of({"bootstrap": PYTHON, "app.py": APP}))
    found = function.error("exit", request_id="r1")
    assert found["errorType"] == "Runtime.ExitError"
    assert found["errorMessage"] == "RequestId: r1 Error: Runtime exited with error: exit status 4"
    assert not function.worker.alive


def test_an_import_error_is_an_init_error_with_its_type(lab: Lab) -> None:
    with pytest.raises(InitError) as caught:
        lab.start(lab.folder_of({"bootstrap": PYTHON, "app.py": "import nothing_such"}))
    assert caught.value.report["errorType"] == "Runtime.ImportModuleError"
    assert "nothing_such" in str(caught.value.report["errorMessage"])


def test_a_shell_script_is_a_runtime(place: Lab) -> None:
    function = place.start(place.folder_of({"bootstrap": SHELL}))
    assert function({"a": 1}) == {"got": {"a": 1}}
    assert function("x" * 2_000_000) == {"got": "x" * 2_000_000}  # for which curl asks with Expect: 100-continue
    assert 'handling {"a": 1}' in function.log()


def test_a_bootstrap_of_a_layer_is_used_where_the_code_has_none(place: Lab, program: Path) -> None:
    function = place.start(place.folder_of({"data": ""}), opt=program)
    assert function("hello") == "hello"


def test_a_missing_or_broken_bootstrap_is_an_invalid_entrypoint(lab: Lab) -> None:
    plain = lab.folder_of({"bootstrap": "#!/bin/sh\n"})
    (plain / "bootstrap").chmod(0o644)
    for folder, words in (
        (lab.folder_of({}), "Couldn't find valid bootstrap(s): [/var/task/bootstrap /opt/bootstrap]"),
        (plain, f"fork/exec {plain}/bootstrap: permission denied"),
        (
            broken := lab.folder_of({"bootstrap": "#!/no/such/shell\n"}),
            f"fork/exec {broken}/bootstrap: no such file or directory",
        ),
    ):
        with pytest.raises(InitError) as caught:
            lab.start(folder)
        assert caught.value.report == {"errorType": "Runtime.InvalidEntrypoint", "errorMessage": words}
        remedy = caught.value.problems[0].remedy
        assert ("git update-index --chmod=+x" in remedy) == ("permission denied" in words)


def test_a_compiled_program_is_a_runtime(compiled: Function) -> None:
    for event in ("hello", {"a": [1]}, "x" * (6 * MIB - 2)):
        assert compiled(event) == event
    assert len(compiled(f"large{RESPONSE_BYTES_MAX}")) == RESPONSE_BYTES_MAX - 2


def test_a_program_whose_response_is_too_large_is_told_so_and_goes_on(compiled: Function) -> None:
    found = compiled.error(f"large{RESPONSE_BYTES_MAX + 1}")
    assert found["errorType"] == "Function.ResponseSizeTooLarge"
    assert compiled("on") == "on"
    assert "refused HTTP/1.1 413" in compiled.log()


def test_an_error_is_passed_on_as_it_is(compiled: Function) -> None:
    assert compiled.error("error") == {"errorType": "Own.Error", "errorMessage": "it is wrong"}
    assert compiled.error("error0") == {"errorType": "Own.Header", "errorMessage": ""}
    assert compiled("on") == "on"


def test_a_stream_without_a_sink_is_put_together(compiled: Function) -> None:
    assert compiled.answer("stream").payload == b"piece;piece;piece;"
    assert compiled.error("stream!") == {"errorType": "Own.Broken"}


def test_a_stream_goes_to_the_sink(compiled: Function) -> None:
    got: list[bytes] = []

    async def sink(data: bytes) -> None:
        got.append(data)

    answer = compiled.answer("stream", sink=sink)
    assert (answer.payload, answer.error, b"".join(got)) == (b"", None, b"piece;piece;piece;")
    got.clear()
    answer = compiled.answer("stream!", sink=sink)
    assert (answer.payload, answer.error, b"".join(got)) == (b'{"errorType": "Own.Broken"}', "Unhandled", b"piece;" * 3)
    got.clear()
    assert compiled("not streamed", sink=sink) == "not streamed" and not got


def test_a_sink_that_fails_does_not_harm_the_function(compiled: Function) -> None:
    async def sink(data: bytes) -> None:
        raise ConnectionResetError("the reader is gone")

    assert compiled.answer("stream", sink=sink).error is None
    assert compiled("on") == "on"


def test_a_program_that_ends_is_reported_with_its_status(place: Lab, program: Path) -> None:
    async def sink(data: bytes) -> None:
        pass

    for event, reason in (
        ("exit3", "exit status 3"), ("segv", "signal: Segmentation fault"), ("half", "exit status 5"),
        ("streamX", "exit status 6"),
    ):  # fmt: skip
        function = place.start(program)
        found = function.error(event, request_id="r", sink=sink)
        assert found["errorMessage"] == f"RequestId: r Error: Runtime exited with error: {reason}"
        assert found["errorType"] == "Runtime.ExitError" and not function.worker.alive


def test_a_program_that_ends_after_its_answer_has_answered(place: Lab, program: Path) -> None:
    function = place.start(program)
    event = "last" + "x" * MIB
    assert function(event) == event
    with pytest.raises(NotBegunError):
        function.answer("next")
    assert not function.worker.alive


@pytest.mark.parametrize("moment", ["before", "unread"])
def test_a_program_that_is_killed_while_idle_takes_no_request_along(
    place: Lab, lab: Lab, program: Path, moment: str
) -> None:
    """It is killed so late that the node does not know of it, or, stopped before, when the request lies there unread."""
    for _ in range(3):
        function = place.start(program)
        running = function.worker._running  # type: ignore[attr-defined]

        async def killed() -> None:
            freeze(running.pid if place is not lab else running._process.pid)
            if moment == "before":
                running.kill()
            asked = asyncio.ensure_future(function.worker.invoke(Invocation(b'"x"', "r")))
            if moment == "unread":
                await asyncio.sleep(0.05)
                running.kill()
            await asked

        with pytest.raises(NotBegunError):
            place.run(killed())
        assert not function.worker.alive and "it is given to another" in "".join(function.log())


def test_a_program_that_takes_too_long_is_ended(place: Lab, program: Path) -> None:
    function = place.start(program, timeout=0.3)
    found = function.error("hang", request_id="r1")
    assert found["errorType"] == "Sandbox.Timedout"
    assert found["errorMessage"].endswith(" r1 Task timed out after 0.30 seconds")
    assert not function.worker.alive


def test_init_errors_of_every_kind(place: Lab, program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "INIT_SECONDS_MAX", 0.5)
    for how, report in (
        ("init-error", {"errorType": "Own.Reason", "errorMessage": "no database", "stackTrace": ["a"]}),
        ("exit", {"errorType": "Runtime.ExitError", "errorMessage": "Runtime exited with error: exit status 3"}),
        ("hang", {"errorType": "Sandbox.Timedout", "errorMessage": "Init phase timed out after 0.50 seconds"}),
    ):
        with pytest.raises(InitError) as caught:
            place.start(program, HOW=how)
        assert caught.value.report == report


# Clients that speak to the API of a worker in whatever way they like.

NEXT = b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n"


class Client:
    """A connection on which a test writes raw bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, data: bytes) -> tuple[int, bytes]:
        self.writer.write(data)
        return await self.response()

    async def response(self) -> tuple[int, bytes]:
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length"))
        return int(head.split()[1]), await self.reader.readexactly(length)

    async def post(self, path: str, body: bytes = b"{}", headers: str = "") -> tuple[int, bytes]:
        head = f"POST /2018-06-01/runtime/{path} HTTP/1.1\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        return await self.ask(head.encode() + body)

    async def cut_off(self) -> bytes:
        """What it still gets before its connection ends."""
        try:
            return await self.reader.read()
        except ConnectionError:
            return b""


class Served:
    def __init__(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = listener.getsockname()[1]
        self.api = RuntimeApi(listener)
        self.clients: list[Client] = []

    async def client(self) -> Client:
        made = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        self.clients.append(made)
        return made

    def invoke(self, request_id: str, payload: bytes = b"{}", sink: Sink | None = None) -> "asyncio.Task[Any]":
        invocation = Invocation(payload, request_id, sink=sink)
        return asyncio.ensure_future(self.api.invoke(invocation, ARN, time.time() + 5))


@pytest.fixture(params=["uvloop", "asyncio"])
def serve(request: pytest.FixtureRequest) -> Iterator[Callable[[Callable[[Served], Coroutine[Any, Any, None]]], None]]:
    """Runs a scene against the API in a loop of each kind."""

    @asynccontextmanager
    async def served() -> Any:
        made = Served()
        try:
            yield made
        finally:
            for client in made.clients:
                client.writer.close()
            made.api.close()
            await asyncio.sleep(0.01)

    def run(scene: Callable[[Served], Coroutine[Any, Any, None]]) -> None:
        async def whole() -> None:
            async with served() as made, asyncio.timeout(30):
                await scene(made)

        with asyncio.Runner(loop_factory=uvloop.new_event_loop if request.param == "uvloop" else None) as runner:
            runner.run(whole())

    return run


Serve = Callable[[Callable[[Served], Coroutine[Any, Any, None]]], None]


def kind_of(response: tuple[int, bytes]) -> tuple[int, str]:
    return response[0], json.loads(response[1])["errorType"]


def test_what_is_wrong_is_refused_in_aws_words(serve: Serve) -> None:
    async def scene(served: Served) -> None:
        client = await served.client()
        assert kind_of(await client.post("nothing/such")) == (404, "NotFound")
        assert kind_of(await client.ask(b"GET /favicon.ico HTTP/1.1\r\n\r\n")) == (404, "NotFound")
        assert kind_of(await client.post("invocation/next")) == (405, "MethodNotAllowed")
        assert kind_of(await client.ask(NEXT.replace(b"next", b"x/response"))) == (405, "MethodNotAllowed")
        assert await client.post("invocation/x/response") == (
            400, b'{"errorMessage":"Invalid request ID","errorType":"InvalidRequestID"}',
        )  # fmt: skip
        assert kind_of(await client.post("init/error", b"x" * (300 * 1024))) == (413, "RequestEntityTooLarge")
        assert await client.post("init/error", b"not JSON", "Lambda-Runtime-Function-Error-Type: Runtime.Bad\r\n") == (
            202, b'{"status":"OK"}\n',
        )  # fmt: skip
        assert await served.api.ready() == {"errorType": "Runtime.Bad", "errorMessage": "not JSON"}
        assert kind_of(await client.post("init/error")) == (403, "InvalidStateTransition")
        assert kind_of(await client.ask(NEXT)) == (403, "InvalidStateTransition")

    serve(scene)


def test_an_init_report_of_whatever_shape_becomes_lambdas(serve: Serve) -> None:
    async def scene(served: Served) -> None:
        client = await served.client()
        deep = b"[" * 900 + b"]" * 900
        body = b'{"errorType": %s, "errorMessage": "m", "stackTrace": ["a", %s], "more": %s}' % (deep, deep, deep)
        assert (await client.post("init/error", body, "Lambda-Runtime-Function-Error-Type: Runtime.X\r\n"))[0] == 202
        assert await served.api.ready() == {"errorType": "Runtime.X", "errorMessage": "m", "stackTrace": ["a"]}

    serve(scene)


def test_only_one_response_counts_and_only_for_the_present_request(serve: Serve) -> None:
    async def scene(served: Served) -> None:
        client, other = await served.client(), await served.client()
        first = served.invoke("one")
        assert kind_of(await other.post("invocation/one/response")) == (400, "InvalidRequestID")  # not asked for yet
        assert await client.ask(NEXT) == (200, b"{}")
        await served.api.ready()
        assert kind_of(await client.ask(NEXT)) == (403, "InvalidStateTransition")
        assert (await client.post("invocation/one/response", b"1"))[0] == 202
        assert await first == (b"1", None)
        assert kind_of(await client.post("invocation/one/response", b"2")) == (403, "InvalidStateTransition")
        assert kind_of(await client.post("invocation/one/error")) == (403, "InvalidStateTransition")
        client.writer.write(NEXT)
        second = served.invoke("two")
        assert (await client.response())[0] == 200
        assert kind_of(await other.post("invocation/one/response", b"2")) == (400, "InvalidRequestID")
        other.writer.write(
            b"POST /2018-06-01/runtime/invocation/two/response HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf"
        )
        while not served.api._flight.claimed:  # type: ignore[union-attr]
            await asyncio.sleep(0.001)
        assert kind_of(await client.post("invocation/two/response", b"2")) == (403, "InvalidStateTransition")
        other.writer.close()  # and half a response is none
        while kind := (await client.post("invocation/two/error", b'"e"'))[0]:
            if kind == 202:
                break
        assert await second == (b'"e"', "Unhandled")

    serve(scene)


def test_two_polls_at_once_are_one_too_many_and_a_poller_may_come_again(serve: Serve) -> None:
    async def scene(served: Served) -> None:
        client, other = await served.client(), await served.client()
        client.writer.write(NEXT)
        await served.api.ready()
        assert kind_of(await other.ask(NEXT)) == (403, "InvalidStateTransition")
        client.writer.close()
        while served.api._poller is not None:
            await asyncio.sleep(0.001)
        other.writer.write(NEXT)
        invoked = served.invoke("one", b"7")
        assert await other.response() == (200, b"7")
        invoked.cancel()

    serve(scene)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\xff" * 1000,
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /x HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /x HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nx",
        b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nnothex\r\n",
        b"GET /x HTTP/1.1\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
        b"GET /x HTTP/1.1\r\n\r\n" * 500,
        NEXT + NEXT,
        NEXT.replace(b"Host: x", b"Content-Length: 1") + b"x",
        b"GET /x HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n",
        b"GET /x HTTP/1.1\r\nA: " + b"x" * (2 * MIB),
        b"GET /" + b"x" * (2 * MIB),
        b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: " + b"x" * (2 * MIB),
        b"POST /x HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n" + b"x" * (65 * MIB),
    ],
    ids=lambda data: repr(data[:24]),
)
def test_garbage_ends_its_connection_and_nothing_else(serve: Serve, garbage: bytes) -> None:
    async def scene(served: Served) -> None:
        client, hostile = await served.client(), await served.client()
        client.writer.write(NEXT)
        await served.api.ready()
        hostile.writer.write(garbage)
        await hostile.cut_off()
        assert served.api._server.held == 0
        invoked = served.invoke("one", b"7")
        assert await client.response() == (200, b"7")
        assert (await client.post("invocation/one/response", b"8"))[0] == 202
        assert await invoked == (b"8", None)

    serve(scene)


def test_headers_of_all_connections_together_are_bounded(serve: Serve) -> None:
    async def scene(served: Served) -> None:
        hostile = [await served.client() for _ in range(8)]
        for each in hostile:
            each.writer.write(b"GET /x HTTP/1.1\r\nA: " + b"x" * (512 * 1024))
        await asyncio.wait([asyncio.ensure_future(each.cut_off()) for each in hostile], return_when="FIRST_COMPLETED")
        assert served.api._server.held <= runtime_http.HEAD_BYTES_MAX + runtime_http.READ_BYTES

    serve(scene)


def test_connections_are_bounded_and_those_that_wait_come_in_turn(serve: Serve) -> None:
    async def scene(served: Served) -> None:
        clients = [await served.client() for _ in range(40)]
        clients[39].writer.write(NEXT)
        assert (await clients[0].post("x"))[0] == 404
        assert len(served.api._server.connections) == runtime_http.CONNECTIONS_MAX
        for each in clients[:39]:
            each.writer.close()
        await served.api.ready()

    serve(scene)


def test_a_client_that_floods_is_slowed_until_the_next_invocation(serve: Serve) -> None:
    async def scene(served: Served) -> None:
        client = await served.client()
        for _ in range(30):
            served.api._server.pace.spend(1000)
        began = time.monotonic()
        assert (await client.post("x"))[0] == 404
        assert (await client.post("x"))[0] == 404
        assert time.monotonic() - began > 0.2
        served.api._server.pace.renew()
        assert served.api._server.pace.spend(1000) == 0

    serve(scene)


def test_a_client_that_does_not_read_its_answers_is_not_read_either(serve: Serve) -> None:
    async def scene(served: Served) -> None:
        hostile = await served.client()
        invoked = served.invoke("one", b"x" * (32 * MIB))
        hostile.writer.write(NEXT)
        await served.api.ready()
        (connection,) = served.api._server.connections
        assert "writing" in connection._pauses
        assert len((await hostile.response())[1]) == 32 * MIB
        assert (await hostile.post("invocation/one/response", b"8"))[0] == 202
        assert (await invoked)[0] == b"8"

    serve(scene)


def test_a_slow_sink_holds_the_function_back(serve: Serve) -> None:
    async def scene(served: Served) -> None:
        room, got = asyncio.Event(), 0

        async def sink(data: bytes) -> None:
            nonlocal got
            await room.wait()
            got += len(data)

        client = await served.client()
        invoked = served.invoke("one", sink=sink)
        await client.ask(NEXT)
        size = 64 * MIB
        client.writer.write(
            b"POST /2018-06-01/runtime/invocation/one/response HTTP/1.1\r\nContent-Length: %d\r\n"
            b"Lambda-Runtime-Function-Response-Mode: streaming\r\n\r\n" % size
        )
        client.writer.write(bytes(size))
        flight, (connection,) = served.api._flight, served.api._server.connections
        while "sink" not in connection._pauses:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)
        assert flight is not None and flight._pending < MIB
        room.set()
        assert (await client.response())[0] == 202
        assert await invoked == (b"", None) and got == size

    serve(scene)


def test_a_stream_that_breaks_off_or_never_ends_is_an_error(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("owsgit.runtime.streamed.STREAM_BYTES_MAX", 10_000)

    async def sink(data: bytes) -> None:
        pass

    async def scene(served: Served) -> None:
        head = (
            b"POST /2018-06-01/runtime/invocation/one/response HTTP/1.1\r\nTransfer-Encoding: chunked\r\n"
            b"Lambda-Runtime-Function-Response-Mode: streaming\r\n\r\n"
        )
        client = await served.client()
        invoked = served.invoke("one", sink=sink)
        await client.ask(NEXT)
        client.writer.write(head + b"1\r\nx\r\n" * 20_000)
        await client.cut_off()
        payload, error = await invoked
        assert error == "Unhandled" and json.loads(payload)["errorType"] == "Function.ResponseSizeTooLarge"
        client = await served.client()
        invoked = served.invoke("one", sink=sink)
        await client.ask(NEXT)
        client.writer.write(head + b"1\r\nx\r\n")
        await client.writer.drain()
        client.writer.close()
        with pytest.raises(EOFError):
            await invoked

    serve(scene)
