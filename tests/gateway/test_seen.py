"""What is seen of requests: access logs, ids, traces, metrics; through real HTTP."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import ValidationError

from owsgit.gateway import access_log, context, traces
from owsgit.gateway.access_log import AccessLog, Line
from owsgit.gateway.exchange import Client, ClientGoneError, Exchange, Mount, RefusedError, Response
from owsgit.gateway.functions import FunctionIntegration
from owsgit.gateway.metrics import UNMATCHED, GatewayMetrics, StageMetrics
from owsgit.gateway.observing import Outcome, timed, watched
from owsgit.gateway.streaming import StreamingFunctionIntegration
from owsgit.services.gateways.access_logs import AccessLogSpec
from tests.gateway.served import Echo, Served, raw


class Ended:
    """A watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.under_way = 0
        self.outcomes: list[tuple[str, Outcome]] = []

    def began(self, exchange: Exchange) -> None:
        self.under_way += 1

    def ended(self, exchange: Exchange, outcome: Outcome) -> None:
        self.under_way -= 1
        self.outcomes.append((exchange.route_key, outcome))


async def hello(exchange: Exchange) -> Response:
    await exchange.read()
    return Response(200, [(b"content-type", b"text/plain")], b"hello")


async def refused(exchange: Exchange) -> Response:
    raise RefusedError(429, "Too Many Requests", "THROTTLED")


async def broken(exchange: Exchange) -> Response:
    raise RuntimeError("a mistake")


async def left(exchange: Exchange) -> Response:
    raise ClientGoneError


async def streamed(exchange: Exchange) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"abc"
        yield b"de"

    return Response(200, [], pieces())


async def torn(exchange: Exchange) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"abc"
        raise RuntimeError("a mistake")

    return Response(200, [], pieces())


ROUTES = [
    ("ANY /hello/{who}", timed(hello)),
    ("GET /refused", timed(refused)),
    ("GET /broken", timed(broken)),
    ("GET /left", timed(left)),
    ("GET /streamed", timed(streamed)),
    ("GET /torn", timed(torn)),
]


def test_every_request_is_told_once_as_it_ends(gateway: Served) -> None:
    ended = Ended()
    gateway.handle(ROUTES, observers=[watched([ended])])
    for path in ("/hello/you", "/refused", "/broken", "/streamed", "/none"):
        gateway.client.get(path)
    gateway.client.head("/hello/you")
    gateway.client.head("/streamed")
    for path in (b"/left", b"/torn"):
        raw(gateway.port, b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    told = [(key, outcome.status, outcome.sent) for key, outcome in ended.outcomes]
    assert told == [
        ("ANY /hello/{who}", 200, 5),
        ("GET /refused", 429, 31),
        ("GET /broken", 500, 0),
        ("GET /streamed", 200, 5),
        ("", 404, 23),
        ("ANY /hello/{who}", 200, 0),
        ("", 404, 0),
        ("GET /left", 499, 0),
        ("GET /torn", 500, 3),
    ]
    assert ended.under_way == 0


def samples(registry: CollectorRegistry) -> dict[tuple[str, str, str], float]:
    found = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            labels = sample.labels
            found[sample.name, labels.get("route", ""), labels.get("status", labels.get("le", ""))] = sample.value
    return found


def test_metrics_by_route(gateway: Served) -> None:
    registry = CollectorRegistry()
    metrics = GatewayMetrics(registry)
    gateway.handle(ROUTES, observers=[watched([metrics.stage("shop", "$default")])])
    for path in ("/hello/you", "/hello/me", "/refused", "/broken", "/none/1", "/none/2"):
        gateway.client.get(path)
    gateway.client.post("/hello/you", content=b"four")
    found = samples(registry)
    hello_key = "ANY /hello/{who}"
    name = "owsgit_gateway_"
    assert found[name + "requests_total", hello_key, "2xx"] == 3
    assert found[name + "requests_total", "GET /refused", "4xx"] == 1 == found[name + "throttles_total", "GET /refused", ""]  # fmt: skip
    assert found[name + "requests_total", "GET /broken", "5xx"] == 1
    assert found[name + "requests_total", UNMATCHED, "4xx"] == 2
    assert found[name + "latency_seconds_count", hello_key, ""] == 3 == found[name + "latency_seconds_bucket", hello_key, "+Inf"]  # fmt: skip
    assert found[name + "integration_latency_seconds_count", hello_key, ""] == 3
    assert (name + "integration_latency_seconds_count", UNMATCHED, "") not in found
    assert found[name + "response_bytes_total", hello_key, ""] == 15
    assert found[name + "request_bytes_total", hello_key, ""] == 4
    assert found[name + "requests_in_flight", "", ""] == 0
    assert "/none" not in str(found) and "you" not in str(found)
    summary = metrics.summary("shop")
    assert (summary["requests"], summary["4xx"], summary["5xx"]) == (7, 3, 1)
    assert summary["recent"]["requests"] == 7 and summary["recent"]["errorRate"] == round(1 / 7, 4)
    assert 0 < summary["recent"]["latencyMs"]["p50"] <= summary["recent"]["latencyMs"]["p99"]
    assert summary["routes"][0]["route"] == hello_key and summary["routes"][0]["requests"] == 3
    metrics.retain("shop", ["$default"], [hello_key])
    assert {key for _, key, _ in samples(registry)} == {"", hello_key, UNMATCHED}
    assert metrics.stage("shop", "$default").routes[hello_key].classes[0] == 3  # a deployment counts on
    metrics.retain("shop", [], [])
    metrics.remove("shop")
    assert not samples(registry) and metrics.summary("shop") == {}


def test_percentiles_are_of_the_last_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("owsgit.gateway.metrics.time.monotonic", lambda: now[0])
    metrics = GatewayMetrics(None)
    stage: StageMetrics = metrics.stage("shop", "prod")
    exchange = Exchange("GET", b"/", [], None, Client("127.0.0.1"), "http", "HTTP/1.1")  # type: ignore[arg-type]
    for milliseconds in range(1, 1001):
        stage.began(exchange)
        stage.ended(exchange, Outcome(200, milliseconds / 1000, 0, now[0]))
    latencies = metrics.summary("shop")["recent"]["latencyMs"]
    assert latencies["p50"] == pytest.approx(500, rel=0.1) and latencies["p99"] == pytest.approx(990, rel=0.1)
    now[0] += 301
    assert metrics.summary("shop")["recent"] == {"minutes": 5, "requests": 0, "errorRate": 0.0}
    assert metrics.summary("shop")["requests"] == 1000


class Log:
    """An access log that is written into a list."""

    def __init__(self, gateway: Served, form: Any, rate: float = 1.0) -> None:
        self.lines: list[Line] = []
        self.dropped = 0
        self.log: AccessLog = gateway.do(self._made())
        self.log.configure(form, rate)
        self._gateway = gateway

    async def _made(self) -> AccessLog:
        return AccessLog(self._write)

    def _write(self, lines: Sequence[Line], dropped: int) -> None:
        self.lines += lines
        self.dropped += dropped

    def texts(self) -> list[str]:
        self._gateway.do(self.log.close())
        return [line.text for line in self.lines]


def test_the_default_line_is_a_useful_object(gateway: Served) -> None:
    log = Log(gateway, access_log.DEFAULT_FORMAT)
    gateway.handle(ROUTES, observers=[watched([log.log])], mount=Mount("shop", "123456789012", "prod"))
    answer = gateway.client.get("/hello/you?token=secret", headers={"authorization": "secret", "user-agent": "me/1"})
    gateway.client.get("/refused")
    first, second = (json.loads(text) for text in log.texts())
    assert first["requestId"] == answer.headers["apigw-requestid"] == answer.headers["x-amzn-requestid"]
    assert (first["ip"], first["httpMethod"], first["path"], first["routeKey"]) == (
        "127.0.0.1", "GET", "/hello/you", "ANY /hello/{who}",
    )  # fmt: skip
    assert (first["status"], first["responseLength"], first["integrationStatus"]) == (200, 5, 200)
    assert first["responseLatency"] >= first["integrationLatency"] >= 0 and first["stage"] == "prod"
    assert re.fullmatch(r"\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000", first["requestTime"])
    assert first["error"] == "-" and second["error"] == "Too Many Requests" and second["status"] == 429
    assert "secret" not in str(log.lines) and log.lines[0].record == first


def test_a_text_of_variables_is_safe_from_what_clients_send(gateway: Served) -> None:
    form = '{"p":"$context.path","q":"$request.querystring.q","a":"$request.header.X-A","s":"$stageVariables.v","n":$context.status,"w":"$request.path.who","sub":"$context.authorizer.claims.sub","none":"$context.authorizer.principalId"}'

    def let_in(handler: Any) -> Any:
        async def answer(exchange: Exchange) -> Response:
            exchange.authorizer = {"jwt": {"claims": {"sub": "alice"}}}
            return await handler(exchange)  # type: ignore[no-any-return]

        return answer

    log = Log(gateway, form)
    mount = Mount("shop", "1", variables={"v": "blue"})
    gateway.handle([("GET /hello/{who}", let_in(hello))], observers=[watched([log.log])], mount=mount)
    gateway.client.get('/hello/%22,"x":"?q=a%0d%0Ab%1b[2J', headers={"x-a": 'q"\\'})
    [text] = log.texts()
    assert "\n" not in text and "\x1b" not in text
    assert json.loads(text) == {
        "p": '/hello/","x":"', "q": "a\r\nb\x1b[2J", "a": 'q"\\', "s": "blue", "n": 200, "w": '","x":"', "sub": "alice", "none": "-",
    }  # fmt: skip


def test_every_variable_can_be_written(gateway: Served) -> None:
    assert access_log.VARIABLES.keys() <= context.NAMES
    log = Log(gateway, {name: f"$context.{name}" for name in context.NAMES})
    gateway.handle(ROUTES, observers=[watched([log.log])])
    gateway.client.get("/hello/you")
    line = json.loads(log.texts()[0])
    assert line.keys() == context.NAMES and line["deploymentId"] == "-"


@pytest.mark.parametrize("made", [FunctionIntegration, StreamingFunctionIntegration])
def test_a_line_says_what_became_of_a_function_but_not_what_it_said(gateway: Served, made: Any) -> None:
    log = Log(gateway, {"error": "$context.integrationErrorMessage", "same": "$context.integration.error"})
    routes = [(f"GET /{name}", made(Echo(), name, "2.0", 0.2)) for name in ("fail", "slow", "gone", "echo")]
    gateway.handle(routes, observers=[watched([log.log])])
    for key, _ in routes:
        gateway.client.get(key.removeprefix("GET "))
    told = [line["error"] for line in map(json.loads, log.texts()) if line["error"] == line["same"]]
    assert told[0] == "fail failed (Unhandled): its log says why" and "within 0.2 s" in told[1]
    assert told[2:] == ["not running", "-"]


def test_samples_and_floods_are_bounded(gateway: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(gateway, {"status": "$context.status"}, 0.0)
    gateway.handle(ROUTES, observers=[watched([log.log])])
    for path in ("/hello/you", "/broken"):
        gateway.client.get(path)
    assert log.texts() == ['{"status": 500}']
    monkeypatch.setattr("owsgit.gateway.access_log.WAITING_MAX", 2)
    log = Log(gateway, "$context.requestId")
    gateway.handle(ROUTES, observers=[watched([log.log])])

    async def flood() -> None:
        exchange = Exchange("GET", b"/", [], None, Client("127.0.0.1"), "http", "HTTP/1.1")  # type: ignore[arg-type]
        for _ in range(5):
            log.log.ended(exchange, Outcome(200, 0.0, 0))

    gateway.do(flood())
    assert len(log.texts()) == 2 and log.dropped == 3


@pytest.mark.parametrize(
    ("form", "wrong"),
    [
        ("$context.requestID", "did you mean the variable 'requestId'"),
        ({"a": "$context.integration.statu"}, "integration.status"),
        ("$context.identity.apikey", "did you mean the variable 'identity.apiKey'"),
        ("$context.authorize.reason", "is not known"),
        ("plain", "names variables"),
        ("a\n$context.path", "pattern"),
    ],
)
def test_a_format_that_means_nothing_is_refused(form: Any, wrong: str) -> None:
    with pytest.raises(ValidationError, match=wrong):
        AccessLogSpec.model_validate({"format": form})


PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("headers", "kept", "trace"),
    [
        ({}, {}, ""),
        (
            {"traceparent": PARENT},
            {"traceparent": PARENT},
            "Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=b7ad6b7169203331;Sampled=1",
        ),
        ({"traceparent": PARENT.upper()}, {}, ""),
        ({"traceparent": PARENT + "-00"}, {}, ""),
        ({"traceparent": "ff" + PARENT[2:]}, {}, ""),
        ({"traceparent": "00-" + "0" * 32 + PARENT[35:]}, {}, ""),
        ({"traceparent": PARENT[:36] + "0" * 16 + "-01"}, {}, ""),
        (
            {"x-amzn-trace-id": "Root=1-67891233-abcdef012345678912345678"},
            {"x-amzn-trace-id": "Root=1-67891233-abcdef012345678912345678"},
            "Root=1-67891233-abcdef012345678912345678",
        ),
        ({"x-amzn-trace-id": "what; ever", "traceparent": "x"}, {}, ""),
    ],
)
def test_traces_are_passed_on_if_they_are_some(
    gateway: Served, headers: dict[str, str], kept: dict[str, str], trace: str
) -> None:
    async def tell(exchange: Exchange) -> Response:
        names = (traces.TRACEPARENT, traces.AMZN)
        found = {name.decode(): value.decode() for name, value in exchange.headers if name in names}
        return Response(200, [], json.dumps([found, exchange.trace_id]).encode())

    gateway.handle([("GET /", tell)])
    assert gateway.client.get("/", headers=headers).json() == [kept, trace]


def test_two_parents_are_none(gateway: Served) -> None:
    async def tell(exchange: Exchange) -> Response:
        return Response(200, [], exchange.header(b"traceparent") or b"-")

    gateway.handle([("GET /", tell)])
    lines = f"traceparent: {PARENT}\r\n" * 2
    assert raw(gateway.port, f"GET / HTTP/1.1\r\nHost: x\r\n{lines}Connection: close\r\n\r\n".encode()).endswith(b"-")


def test_also_what_reaches_no_gateway_has_an_id(gateway: Served) -> None:
    answer = raw(gateway.port, b"GET /../x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert re.search(rb"apigw-requestid: [0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\r", answer)


def test_a_watcher_of_a_stream_is_told_though_nobody_reads_it() -> None:
    ended = Ended()

    async def run() -> None:
        exchange = Exchange("GET", b"/", [], None, Client("127.0.0.1"), "http", "HTTP/1.1")  # type: ignore[arg-type]
        response = await watched([ended])(streamed)(exchange)
        await response.drop()
        await response.drop()

    asyncio.run(run())
    assert [outcome.sent for _, outcome in ended.outcomes] == [0]


def test_every_variable_that_a_page_names_is_known() -> None:
    pages = Path(__file__).parents[2].glob("docs/how-to/*.md")
    named = {name for page in pages for name in re.findall(r"\$context\.[A-Za-z.]*[a-z]", page.read_text())}
    assert "$context.isCanaryRequest" in named
    access_log.check(" ".join(sorted(named)))
