"""Who traces a request: W3C's traceparent and AWS's X-Amzn-Trace-Id, read strictly, as they come from anybody.

https://www.w3.org/TR/trace-context/ and https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html
"""

import re
from dataclasses import dataclass

from owsgit.gateway.exchange import Exchange

TRACEPARENT, AMZN = b"traceparent", b"x-amzn-trace-id"
_NAMES = frozenset((TRACEPARENT, AMZN))

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})((?:-[\x21-\x7e]*)?)")
_AMZN = re.compile(r"(?:[A-Za-z]{1,32}=[\x21-\x3a\x3c-\x7e]{1,200};?){1,10}")
_ROOT = re.compile(r"(?:^|;)Root=1-([0-9a-f]{8})-([0-9a-f]{24})(?:;|$)")
_SAMPLED = {"Sampled=1": True, "Sampled=0": False}
_PARENT = re.compile(r"(?:^|;)Parent=([0-9a-f]{16})(?:;|$)")


@dataclass(frozen=True)
class Trace:
    """A place in a trace: 32 and 16 hexadecimal digits. Without a span, it is only known which trace."""

    id: str
    span: str
    sampled: bool | None  # None: not decided yet

    @property
    def traceparent(self) -> bytes:
        return f"00-{self.id}-{self.span}-{'01' if self.sampled else '00'}".encode()

    @property
    def amzn(self) -> str:
        """Its X-Amzn-Trace-Id: the first 8 digits of the trace's id are X-Ray's time."""
        return f"Root=1-{self.id[:8]}-{self.id[8:]};Parent={self.span};Sampled={int(bool(self.sampled))}"


def parse_traceparent(value: bytes) -> Trace | None:
    found = _TRACEPARENT.fullmatch(value)
    if found is None or found[1] == b"ff" or (found[1] == b"00" and found[5]):
        return None
    id_, span = found[2].decode(), found[3].decode()
    return Trace(id_, span, bool(int(found[4], 16) & 1)) if id_.strip("0") and span.strip("0") else None


def parse_amzn(value: str) -> Trace | None:
    """The trace that an X-Amzn-Trace-Id names; None unless it has a root."""
    root, parent = _ROOT.search(value), _PARENT.search(value)
    if root is None or not (root[1] + root[2]).strip("0"):
        return None
    return Trace(
        root[1] + root[2],
        parent[1] if parent else "",
        _SAMPLED.get(next((part for part in value.split(";") if part in _SAMPLED), "")),
    )


def receive(exchange: Exchange) -> None:
    """Take over who traces a request, if somebody does; what is malformed is taken off it, for whatever is behind."""
    if _NAMES.isdisjoint(exchange.first):
        return
    found = [pair for pair in exchange.headers if pair[0] in _NAMES]
    parents = [value for name, value in found if name == TRACEPARENT]
    roots = [value.decode("latin-1") for name, value in found if name == AMZN]
    trace = parse_traceparent(parents[0]) if len(parents) == 1 else None
    amzn = roots[0] if len(roots) == 1 and _AMZN.fullmatch(roots[0]) else ""
    exchange.trace_id = amzn or (trace.amzn if trace is not None else "")
    bad = {TRACEPARENT: trace is None, AMZN: not amzn}
    if any(bad[name] for name, _ in found):
        exchange.replace_headers([pair for pair in exchange.headers if not bad.get(pair[0], False)])


def passed_on(exchange: Exchange, trace: Trace) -> None:
    """Have whatever is behind know the trace."""
    kept = [pair for pair in exchange.headers if pair[0] not in (TRACEPARENT, AMZN)]
    exchange.trace_id = trace.amzn
    exchange.replace_headers([*kept, (TRACEPARENT, trace.traceparent), (AMZN, trace.amzn.encode())])


def of(exchange: Exchange) -> Trace | None:
    """The trace that a request came with."""
    return parse_traceparent(exchange.header(TRACEPARENT)) or parse_amzn(exchange.trace_id)
