"""Event streams: what botocore reads of what is written here."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import botocore.loaders
import pytest
from botocore.eventstream import EventStream as BotocoreStream
from botocore.eventstream import EventStreamBuffer
from botocore.exceptions import EventStreamError
from botocore.model import ServiceModel
from botocore.parsers import EventStreamJSONParser
from hypothesis import given
from hypothesis import strategies as st

from owsgit.aws import eventstream
from owsgit.aws.api import ServiceError
from owsgit.aws.eventstream import Encoded, EventStream

LOADER = botocore.loaders.Loader()


def shape_of(service: str, operation: str) -> Any:
    model = ServiceModel(LOADER.load_service_model(service, "service-2"))
    return model.operation_model(operation).get_event_stream_output()


class Raw:
    """A response's body, in pieces that no message keeps to."""

    def __init__(self, data: bytes, piece: int = 7) -> None:
        self._data, self._piece = data, piece

    def stream(self) -> Iterator[bytes]:
        for start in range(0, len(self._data), self._piece):
            yield self._data[start : start + self._piece]

    def close(self) -> None:
        pass


def read(shape: Any, data: bytes) -> list[Any]:
    return list(BotocoreStream(Raw(data), shape, EventStreamJSONParser(), "op"))


def test_botocore_reads_the_events_of_lambda() -> None:
    shape = shape_of("lambda", "InvokeWithResponseStream")
    events: list[dict[str, Any]] = [
        {"PayloadChunk": {"Payload": b"\x00\xffpiece"}},
        {"PayloadChunk": {"Payload": b""}},
        {"InvokeComplete": {"ErrorCode": "Unhandled", "ErrorDetails": '{"a": "ä"}', "LogResult": "TE9H"}},
        {"InvokeComplete": {}},
    ]
    writer = EventStream(shape)
    assert read(shape, b"".join(writer.encode(event) for event in events)) == events


def test_members_that_are_headers_go_into_headers() -> None:
    shape = shape_of("s3", "SelectObjectContent")
    data = EventStream(shape).encode({"Records": {"Payload": b"a,b"}})
    assert b"application/octet-stream" in data and data.endswith(data[-4:])
    assert read(shape, data) == [{"Records": {"Payload": b"a,b"}}]


def test_errors_within_a_stream_are_raised_by_botocore() -> None:
    shape = shape_of("kinesis", "SubscribeToShard")
    writer = EventStream(shape)
    with pytest.raises(EventStreamError, match="gone") as known:
        read(shape, writer.exception("ResourceNotFoundException", "it is gone"))
    assert known.value.response["Error"]["Code"] == "ResourceNotFoundException"
    with pytest.raises(EventStreamError, match="unknown here") as unknown:
        read(shape, writer.exception("OddException", "unknown here" + "ä" * 40_000))
    assert unknown.value.response["Error"]["Code"] == "OddException"


HEADERS = st.dictionaries(
    st.text("abc:-", min_size=1, max_size=20),
    st.one_of(
        st.text("aZ ä€\U0001f600", max_size=50),
        st.binary(max_size=50),
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.integers(0, 4 * 10**9).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
    ),
    max_size=5,
)


@given(HEADERS, st.binary(max_size=300))
def test_messages_are_read_as_they_were_written(headers: dict[str, Any], payload: bytes) -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(eventstream.message(headers.items(), payload))
    (read_back,) = list(buffer)
    expected = {
        name: round(value.timestamp() * 1000) if isinstance(value, datetime) else value
        for name, value in headers.items()
    }
    assert read_back.headers == expected and read_back.payload == payload


def test_no_message_is_larger_than_sdks_take() -> None:
    with pytest.raises(ValueError, match="too large"):
        eventstream.message([], bytes(eventstream.PAYLOAD_BYTES_MAX + 1))
    with pytest.raises(ValueError, match="too large"):
        eventstream.message([(f"h{number}", "x" * 32_000) for number in range(5)])
    with pytest.raises(ValueError, match="32,768 bytes"):
        eventstream.message([("h", "x" * 32_768)])
    with pytest.raises(ValueError, match="cannot be the name"):
        eventstream.message([("", "x")])


class Breaking:
    """Events, then an error."""

    def __init__(self, error: Exception) -> None:
        self._left: list[Any] = [{"PayloadChunk": {"Payload": b"x"}}, error]
        self.closed = False

    def __aiter__(self) -> "Breaking":
        return self

    async def __anext__(self) -> Any:
        if not self._left:
            raise StopAsyncIteration
        found = self._left.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    async def aclose(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("error", "code"),
    [(ServiceError("ServiceException", "broken off"), "ServiceException"), (KeyError("k"), "InternalFailure")],
    ids=["told", "unknown"],
)
def test_what_breaks_in_the_middle_ends_the_stream(error: Exception, code: str) -> None:
    shape = shape_of("lambda", "InvokeWithResponseStream")
    events = Breaking(error)

    async def collect() -> bytes:
        body = Encoded(EventStream(shape), events)
        found = b"".join([piece async for piece in body])
        await body.aclose()
        return found

    parts = iter(BotocoreStream(Raw(asyncio.run(collect())), shape, EventStreamJSONParser(), "op"))
    assert next(parts) == {"PayloadChunk": {"Payload": b"x"}} and events.closed
    with pytest.raises(EventStreamError) as raised:
        next(parts)
    assert raised.value.response["Error"]["Code"] == code and "'k'" not in str(raised.value)
