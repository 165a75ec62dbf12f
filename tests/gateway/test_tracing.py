"""Spans, as a collector gets them over OTLP/HTTP: a small real one on the loopback, which reads the protobuf."""

import gzip
import http.server
import math
import queue
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from owsgit.gateway import tracing
from owsgit.gateway.exchange import Exchange, RefusedError, Response
from owsgit.gateway.observing import watched
from owsgit.gateway.socket_api import SocketRoute
from owsgit.gateway.tracing import Tracing
from owsgit.model.errors import UnavailableError
from tests.gateway.served import Served
from tests.gateway.test_websockets import Sockets, Target, nothing
from tests.support.nodes import free_port

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Collector:
    """Takes OTLP over HTTP."""

    def __init__(self) -> None:
        spans = self.spans = queue.Queue[Any]()
        self.requests: list[tuple[str, str]] = []
        requests = self.requests

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                requests.append((self.path, self.headers.get("x-token", "")))
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    for scope in resource.scope_spans:
                        for span in scope.spans:
                            spans.put((span, attributes(resource.resource)))
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def get(self, count: int) -> list[Any]:
        return [self.spans.get(timeout=20) for _ in range(count)]


def attributes(of: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in of.attributes}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "DELAY_MILLISECONDS", 20)


async def tell(exchange: Exchange) -> Response:
    return Response(200, [], exchange.header(b"traceparent") + b" " + exchange.trace_id.encode())


async def fail(exchange: Exchange) -> Response:
    raise RefusedError(504, "Gateway Timeout", "INTEGRATION_TIMEOUT")


def serve(gateway: Served, made: Tracing) -> None:
    routes = [("ANY /orders/{id}", made.around(tell)), ("GET /fail", made.around(fail))]
    gateway.handle(routes, observers=[watched([made])])


def test_a_request_is_a_span_with_its_integration_below(gateway: Served, collector: Collector, quick: None) -> None:
    made = Tracing(collector.url, 1.0, {"x-token": "t"}, {"service.instance.id": "a"})
    serve(gateway, made)
    told = gateway.client.get("/orders/7?secret=1", headers={"traceparent": PARENT, "user-agent": "me/1"}).text
    (child, about), (server, _) = collector.get(2)
    assert about == {"service.name": "owsgit", "service.instance.id": "a"}
    assert server.name == "GET /orders/{id}" and server.kind == 2 and child.kind == 3
    assert server.trace_id.hex() == child.trace_id.hex() == PARENT[3:35]
    assert server.parent_span_id.hex() == PARENT[36:52] and child.parent_span_id == server.span_id
    assert told.startswith(
        f"00-{PARENT[3:35]}-{child.span_id.hex()}-01 Root=1-0af76519-16cd43dd8448eb211c80319c;Parent="
    )
    found = attributes(server)
    assert found["http.route"] == "/orders/{id}" and found["url.path"] == "/orders/7"
    assert (found["http.request.method"], found["http.response.status_code"], found["url.scheme"]) == (
        "GET",
        200,
        "http",
    )
    assert (found["owsgit.gateway"], found["client.address"], found["user_agent.original"]) == (
        "api",
        "127.0.0.1",
        "me/1",
    )
    assert "secret" not in str(server) and collector.requests[-1] == ("/v1/traces", "t")
    gateway.client.get("/fail")
    gateway.client.get("/none")
    (child, _), (failed, _), (missing, _) = collector.get(3)
    assert failed.status.code == child.status.code == 2 and attributes(failed)["error.type"] == "504"
    assert missing.name == "GET" and missing.status.code == 0 and not missing.parent_span_id
    gateway.do(made.close())


def test_a_message_of_a_websocket_is_a_span_too(gateway: Served, collector: Collector, quick: None) -> None:
    made = Tracing(collector.url, 1.0, {}, {})
    sockets, seen = Sockets(gateway), [watched([made])]
    handlers = {"shout": SocketRoute(made.around(tell), two_way=True)}
    sockets.serve(Target(nothing), "$disconnect", handlers=handlers, observers=seen, seen=seen)
    with sockets.connect() as client:
        client.send('{"action": "shout"}')
        told = client.recv(timeout=10)
        client.send("nothing that there is a route for")
        client.recv(timeout=10)
    spans = [span for span, _ in collector.get(5)]
    child = next(span for span in spans if span.kind == 3)
    servers = {span.name: span for span in spans if span.kind == 2}
    assert servers.keys() == {"GET $connect", "MESSAGE shout", "MESSAGE", "DISCONNECT $disconnect"}
    assert child.parent_span_id == servers["MESSAGE shout"].span_id and child.span_id.hex() in str(told)
    assert attributes(servers["MESSAGE"])["http.response.status_code"] == 403
    assert "http.request.method" not in attributes(servers["MESSAGE shout"])
    gateway.do(made.close())


def test_what_is_not_sampled_is_passed_on_and_not_sent(gateway: Served, collector: Collector, quick: None) -> None:
    made = Tracing(collector.url, 0.0, {}, {})
    serve(gateway, made)
    fresh = gateway.client.get("/orders/1").text
    assert fresh.split()[0].endswith("-00") and fresh.endswith("Sampled=0")
    asked = gateway.client.get(
        "/orders/1", headers={"x-amzn-trace-id": "Root=1-67891233-abcdef012345678912345678"}
    ).text
    assert asked.split()[0].endswith("-00") and asked.split()[1].startswith("Root=1-67891233-abcdef012345678912345678;")
    assert gateway.client.get("/orders/1", headers={"traceparent": PARENT}).text.split()[0].endswith("-01")
    assert len(collector.get(2)) == 2  # the client asked for these
    for _ in range(tracing.FORCED_PER_SECOND_MAX + 30):
        made._forced.take(math.inf)  # else it fills again while this machine is busy
    assert gateway.client.get("/orders/1", headers={"traceparent": PARENT}).text.split()[0].endswith("-00")
    gateway.do(made.close())
    assert collector.spans.empty()


def test_a_collector_that_is_away_harms_nothing(gateway: Served, quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "CLOSE_SECONDS_MAX", 0.3)
    made = Tracing(f"http://127.0.0.1:{free_port()}", 1.0, {}, {})
    serve(gateway, made)
    for _ in range(20):
        assert gateway.client.get("/orders/1").status_code == 200
    began = time.monotonic()
    gateway.do(made.close())
    assert time.monotonic() - began < 15


def test_without_the_packages_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(UnavailableError, match="packages for it are missing") as caught:
        Tracing("http://127.0.0.1:4318", 1.0, {}, {})
    assert "owsgit[otel]" in str(caught.value.problems[0].remedy)
