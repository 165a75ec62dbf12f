"""Spans of requests for OpenTelemetry, sent by OTLP over HTTP from a thread: a collector that is away harms nobody.

A request has a span of kind SERVER, named by its route; what its integration does has one of kind CLIENT below it, and
that is what functions and other services are told. Attributes are those of OpenTelemetry's semantic conventions
(https://opentelemetry.io/docs/specs/semconv/http/http-spans/); never the query string, which may hold secrets.
"""

import asyncio
import logging
import random
import threading
import time
from collections.abc import Mapping
from typing import Any

from owsgit.gateway import traces
from owsgit.gateway.exchange import Exchange, Handler, RefusedError, Response
from owsgit.gateway.observing import Outcome
from owsgit.gateway.table import METHODS
from owsgit.gateway.traces import Trace
from owsgit.model.errors import UnavailableError
from owsgit.runtime.allowance import Allowance

WAITING_MAX = 2048
"""Spans that wait for the collector: newer ones are worth more than older ones, which are dropped."""

BATCH_MAX = 512
DELAY_MILLISECONDS = 2000
EXPORT_SECONDS_MAX = 5.0
CLOSE_SECONDS_MAX = 2.0
COMPLAINT_SECONDS = 60.0

FORCED_PER_SECOND_MAX = 100
"""Requests a second that are traced because a client says so: to trace costs, and anybody may say so."""


class Tracing:
    """A watcher of all gateways of a node, and a step around their integrations."""

    def __init__(self, endpoint: str, ratio: float, headers: Mapping[str, str], about: Mapping[str, str]) -> None:
        """`endpoint`: the collector's address, /v1/traces is added; `ratio`: the share of requests that is traced;
        `about`: attributes of this node. Raises UnavailableError without the packages.
        """
        try:
            from opentelemetry import trace  # noqa: PLC0415 - an extra, and some MiB of memory
            from opentelemetry.exporter.otlp.proto.http import Compression  # noqa: PLC0415
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
            from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
            from opentelemetry.sdk.trace import SpanLimits, TracerProvider  # noqa: PLC0415
            from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
            from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio  # noqa: PLC0415
        except ImportError as error:
            raise UnavailableError(
                f"the node's settings ask for tracing, but the packages for it are missing ({error.name})",
                path="$.tracing",
                remedy="pip install 'owsgit[otel]', or take tracing out of node.json",
            ) from None
        logging.getLogger(OTLPSpanExporter.__module__).addFilter(_Seldom())
        exporter = OTLPSpanExporter(
            endpoint.rstrip("/") + "/v1/traces",
            headers=dict(headers),
            timeout=EXPORT_SECONDS_MAX,
            compression=Compression.Gzip,
        )
        self._provider = TracerProvider(
            sampler=ParentBasedTraceIdRatio(ratio),
            resource=Resource({"service.name": "owsgit", **about}),
            span_limits=SpanLimits(max_span_attributes=32, max_span_attribute_length=1024),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(
                exporter,
                max_queue_size=WAITING_MAX,
                schedule_delay_millis=DELAY_MILLISECONDS,
                max_export_batch_size=BATCH_MAX,
                export_timeout_millis=EXPORT_SECONDS_MAX * 1000,
            )
        )
        self._api, self._ratio = trace, ratio
        self._tracer = self._provider.get_tracer("owsgit.gateway")
        self._forced = Allowance(FORCED_PER_SECOND_MAX, FORCED_PER_SECOND_MAX)

    def began(self, exchange: Exchange) -> None:
        span = self._tracer.start_span(
            _method(exchange),
            self._parent(exchange),
            kind=self._api.SpanKind.SERVER,
            attributes=_asked(exchange),
        )
        exchange.span = span
        traces.passed_on(exchange, _trace(span))

    def ended(self, exchange: Exchange, outcome: Outcome) -> None:
        span, exchange.span = exchange.span, None
        if span is None:
            return
        if span.is_recording():
            if exchange.resource:
                span.update_name(f"{_method(exchange)} {exchange.resource}")
                span.set_attribute("http.route", exchange.resource)
            span.set_attribute("http.response.status_code", outcome.status)
            span.set_attribute("http.response.body.size", outcome.sent)
            span.set_attribute("aws.request_id", exchange.id)
            self._judge(span, outcome.status)
        span.end()

    def around(self, handler: Handler) -> Handler:
        """A step around an integration."""

        async def answer(exchange: Exchange) -> Response:
            parent = exchange.span
            if parent is None or not parent.is_recording():
                return await handler(exchange)
            span = self._tracer.start_span(
                f"integration {exchange.route_key}",
                self._api.set_span_in_context(parent),
                kind=self._api.SpanKind.CLIENT,
            )
            traces.passed_on(exchange, _trace(span))
            status = 500
            try:
                response = await handler(exchange)
                status = response.status
                return response
            except RefusedError as refusal:
                status = refusal.status
                raise
            finally:
                span.set_attribute("http.response.status_code", status)
                self._judge(span, status)
                span.end()

        return answer

    def _judge(self, span: Any, status: int) -> None:
        if status >= 500:
            span.set_attribute("error.type", str(status))
            span.set_status(self._api.Status(self._api.StatusCode.ERROR))

    def _parent(self, exchange: Exchange) -> Any:
        """The context of the trace that the request came with, if it did. An empty one starts a trace."""
        from opentelemetry.context import Context  # noqa: PLC0415 - loaded already

        found = traces.of(exchange)
        if found is None:
            return Context()
        sampled = random.random() < self._ratio if found.sampled is None else found.sampled and self._forced.take(1)  # noqa: S311
        # X-Ray's clients often name the trace alone: then its root is a span that nobody has
        span = int(found.span, 16) if found.span else random.getrandbits(63) + 1
        context = self._api.SpanContext(int(found.id, 16), span, True, self._api.TraceFlags(1 if sampled else 0))
        return self._api.set_span_in_context(self._api.NonRecordingSpan(context), Context())

    async def close(self) -> None:
        """Send what waits, if the collector takes it soon."""
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        await asyncio.to_thread(ending.join, CLOSE_SECONDS_MAX)


class _Seldom(logging.Filter):
    """A collector that is away is told of once a minute, not at every try."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if record.levelno < logging.ERROR or now < self._next:
            return False
        self._next = now + COMPLAINT_SECONDS
        return True


def _method(exchange: Exchange) -> str:
    """What a span's name begins with."""
    if exchange.socket is not None and exchange.socket.kind != "CONNECT":
        return exchange.socket.kind
    return exchange.method if exchange.method in METHODS else "HTTP"


def _trace(span: Any) -> Trace:
    context = span.get_span_context()
    return Trace(f"{context.trace_id:032x}", f"{context.span_id:016x}", bool(context.trace_flags & 1))


def _of_http(exchange: Exchange) -> dict[str, Any]:
    known = exchange.method in METHODS
    return {
        "http.request.method": exchange.method if known else "_OTHER",
        **({} if known else {"http.request.method_original": exchange.method}),
        "url.path": exchange.path,
    }


def _asked(exchange: Exchange) -> dict[str, Any]:
    agent = exchange.header(b"user-agent").decode("utf-8", "replace")
    return {
        **(_of_http(exchange) if exchange.socket is None or exchange.socket.kind == "CONNECT" else {}),
        "url.scheme": exchange.scheme,
        "server.address": exchange.host,
        "client.address": exchange.client.address,
        "network.protocol.version": exchange.protocol.partition("/")[2],
        "owsgit.gateway": exchange.mount.api,
        "owsgit.stage": exchange.mount.stage,
        **({"user_agent.original": agent} if agent else {}),
    }
