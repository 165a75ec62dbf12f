"""One stage of one gateway, as it was deployed: a request is served by it from its first byte to its last.

    observers ( refusals become responses ( steps of the gateway ( routing ( steps of the route ( integration )))))

Observers see every request and its response; steps may refuse, answer themselves, or change what passes them.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import replace
from email.utils import formatdate
from functools import lru_cache, reduce
from typing import Final

from owsgit.gateway import refusals, traces
from owsgit.gateway.exchange import Exchange, Handler, Mount, RefusedError, Response, Step
from owsgit.gateway.limits import DEFAULT, Limits
from owsgit.gateway.refusals import Refuse
from owsgit.gateway.table import RoutingTable


def wrapped(handler: Handler, steps: Sequence[Step]) -> Handler:
    """`handler` with steps around it, the first of them outermost."""
    return reduce(lambda inner, step: step(inner), reversed(steps), handler)


def request_id() -> str:
    """A random UUID (RFC 9562), which is no secret, made faster than the standard library does."""
    text = f"{_random.getrandbits(128) & _FREE | _VERSION_4:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


_random: Final = random.Random()  # noqa: S311 - seeded by the system, in each process
_FREE: Final = ~(0xF000_C000_0000_0000_0000)
_VERSION_4: Final = 0x4000_8000_0000_0000_0000


def identified(response: Response, id_: str) -> Response:
    """The response with its request's id, under the names of HTTP APIs and of REST APIs, and with the time."""
    told = id_.encode()
    if not response.header(b"date"):
        response.headers.append((b"date", _date(int(time.time()))))
    response.headers += ((b"apigw-requestid", told), (b"x-amzn-requestid", told))
    return response


@lru_cache(2)
def _date(second: int) -> bytes:
    """RFC 9110 6.6.1: caches reckon ages by it, and AWS's SDKs how wrong their own clock is."""
    return formatdate(second, usegmt=True).encode()


async def _hold(exchange: Exchange, seconds: float) -> None:
    """Wait, unless the client leaves before."""
    loop = asyncio.get_running_loop()
    over = loop.create_future()

    def end() -> None:
        if not over.done():
            over.set_result(None)

    timer = loop.call_later(seconds, end)
    exchange.on_gone(end)
    try:
        await over
    finally:
        timer.cancel()
        exchange.on_gone(None)


class Api:
    """Serves the routes of one stage."""

    def __init__(
        self,
        mount: Mount,
        routes: Iterable[tuple[str, Handler]],
        steps: Sequence[Step] = (),
        observers: Sequence[Step] = (),
        limits: Limits = DEFAULT,
        refuse: Refuse = refusals.refuse,
    ) -> None:
        """`routes` by route key, each with its own steps around it. `refuse` says how refusals are answered."""
        self.mount = mount
        self.limits = limits
        self._table: RoutingTable[Handler] = RoutingTable(routes)
        self._refuse = refuse
        self._inner = wrapped(self._route, steps)
        self._outer = wrapped(self._answer, observers)

    def below(self, base_path: tuple[str, ...], *, is_mapped: bool = False) -> "Api":
        """The same with another base path; see Mount."""
        other = Api(replace(self.mount, base_path=base_path, is_mapped=is_mapped), ())
        other.limits, other._outer = self.limits, self._outer  # which is all that `handle` asks for
        return other

    def handle(self, exchange: Exchange) -> Awaitable[Response]:
        exchange.mount = self.mount
        exchange.limits = self.limits
        exchange.id = request_id()
        traces.receive(exchange)
        return self._outer(exchange)

    async def _answer(self, exchange: Exchange) -> Response:
        try:
            if exchange.head_bytes > self.limits.head_bytes:
                raise RefusedError(431, "Request Header Fields Too Large")
            return identified(await self._inner(exchange), exchange.id)
        except RefusedError as refusal:
            exchange.facts["error.message"] = refusal.message
            exchange.facts["error.responseType"] = refusal.kind
            if refusal.validation:
                exchange.facts["error.validationErrorString"] = refusals.validation_text(refusal)
            held, response = refusal.held, self._refuse(exchange, refusal)
        if held:
            await _hold(exchange, held)
        return identified(response, exchange.id)

    def _route(self, exchange: Exchange) -> Awaitable[Response]:
        segments, written = exchange.segments, exchange.written
        if segments[-1] == "":  # a trailing slash does not make another route
            segments = segments[:-1]
        match = self._table.match(exchange.method, segments)
        if match is None:
            raise RefusedError(404, "Not Found", "RESOURCE_NOT_FOUND")
        exchange.route_key, exchange.resource = match.key.text, match.key.path
        exchange.parameters = match.parameters
        if match.parameters and written is not exchange.segments:
            exchange.written_parameters = match.key.parameters(written[: len(segments)])
        return match.item(exchange)
