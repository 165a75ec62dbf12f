"""What a function said of a batch, and what its destination is told of what was given up. Pure.

https://docs.aws.amazon.com/lambda/latest/dg/services-ddb-batchfailurereporting.html and
https://docs.aws.amazon.com/lambda/latest/dg/services-dynamodb-errors.html
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from owsgit.model.service import Answer, SourceRecord


class Condition(StrEnum):
    """Why records were given up."""

    RETRIES_EXHAUSTED = "RetryAttemptsExhausted"
    RECORD_AGE_EXCEEDED = "RecordAgeExceeded"


@dataclass(frozen=True)
class Tried:
    """What became of an invocation: so many `done` of the batch's first records. `answer` is None if the function could
    not be invoked, for the reason `problem`."""

    done: int
    answer: Answer | None = None
    request_id: str = ""
    problem: str = ""


def done_of(records: Sequence[SourceRecord], payload: bytes) -> int:
    """How many of the first records are done, as the answer of a function that reports failures tells it.

    The first that failed counts: those after it are tried again with it. An answer that cannot be understood, or that
    names a record that was not there, is one failure of all.
    """
    try:
        told = json.loads(payload or b"null")
        if told is None:
            return len(records)
        failures = told.get("batchItemFailures")
        failed = {each["itemIdentifier"] for each in failures or ()}
    except (ValueError, RecursionError, AttributeError, LookupError, TypeError):
        return 0
    places = {record.identifier: place for place, record in enumerate(records)}
    if not all(each in places for each in failed):
        return 0
    return min((places[each] for each in failed), default=len(records))


def record(
    condition: Condition, invocations: int, tried: Tried | None, function_arn: str, batch: Mapping[str, Any], now: float
) -> bytes:
    """What a destination gets, as JSON text. `batch` are the members that tell which records it is about."""
    told: dict[str, Any] = {
        "requestContext": {
            "requestId": tried.request_id if tried is not None else "",
            "functionArn": function_arn,
            "condition": str(condition),
            "approximateInvokeCount": invocations,
        },
        "version": "1.0",
        "timestamp": datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        **batch,
    }
    if tried is not None and tried.answer is not None:
        response: dict[str, Any] = {"statusCode": 200, "executedVersion": "$LATEST"}
        if tried.answer.error is not None:
            response["functionError"] = tried.answer.error
        told["responseContext"] = response
    return json.dumps(told).encode()
