"""Requests as botocore's own serializers write them, responses as its parsers read them, and what nobody's does."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.model import ListShape, MapShape, ServiceModel, Shape, StructureShape

from owsgit.aws.api import ServiceError
from owsgit.aws.protocols import protocol_of
from owsgit.aws.protocols.wire import Incoming
from owsgit.aws.readers import DEPTH_MAX, PATTERN_CHARACTERS_MAX, REDACTED, Problems, Readers
from tests.support.protocols import SPOKEN, operations, parsed, spoken, written

AT = datetime(2026, 1, 31, 10, 0, 1, tzinfo=UTC)
TEXT = "a+b c/%2F&=~;é<\u2028"


def sample(shape: Shape, depth: int = 0) -> Any:
    """A value with all that the shape has, down to some depth."""
    location = shape.serialization.get("location")
    if getattr(shape, "is_document_type", False):
        return {"any": [1, None, {"x": "y"}]}
    if isinstance(shape, StructureShape):
        members = {name: member for name, member in shape.members.items() if depth < 8 or _flat(member)}
        if getattr(shape, "is_tagged_union", False):
            members = dict(list(members.items())[:1])
        return {
            name: sample(member, depth + 1)
            for name, member in members.items()
            if not member.serialization.get("eventstream") and location != "statusCode"
        }
    if isinstance(shape, ListShape):
        if location == "header":
            return ["a b", 'a, "b']
        return [sample(shape.member, depth + 1)] * (2 if _flat(shape.member) else 1)
    if isinstance(shape, MapShape) and location == "headers":
        return {"k.1": "a b"}
    if isinstance(shape, MapShape):
        return {"k.1 é": sample(shape.value, depth + 1)}
    texts = {"string": "a b" if location == "header" else TEXT, "blob": b"\x00\xff", "timestamp": AT, "boolean": True}
    return texts.get(shape.type_name, 1.5 if shape.type_name in ("float", "double") else 207)


def _flat(shape: Shape) -> bool:
    return not isinstance(shape, StructureShape | ListShape | MapShape)


@pytest.mark.parametrize(("service", "name"), SPOKEN)
def test_what_botocore_writes_of_every_operation_is_read_as_it_was_meant(service: str, name: str) -> None:
    protocol = spoken(service, name)
    for operation in operations(protocol):
        parameters = sample(operation.input_shape) if operation.input_shape is not None else {}
        incoming = written(operation, name, parameters)
        found = protocol.find(incoming)
        assert found is not None and found.name == operation.name
        assert protocol.read(found, incoming) == parameters, operation.name


@pytest.mark.parametrize(("service", "name"), SPOKEN)
def test_botocore_reads_what_is_written_of_every_result(service: str, name: str) -> None:
    protocol = spoken(service, name)
    for operation in operations(protocol):
        if operation.output_shape is None or operation.has_event_stream_output:
            continue
        result = sample(operation.output_shape)
        reply = protocol.write(operation, result, "id")
        told = parsed(reply, name, operation.output_shape, stream=operation.has_streaming_output)
        told = {key: value.read() if hasattr(value, "read") else value for key, value in told.items()}
        status = told.pop("ResponseMetadata")["HTTPStatusCode"]
        codes = [
            key
            for key, member in operation.output_shape.members.items()
            if member.serialization.get("location") == "statusCode"
        ]
        assert status == (result[codes[0]] if codes else operation.http.get("responseCode", 200))
        assert told == result, operation.name


@pytest.mark.parametrize(
    ("service", "name", "code"),
    [
        ("sts", "query", "AccessDenied"),
        ("lambda", "rest-json", "AccessDeniedException"),
        ("dynamodb", "json", "AccessDeniedException"),
        ("s3", "rest-xml", "AccessDenied"),
        ("route53", "rest-xml", "AccessDeniedException"),
        ("cloudwatch", "smithy-rpc-v2-cbor", "AccessDeniedException"),
    ],
)
def test_botocore_reads_errors(service: str, name: str, code: str) -> None:
    protocol = spoken(service, name)
    reply = protocol.refuse(ServiceError("AccessDeniedException", "no <b>\x00\x1b", status=403), "id")
    found = parsed(reply, name, None)
    assert found["Error"]["Code"] == code and found["Error"]["Message"].startswith("no <b>")


def test_members_that_are_none_are_left_out_also_of_what_is_written_as_it_is() -> None:
    protocol = protocol_of("dynamodb")
    operation = protocol.model.operation_model("GetItem")

    def written(item: Any, **more: Any) -> Any:
        return json.loads(protocol.write(operation, {"Item": item, **more}, "id").body)  # type: ignore[arg-type]

    item = {"a": {"S": ":null"}, "b": {"B": b"\xff"}, "c": {"NULL": True}}
    shown = {**item, "b": {"B": "/w=="}}
    assert written(item) == written(item, ConsumedCapacity=None) == {"Item": shown}
    assert written({"a": {"S": "x", "N": None}}) == {"Item": {"a": {"S": "x"}}}
    assert written({"a": {"M": {"b": {"S": "x", "N": None}}}}) == {"Item": {"a": {"M": {"b": {"S": "x"}}}}}
    with pytest.raises(KeyError):
        written(item, Unknown=1)


def test_a_header_of_a_result_is_one_line() -> None:
    protocol = protocol_of("lambda")
    reply = protocol.write(protocol.model.operation_model("Invoke"), {"FunctionError": "a\r\nb: c\ud800"}, "id")
    assert (b"x-amz-function-error", b"a??b: c?") in reply.headers


# -- what no client writes -----------------------------------------------------------------------


def json_read(body: bytes, operation: str = "PutItem") -> dict[str, Any]:
    protocol = protocol_of("dynamodb")
    incoming = Incoming("POST", b"/", b"", [(b"x-amz-target", f"DynamoDB_20120810.{operation}".encode())], body)
    found = protocol.find(incoming)
    assert found is not None
    return protocol.read(found, incoming)


def rest_read(method: str, path: bytes, query: bytes = b"", body: bytes = b"") -> tuple[str, dict[str, Any]] | None:
    protocol = protocol_of("lambda")
    incoming = Incoming(method, path, query, [], body)
    found = protocol.find(incoming)
    return (found.name, protocol.read(found, incoming)) if found is not None else None


def form_read(form: bytes, *, in_query: bool = False) -> dict[str, Any]:
    protocol = protocol_of("sts")
    form = b"Version=2011-06-15&Action=AssumeRole&" + form
    headers = [] if in_query else [(b"content-type", b"application/x-www-form-urlencoded")]
    incoming = Incoming("POST", b"/", form if in_query else b"", headers, b"" if in_query else form)
    found = protocol.find(incoming)
    assert found is not None
    return protocol.read(found, incoming)


ROLE = b"RoleArn=arn:aws:iam::123456789012:role/r&RoleSessionName=ab"


def refused(call: Any, *given: Any, **named: Any) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        call(*given, **named)
    return caught.value


@pytest.mark.parametrize(
    "body",
    [
        b"[]", b"1", b'"x"', b"null", b"{", b"\xff", b'{"TableName": NaN}', b'{"TableName": "\\ud800"}',
        b'{"TableName": 1}', b'{"TableName": {}}', b'{"TableName": []}', b'{"TableName": true}', b'{"Item": []}',
        b'{"Item": {"a": "x"}}', b'{"Item": {"a": {"B": "?"}}}', b'{"Item": {"a": {"B": 1}}}', b'{"Item": {"a": {"SS": {}}}}',
        b'{"Item": {"a": {"BOOL": "true"}}}', b'{"Item": {"a": {"NULL": 1}}}', b"[" * 2000, b'{"a":' * 2000,
    ],
)  # fmt: skip
def test_a_body_of_another_type_is_refused(body: bytes) -> None:
    assert refused(json_read, body).code == "SerializationException"


@pytest.mark.parametrize("number", [b"1e400", b"-1e400", b"1" * 400, b"2147483648", b"-2147483649", b"1.5", b'"1"'])
def test_a_number_that_is_no_integer_of_its_size_is_refused(number: bytes) -> None:
    body = b'{"TableName": "abc", "Limit": %b}' % number
    assert refused(json_read, body, "Scan").code == "SerializationException"


def nested(levels: int) -> bytes:
    return b'{"TableName":"abc","Item":{"a":' + b'{"M":{"a":' * levels + b'{"S":""}' + b"}}" * levels + b"}}"


def test_an_item_may_be_as_deep_as_dynamodb_has_them_and_not_much_deeper() -> None:
    assert json_read(nested(32))["Item"]
    assert "too deep" in refused(json_read, nested(DEPTH_MAX // 2)).message
    assert json_read(b'{"TableName":"abc","Item":{"%b":{"S":""}}}' % (b"." * 200))["Item"]


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 70 + b'"\\' * 200_000,
        b'["' + b"a" * 4_000_000 + b'"' + b"[" * 100,
        json.dumps({"TableName": "abc", "Item": {"k" * 500_000: {"M": {str(i): {"S": ""} for i in range(20_000)}}}}).encode(),
        json.dumps({"TableName": "abc", "Item": {"k": {"SS": 50_000 * [1]}}}).encode(),
        b'{"TableName":[' + b"[]," * 2_000_001 + b"[]]}",
    ],
    ids=["quotes", "text", "name", "wrong", "bomb"],
)  # fmt: skip
def test_no_body_takes_longer_than_its_length_is_worth(body: bytes) -> None:
    began = time.process_time()
    try:
        json_read(body)
    except ServiceError as error:
        assert len(error.message) < 1000
    assert time.process_time() - began < 2  # minutes, and gigabytes, without the bounds


def test_what_is_wrong_is_counted_and_the_first_of_it_told() -> None:
    keys = {f"t{i}!": {"Keys": []} for i in range(10_000)}
    error = refused(json_read, json.dumps({"RequestItems": keys}).encode(), "BatchGetItem")
    assert error.message.startswith("10001 validation errors detected: ") or "validation errors" in error.message
    assert len(error.message) < 10_000


def test_what_is_sensitive_is_not_told() -> None:
    key = ("u" * 30 + "\u0100").encode()
    body = json.dumps({"Environment": {"Variables": {"A-B": "hunter2"}}, "KMSKeyArn": "x"}).encode()
    error = refused(rest_read, "PUT", b"/2015-03-31/functions/f/configuration", b"", body)
    assert REDACTED in error.message and "hunter2" not in error.message and key.decode() not in error.message
    payload = refused(rest_read, "POST", b"/2015-03-31/functions", b"", b'{"Code": {"ZipFile": "?hunter2"}}')
    assert REDACTED in payload.message and "hunter2" not in payload.message


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1_0", "\u0661", " 1", "nan", "1" * 500, "0x1", ""])
def test_a_number_in_a_text_is_one_of_the_models(text: str) -> None:
    shapes = {"D": {"type": "structure", "members": {"d": {"shape": "N"}}}, "N": {"type": "double", "min": 0, "max": 9}}
    shape = ServiceModel({"metadata": {}, "shapes": shapes}, "x").shape_for("D")
    problems = Problems()
    try:
        Readers(text=True).of(shape)({"d": text}, None, problems)
    except ServiceError:
        return
    assert problems.count  # NaN is neither large nor small enough


@pytest.mark.parametrize(
    "fields",
    [
        b"Tags.member.999999999.Key=a", b"Tags.member.0.Key=a", b"Tags.member.01.Key=a", b"Tags.member.-1.Key=a",
        "Tags.member.\u0661.Key=a".encode(), b"Tags.member.1%s.Key=a" % (b"0" * 5000), b"Tags.member=x", b"Tags.1.Key=a&Tags=b",
        b"Tags.member.x.Key=a", b"Tags.member.1=x&Tags.member.1.Key=a", b"RoleArn.x=1", b"DurationSeconds=\xd9\xa1\xd9\xa2",
        b"DurationSeconds=1e3", b"DurationSeconds=", b"DurationSeconds=901&DurationSeconds=902", b"Action=GetCallerIdentity",
        b"RoleSessionName=c", b"Tags" + b".a" * 5000 + b"=x", b"x=%ff", b"x=\xff", b"&".join(b"x%d=" % i for i in range(20_001)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("in_query", [False, True], ids=["body", "query"])
def test_a_form_that_could_be_read_in_two_ways_is_refused(fields: bytes, in_query: bool) -> None:
    error = refused(form_read, ROLE + b"&" + fields, in_query=in_query)
    assert (
        error.code in ("MalformedQueryString", "SerializationException", "ValidationException") and error.status == 400
    )


def test_a_form_in_its_order_with_gaps_and_an_empty_list() -> None:
    found = form_read(
        ROLE + b"&Tags.member.10.Key=b&Tags.member.10.Value=&Tags.member.2.Key=a&Tags.member.2.Value=&PolicyArns="
    )
    assert [tag["Key"] for tag in found["Tags"]] == ["a", "b"] and found["PolicyArns"] == []


def test_a_plus_in_a_query_is_the_plus_that_was_signed() -> None:
    assert form_read(ROLE + b"&ExternalId=a%2Bb", in_query=True) == form_read(ROLE + b"&ExternalId=a+b", in_query=True)
    assert form_read(ROLE + b"&ExternalId=a%2Bb")["ExternalId"] == "a+b"
    assert rest_read("GET", b"/2015-03-31/functions", b"Marker=a+b") == ("ListFunctions", {"Marker": "a+b"})


@pytest.mark.parametrize(
    "path",
    [
        b"/2015-03-31/functions/f/aliases/..", b"/2015-03-31/functions/f/x/..", b"/2015-03-31/functions/./f", b"//2015-03-31/functions/f",
        b"/2015-03-31//functions/f", b"/2015-03-31/functions/f//", b"/2015-03-31/functions/f/.", b"/2015-03-31/functions//aliases",
        b"/2017-03-31/tags/../tags/a/b", b"/2015-03-31/functions/..", b"/../2015-03-31/functions/f",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_path_that_is_signed_like_another_names_nothing(method: str, path: bytes) -> None:
    assert rest_read(method, path) is None


def test_a_name_in_a_path_stays_one_however_it_is_written() -> None:
    error = refused(rest_read, "GET", b"/2015-03-31/functions/f%2F..%2Fg")
    assert error.code == "ValidationException" and "f/../g" in error.message
    assert refused(rest_read, "GET", b"/2015-03-31/functions", b"Marker=a&Marker=b").code == "ValidationException"


def s3_read(method: str, path: bytes, query: bytes = b"", body: bytes = b"") -> tuple[str, dict[str, Any]] | None:
    protocol = protocol_of("s3")
    incoming = Incoming(method, path, query, [], body)
    found = protocol.find(incoming)
    return (found.name, protocol.read(found, incoming)) if found is not None else None


@pytest.mark.parametrize(
    ("method", "path", "query", "name", "key"),
    [
        ("GET", b"/b", b"", "ListObjects", None),
        ("GET", b"/b/", b"list-type=2&x-id=ListObjectsV2", "ListObjectsV2", None),
        ("GET", b"/", b"", "ListBuckets", None),
        ("GET", b"/b/a//b", b"", "GetObject", "a//b"),
        ("GET", b"/b//", b"", "GetObject", "/"),
        ("DELETE", b"/b/a/../b/", b"", "DeleteObject", "a/../b/"),
        ("PUT", b"/b/%2F%25", b"", "PutObject", "/%"),
        ("PUT", b"/b/k", b"uploadId=u&partNumber=3", "UploadPart", "k"),
        ("GET", b"/b/k", b"uploadId=u", "ListParts", "k"),
        ("POST", b"/b/k", b"uploads", "CreateMultipartUpload", "k"),
    ],
)
def test_the_names_of_objects_are_taken_as_they_are(
    method: str, path: bytes, query: bytes, name: str, key: str | None
) -> None:
    found = s3_read(method, path, query)
    assert found is not None and found[0] == name and found[1].get("Key") == key


TAGS = b"<Tagging><TagSet><Tag><Key>%s</Key><Value>v</Value></Tag></TagSet></Tagging>"


@pytest.mark.parametrize(
    "body",
    [
        b'<!DOCTYPE a [<!ENTITY b "c">]>' + TAGS % b"&b;",
        b'<!DOCTYPE a SYSTEM "file:///etc/passwd">' + TAGS % b"k",
        TAGS % b"&b;",
        TAGS % b"<Key/>",
        TAGS.replace(b"Tagging", b"Bagging") % b"k",
        b"<Tagging><TagSet/><TagSet/></Tagging>",
        b"<Tagging><TagSet><Rag/></TagSet></Tagging>",
        b"<Tagging><TagSet>" + b"<Tag/>" * 100_000 + b"</TagSet></Tagging>",
        b"<Tagging>" + b"<x>" * 100 + b"</x>" * 100 + b"</Tagging>",
        b"<Tagging " + b" ".join(b'a%d=""' % index for index in range(100_001)) + b"/>",
        b'<Tagging a:x="1" b:x="2"/>',
        b'<?xml version="1.0" encoding="utf-7"?>' + TAGS % b"k",
        (TAGS % b"k")[:-3],
        (TAGS % b"k") * 2,
        b"{}",
        b"\xff",
    ],
    ids=[
        "entity",
        "external",
        "unknown",
        "nested",
        "root",
        "twice",
        "other",
        "many",
        "deep",
        "attributes",
        "prefixes",
        "encoding",
        "cut",
        "two",
        "json",
        "octet",
    ],
)
def test_xml_that_is_odd_is_refused_at_once(body: bytes) -> None:
    began = time.process_time()
    assert refused(s3_read, "PUT", b"/b", b"tagging", body).code == "MalformedXML"
    assert time.process_time() - began < 2


def cbor_read(body: bytes, path: bytes = b"/service/GraniteServiceVersion20100801/operation/PutMetricData") -> Any:
    protocol = protocol_of("cloudwatch")
    incoming = Incoming("POST", path, b"", [(b"smithy-protocol", b"rpc-v2-cbor")], body)
    found = protocol.find(incoming)
    return protocol.read(found, incoming) if found is not None else None


NAMED = b"\xa1\x69Namespace"


def test_cbor_is_read_with_times_and_gaps() -> None:
    datum = b"\xbf\x6aMetricName\x61m\x69Timestamp\xc1\xfb\x41\xd0\0\0\0\0\0\0\x65Value\xf9\x3e\0\x61?\xf6\xff"
    found = cbor_read(b"\xa2\x69Namespace\x61n\x6aMetricData\x9f" + datum + b"\xff")
    at = datetime.fromtimestamp(2**30, UTC)
    assert found == {"Namespace": "n", "MetricData": [{"MetricName": "m", "Timestamp": at, "Value": 1.5}]}


@pytest.mark.parametrize(
    "body",
    [
        b"\x80", b"\xa0\xa0", NAMED, NAMED + b"\x41n", NAMED + b"\x61\xff", b"\xa2\x61a\x01\x61a\x02",
        NAMED + b"\xc2\x41\x01", NAMED + b"\xd8\x1c\x81\xd8\x1d\x00", NAMED + b"\xd8\x23\x61(", NAMED + b"\xc4\x82\x1b" + b"\xff" * 8 + b"\x01",
        NAMED + b"\xd9\x01\x00\x81\xd8\x19\x00", NAMED + b"\xd9\x01\x02\x81\x01", NAMED + b"\x7b" + b"\x7f" * 8, NAMED + b"\x9b" + b"\x7f" * 8,
        b"\x81" * 200_000, NAMED + b"\xf7\xa0", b"\xa1\x01\x01\xff", b"\xa1\x81\x00\x01", b"\x98\xff" + b"\x80" * 2_000_001, b"\x00" * (9 << 20),
        b"\xa1\x6aMetricData\x81\xa1\x69Timestamp\xc1\x1b" + b"\xff" * 8, b"\xa1\x6aMetricData\x81\xa1\x69Timestamp\xc1\xf9\x7e\x00",
    ],
)  # fmt: skip
def test_cbor_that_is_odd_is_refused_at_once(body: bytes) -> None:
    began = time.process_time()
    assert refused(cbor_read, body).code == "SerializationException"
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    "path",
    [
        b"/service/GraniteServiceVersion20100801/operation/PutMetricData/",
        b"/x/../service/GraniteServiceVersion20100801/operation/PutMetricData",
        b"/service/Other/operation/PutMetricData",
        b"/service/GraniteServiceVersion20100801/operation/Put",
    ],
)
def test_a_path_names_one_operation(path: bytes) -> None:
    assert cbor_read(NAMED + b"\x61n", path) is None


def test_an_error_has_its_old_name_beside() -> None:
    reply = spoken("cloudwatch", "smithy-rpc-v2-cbor").refuse(ServiceError("ResourceNotFound", "x", status=404), "id")
    assert (b"x-amzn-query-error", b"ResourceNotFound;Sender") in reply.headers


def hostile() -> Iterator[tuple[str, Shape]]:
    for service in ("sts", "lambda", "dynamodb", "dynamodbstreams", "s3", "cloudwatch"):
        model = protocol_of(service).model
        for name in model.shape_names:
            shape = model.shape_for(name)
            if shape.metadata.get("pattern"):
                yield f"{service} {name}", shape


def test_no_pattern_of_the_models_takes_long_whatever_it_is_given() -> None:
    seeds = ("a", "1", "-", "a-", "a.", "/", ":", " ", "aA1", "a:a:", "us-gov-")
    heads = ("", "arn:aws:iam::123456789012:role/", "arn:aws:lambda:us-east-1:123456789012:")
    slow = {}
    for name, shape in hostile():
        reader = Readers().of(shape)
        length = shape.metadata.get("max", PATTERN_CHARACTERS_MAX)
        for text in (head + (seed * length)[: length - len(head) - 1] + "!" for head in heads for seed in seeds):
            began = time.process_time()
            reader(text, None, Problems())
            if (took := time.process_time() - began) > 0.5:
                slow[name] = took
    assert not slow
