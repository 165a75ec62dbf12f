"""Streamed responses through real HTTP: from real functions in their sandbox, and from a target that breaks off."""

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest

from owsgit.gateway.app import Api
from owsgit.gateway.exchange import Exchange, Mount
from owsgit.gateway.functions import FunctionIntegration
from owsgit.gateway.hosts import ANY_HOST, Binding
from owsgit.gateway.listener import Listeners
from owsgit.gateway.observing import Outcome, watched
from owsgit.gateway.streaming import DELIMITER, HTTP_RESPONSE, StreamingFunctionIntegration
from owsgit.model.errors import UnavailableError
from owsgit.model.service import Answer, Invocation
from tests.gateway.served import Served, raw
from tests.runtime.conftest import Function, Lab
from tests.support.nodes import free_port

Body = Callable[[Invocation], Awaitable[Answer]]


class Target:
    """Answers by what the test says."""

    def __init__(self, body: Body) -> None:
        self._body = body

    async def invoke(self, name: str, invocation: Invocation) -> Answer:
        return await self._body(invocation)


def serve(gateway: Served, body: Body, version: str = "2.0", timeout: float = 5.0, idle: float = 5.0) -> None:
    target: Any = Target(body)
    gateway.handle([("ANY /s", StreamingFunctionIntegration(target, "f", version, timeout, idle))])


def says(*pieces: bytes, kind: str = "", answer: Answer = Answer(b"")) -> Body:
    async def body(invocation: Invocation) -> Answer:
        assert invocation.sink is not None and invocation.announce is not None
        if kind:
            invocation.announce(kind)
        for piece in pieces:
            await invocation.sink(piece)
        return answer

    return body


def test_without_metadata_it_is_200_and_octets(gateway: Served) -> None:
    serve(gateway, says(b"one", b"two"))
    answer = gateway.client.get("/s")
    assert (answer.status_code, answer.content) == (200, b"onetwo")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["transfer-encoding"] == "chunked" and answer.headers["apigw-requestid"]


def test_metadata_say_status_headers_and_cookies_however_they_are_cut(gateway: Served) -> None:
    metadata = b'{"statusCode": 201, "headers": {"X-A": "b", "content-length": "7"}, "cookies": ["a=1"]}'
    whole = metadata + DELIMITER + b"body"
    for pieces in ([whole], [whole[index : index + 1] for index in range(len(whole))]):
        serve(gateway, says(*pieces, kind=HTTP_RESPONSE))
        answer = gateway.client.get("/s")
        assert (answer.status_code, answer.content) == (201, b"body")
        assert answer.headers["x-a"] == "b" and answer.headers["set-cookie"] == "a=1"
        assert "content-length" not in answer.headers


@pytest.mark.parametrize(
    "pieces",
    [
        [b"{}"],
        [b"nonsense" + DELIMITER],
        [b"[1]" + DELIMITER],
        [b'{"statusCode": 99}' + DELIMITER],
        [b'{"headers": {"a": "b\\r\\nc: d"}}' + DELIMITER],
        [b" " * 1000] * 20,
        [b" " * 20_000 + DELIMITER],
    ],
)
@pytest.mark.parametrize(("version", "status"), [("1.0", 502), ("2.0", 500)])
def test_bad_metadata_are_refused(gateway: Served, pieces: list[bytes], version: str, status: int) -> None:
    serve(gateway, says(*pieces, kind=HTTP_RESPONSE), version)
    assert gateway.client.get("/s").status_code == status


def test_what_does_not_stream_is_answered_as_ever(gateway: Served) -> None:
    serve(gateway, says(answer=Answer(b'{"statusCode": 202, "body": "whole"}')))
    answer = gateway.client.get("/s")
    assert (answer.status_code, answer.text, answer.headers["content-length"]) == (202, "whole", "5")
    serve(gateway, says(answer=Answer(b"{}", "Unhandled")))
    assert gateway.client.get("/s").status_code == 500

    async def gone(invocation: Invocation) -> Answer:
        raise UnavailableError("not running")

    serve(gateway, gone)
    assert gateway.client.get("/s").status_code == 503


def test_what_breaks_off_never_looks_whole(gateway: Served, caplog: pytest.LogCaptureFixture) -> None:
    async def gone(invocation: Invocation) -> Answer:
        assert invocation.sink is not None
        await invocation.sink(b"half")
        raise UnavailableError("it went away")

    for body in (says(b"half", answer=Answer(b'{"errorType": "Oops"}', "Unhandled")), gone):
        serve(gateway, body)
        with pytest.raises(httpx.RemoteProtocolError):
            gateway.client.get("/s")
        assert raw(gateway.port, b"GET /s HTTP/1.1\r\nhost: a\r\n\r\n")[-5:] != b"0\r\n\r\n"
    assert "Oops" in caplog.text and "it went away" in caplog.text and "Traceback" not in caplog.text


def test_the_first_byte_has_a_timeout_and_so_has_silence(gateway: Served) -> None:
    async def silent(invocation: Invocation) -> Answer:
        await asyncio.sleep(30)
        return Answer(b"")

    serve(gateway, silent, timeout=0.05)
    assert gateway.client.get("/s").status_code == 503

    async def stops(invocation: Invocation) -> Answer:
        assert invocation.sink is not None
        await invocation.sink(b"one")
        return await silent(invocation)

    serve(gateway, stops, idle=0.05)
    with pytest.raises(httpx.RemoteProtocolError):
        gateway.client.get("/s")


def test_a_slow_client_holds_the_function_back_and_one_that_is_gone_does_not(gateway: Served) -> None:
    sent, gone, most = [0], threading.Event(), 200

    async def body(invocation: Invocation) -> Answer:
        assert invocation.sink is not None
        try:
            for _ in range(most):
                await invocation.sink(bytes(1 << 20))
                sent[0] += 1
        finally:
            gone.set()
        return Answer(b"")

    serve(gateway, body)
    with socket.create_connection(("127.0.0.1", gateway.port)) as client:
        client.sendall(b"GET /s HTTP/1.1\r\nhost: a\r\n\r\n")
        assert client.recv(1000)
        assert not gone.wait(0.3) and sent[0] < most // 2, "what nobody reads waits in the function"
    assert gone.wait(10) and sent[0] < most


def test_a_client_that_takes_nothing_is_cut_off(gateway: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("owsgit.gateway.protocol.READER_SECONDS", 0.05)
    gone = threading.Event()

    async def body(invocation: Invocation) -> Answer:
        assert invocation.sink is not None
        try:
            while True:
                await invocation.sink(bytes(1 << 20))
        finally:
            gone.set()

    serve(gateway, body)
    with socket.create_connection(("127.0.0.1", gateway.port)) as client:
        client.sendall(b"GET /s HTTP/1.1\r\nhost: a\r\n\r\n")
        assert gone.wait(10)


def test_head_asks_the_function_and_drops_its_body(gateway: Served) -> None:
    gone = threading.Event()

    async def body(invocation: Invocation) -> Answer:
        assert invocation.sink is not None
        try:
            while True:
                await invocation.sink(b"x")
        finally:
            gone.set()

    serve(gateway, body)
    assert gateway.client.head("/s").status_code == 200
    assert gone.wait(10)


@pytest.mark.parametrize("begun", [True, False])
def test_a_client_that_leaves_a_silent_stream_is_not_waited_for(gateway: Served, begun: bool) -> None:
    ended, finish = threading.Event(), threading.Event()
    statuses = []

    class Watch:
        def began(self, exchange: Exchange) -> None: ...

        def ended(self, exchange: Exchange, outcome: Outcome) -> None:
            statuses.append(outcome.status)
            ended.set()

    async def body(invocation: Invocation) -> Answer:
        assert invocation.sink is not None
        if begun:
            await invocation.sink(b"x")
        await asyncio.to_thread(finish.wait, 20)
        return Answer(b"")

    integration = StreamingFunctionIntegration(Target(body), "f", "2.0", 15.0, 15.0)  # type: ignore[arg-type]
    gateway.handle([("GET /s", integration)], observers=[watched([Watch()])])
    with socket.create_connection(("127.0.0.1", gateway.port)) as client:
        client.sendall(b"GET /s HTTP/1.1\r\nhost: a\r\n\r\n")
        assert not begun or client.recv(1000)
    try:
        assert ended.wait(10) and statuses == [499]
    finally:
        finish.set()


@pytest.mark.parametrize("accepted", ["image/png", "text/plain"])
def test_what_is_not_streamed_is_decoded_as_without_stream(gateway: Served, accepted: str) -> None:
    said = b'{"statusCode": 200, "headers": {"content-type": "image/png"}, "body": "AAEC", "isBase64Encoded": true}'

    async def body(invocation: Invocation) -> Answer:
        return Answer(said)

    target: Any = Target(body)
    mount = Mount("api", "1" * 12, binary_media_types=frozenset({"image/png"}))
    found = []
    for integration in (
        FunctionIntegration(target, "f", "1.0", 5.0),
        StreamingFunctionIntegration(target, "f", "1.0", 5.0),
    ):
        gateway.handle([("GET /s", integration)], mount=mount)
        found.append(gateway.client.get("/s", headers={"accept": accepted}).content)
    assert found[0] == found[1] == (b"\0\1\2" if accepted == "image/png" else b"AAEC")


EVENTS_NODE = """
exports.handler = awslambda.streamifyResponse(async (event, stream) => {
  const headers = {'content-type': 'text/event-stream', 'cache-control': 'no-store'};
  const out = awslambda.HttpResponseStream.from(stream, {statusCode: 200, headers});
  for (let n = 0; ; n++) {
    out.write(`data: ${n} ${Date.now()}\\n\\n`);
    await new Promise((done) => setTimeout(done, 1000));
  }
});
"""

EVENTS_PYTHON = """
import time

def handler(event, context):
    yield {"statusCode": 200, "headers": {"content-type": "text/event-stream", "cache-control": "no-store"}}
    n = 0
    while True:
        yield f"data: {n} {int(time.time() * 1000)}\\n\\n"
        n += 1
        time.sleep(1)
"""


class Pooled:
    """A function's workers as a target."""

    def __init__(self, function: Function) -> None:
        self._function = function

    async def invoke(self, name: str, invocation: Invocation) -> Answer:
        return await self._function.pool.invoke(invocation)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = Lab(tmp_path_factory.mktemp("functions"))
    yield made
    made.close()


@pytest.mark.parametrize(
    ("runtime", "file", "code"), [("nodejs", "app.js", EVENTS_NODE), ("python", "app.py", EVENTS_PYTHON)]
)
def test_events_without_end_come_one_by_one(lab: Lab, runtime: str, file: str, code: str) -> None:
    target: Any = Pooled(lab.function(code, runtime=runtime, file=file))
    api = Api(Mount("api", "1"), [("GET /s", StreamingFunctionIntegration(target, "f", "2.0", 20.0))])

    async def read() -> None:
        listeners, port = Listeners("127.0.0.1"), free_port()
        await listeners.serve("api", port, [Binding(ANY_HOST, (), api)])
        async with httpx.AsyncClient() as client, client.stream("GET", f"http://127.0.0.1:{port}/s") as answer:
            assert answer.status_code == 200 and answer.headers["content-type"] == "text/event-stream"
            lines = aiter(answer.aiter_lines())
            number, _ = (await anext(lines)).split()[1:]
            arrived = time.time() * 1000
            await anext(lines)
            second, written = (await anext(lines)).split()[1:]
            assert (number, second) == ("0", "1") and arrived < int(written), "the first came before the second was"
        await listeners.close()

    lab.loop.run_until_complete(read())


def test_what_a_python_handler_yields_is_streamed(lab: Lab) -> None:
    made = lab.function("def handler(event, context):\n    yield 'one'\n    yield b'two'\n    yield from event")
    pieces: list[bytes] = []

    async def sink(piece: bytes) -> None:
        pieces.append(piece)

    (answer,) = made.run(["three"], sink=sink)
    assert pieces == [b"one", b"two", b"three"] and (answer.payload, answer.error) == (b"", None)
    (answer,) = made.run(["three"])
    assert answer.payload == b"onetwothree", "without a sink they are put together"
    assert made.error([1])["errorType"] == "Runtime.MarshalError"
    assert made.error([{"late": 1}])["errorType"] == "Runtime.MarshalError"
