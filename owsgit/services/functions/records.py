"""The record of an asynchronous invocation that a destination gets, word for word as Lambda writes it. Pure.

https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from owsgit.model.service import Answer
from owsgit.services.functions.event import Event


class Condition(StrEnum):
    """Why there is a record."""

    SUCCESS = "Success"
    RETRIES_EXHAUSTED = "RetriesExhausted"
    EVENT_AGE_EXCEEDED = "EventAgeExceeded"


@dataclass(frozen=True)
class Outcome:
    """How an event ended: `answer` is the last one, None if there was none (the event was too old to be tried)."""

    condition: Condition
    invocations: int
    answer: Answer | None = None

    @property
    def error(self) -> str:
        """The function's own words on what went wrong, shortened."""
        if self.answer is None or self.answer.error is None:
            return ""
        return self.answer.payload[:ERROR_BYTES_MAX].decode("utf-8", "replace")


ERROR_BYTES_MAX = 1024
"""Of an error, in the list of dead letters."""


def make(event: Event, outcome: Outcome, arn: str, version: str, now: float) -> bytes:
    """The record as JSON text. `arn` is the function's, with the qualifier that was invoked."""
    answer = outcome.answer
    context = {
        "requestId": event.request_id,
        "functionArn": arn,
        "condition": str(outcome.condition),
        "approximateInvokeCount": outcome.invocations,
    }
    members = {
        "version": b'"1.0"',
        "timestamp": json.dumps(_timestamp(now)).encode(),
        "requestContext": json.dumps(context).encode(),
        "requestPayload": _value(event.payload),
    }
    if answer is not None:
        response = {"statusCode": 200, "executedVersion": version}
        if answer.error is not None:
            response["functionError"] = answer.error
        members["responseContext"] = json.dumps(response).encode()
        members["responsePayload"] = _value(answer.payload)
    return b"{" + b", ".join(b'"%s": %s' % (name.encode(), value) for name, value in members.items()) + b"}"


def _value(payload: bytes) -> bytes:
    """JSON text as it is; anything else as a string."""
    try:
        json.loads(payload)
    except (ValueError, RecursionError):
        return json.dumps(payload.decode("utf-8", "replace")).encode()
    return payload


def _timestamp(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
