"""API Gateway's payload formats 1.0 and 2.0: requests into events, answers into responses.

Source: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
"""

import base64
import re
import time
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final
from urllib.parse import parse_qsl, unquote_plus

import orjson

from owsgit.gateway import certificates
from owsgit.gateway.exchange import Exchange, Response, SocketEvent

_TEXT_TYPES: Final = re.compile(r"text/.*|application/(.*\+)?(json|xml)|application/javascript", re.IGNORECASE)
"""Bodies that HTTP APIs give to functions as texts; forms are not among them."""

_TEXTS_OF_REST: Final = re.compile(r"(application/(x-www-form-urlencoded|graphql))?", re.IGNORECASE)
"""Further ones of format 1.0, and those without a type: a REST API takes everything for text."""

_HEADER_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_HOP_BY_HOP: Final = frozenset(
    {b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"te", b"trailer", b"content-length"}
)
_OF_THE_CONNECTION: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)
"""Headers that tell the gateway how a request is sent, and that events do not have, as on AWS: a framework that is told
of chunks looks for them in the body, which is whole."""

_NAMES_1: Final = {
    name.lower(): name
    for name in ("Host", "User-Agent", "X-Amzn-Trace-Id", "X-Forwarded-For", "X-Forwarded-Port", "X-Forwarded-Proto")
}
"""Names in events of format 1.0 that do not depend on how the client writes them."""

QUERY_FIELDS_MAX = 1000
HEADERS_KEPT, KEPT_CHARACTERS_MAX = 1024, 256
"""How many headers of answers are kept as they are sent, and the longest value among them."""


class MalformedResponseError(Exception):
    """What the function answered is not a response of its payload format."""


def event(version: str, exchange: Exchange, body: bytes) -> bytes:
    """The event for a function, as JSON text."""
    return orjson.dumps(_event(version, exchange, body))


def description(version: str, exchange: Exchange) -> dict[str, Any]:
    """The event without a body, for whoever decides about the request before it is read."""
    made = _event(version, exchange, b"")
    for name in ("body", "isBase64Encoded"):
        made.pop(name, None)
    return made


def _event(version: str, exchange: Exchange, body: bytes) -> dict[str, Any]:
    if exchange.socket is not None:
        return _event_of_socket(exchange, exchange.socket, body)
    return _event_1(exchange, body) if version == "1.0" else _event_2(exchange, body)


def text_headers(exchange: Exchange) -> list[tuple[str, str]]:
    """The headers that are of the request itself."""
    return [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in exchange.headers
        if name not in _OF_THE_CONNECTION
    ]


def _forward(exchange: Exchange, headers: dict[str, str]) -> None:
    """Write what API Gateway says in headers of how a request came, in place of what the client claims. Its own
    X-Forwarded-For stays in front: the last entry is who the gateway saw, for handlers that count from the end."""
    before, address, scheme = headers.get("x-forwarded-for"), exchange.client.address, exchange.scheme
    _, _, port = headers.get("host", "").rpartition(":")
    if not port.isdecimal() or not port.isascii() or len(port) > 5:
        port = "443" if scheme == "https" else "80"
    headers["x-forwarded-for"] = f"{before}, {address}" if before else address
    headers["x-forwarded-port"] = port
    headers["x-forwarded-proto"] = scheme


def _header(exchange: Exchange, name: bytes) -> str:
    return exchange.header(name).decode("latin-1")


def _is_text(exchange: Exchange, version: str, kind: str) -> bool:
    """Whether a body goes into an event as text: by its type, or as the gateway's binaryMediaTypes say."""
    if version == "1.0" and exchange.mount.binary_media_types:
        return not _is_binary(exchange, kind)
    found = _TEXT_TYPES.fullmatch(kind) or (_TEXTS_OF_REST.fullmatch(kind) if version == "1.0" else None)
    return found is not None and not exchange.header(b"content-encoding")


def _is_binary(exchange: Exchange, kind: str) -> bool:
    kind, types = kind.lower(), exchange.mount.binary_media_types
    return kind in types or "*/*" in types or f"{kind.partition('/')[0]}/*" in types


def decodes(version: str, exchange: Exchange) -> bool:
    """Whether an answer of isBase64Encoded is decoded: as REST APIs do, only if the first type that the client accepts
    is one of the gateway's binaryMediaTypes, where it has some.

    https://docs.aws.amazon.com/apigateway/latest/developerguide/lambda-proxy-binary-media.html
    """
    if version != "1.0" or not exchange.mount.binary_media_types:
        return True
    return _is_binary(exchange, _header(exchange, b"accept").split(",", 1)[0].split(";", 1)[0].strip())


def _body(exchange: Exchange, body: bytes, version: str) -> tuple[str | None, bool]:
    if not body:
        return None, False
    kind = _header(exchange, b"content-type").split(";", 1)[0].strip()
    if _is_text(exchange, version, kind):
        try:
            return body.decode("utf-8"), False
        except UnicodeDecodeError:
            pass
    return base64.b64encode(body).decode("ascii"), True


def full_path(exchange: Exchange) -> str:
    """The decoded path as the client sent it, with what the gateway is mounted below."""
    return "/" + "/".join((*exchange.mount.base_path, *exchange.segments))


def _path_1(exchange: Exchange, *, whole: bool) -> str:
    """A path of format 1.0. It stays as the client wrote it, as in REST APIs: frameworks for them decode it, and would
    take a slash that was encoded for one of the path's, and a percent sign for the begin of a code. Format 2.0 has it
    decoded, as in HTTP APIs.
    """
    base_path = exchange.mount.base_path if whole else ()
    return "/" + "/".join((*base_path, *(exchange.written or exchange.segments)))


def query_pairs(exchange: Exchange) -> list[tuple[str, str]]:
    try:
        return parse_qsl(exchange.query, keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX)
    except ValueError:
        return [
            (unquote_plus(part.partition("=")[0]), unquote_plus(part.partition("=")[2]))
            for part in exchange.query.split("&")[:QUERY_FIELDS_MAX]
        ]


def _joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    joined: dict[str, str] = {}
    for name, value in pairs:
        joined[name] = f"{joined[name]},{value}" if name in joined else value
    return joined


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for name, value in pairs:
        grouped.setdefault(name, []).append(value)
    return grouped


def _headers_1(exchange: Exchange) -> dict[str, list[str]]:
    """Headers as events of format 1.0 and of WebSockets have them (multiValueHeaders): names as the client wrote them,
    but for those that API Gateway writes itself."""
    headers = _grouped(text_headers(exchange))
    told = {name: ", ".join(values) for name, values in headers.items() if name in ("x-forwarded-for", "host")}
    _forward(exchange, told)
    told.pop("host", None)
    headers.update({name: [value] for name, value in told.items()})
    written = {name.decode("latin-1"): as_written.decode("latin-1") for name, as_written in exchange.names.items()}
    return {_NAMES_1.get(name) or written.get(name, name): values for name, values in headers.items()}


def _times() -> tuple[str, int]:
    """Now, as requestTime and requestTimeEpoch have it."""
    now = time.time()
    return _written(int(now)), int(now * 1000)


@lru_cache(2)
def _written(second: int) -> str:
    return time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(second))


def _event_2(exchange: Exchange, body: bytes) -> dict[str, Any]:
    text, encoded = _body(exchange, body, "2.0")
    written, epoch = _times()
    mount = exchange.mount
    # a stage's name is in it, a domain's base path is not
    path = exchange.path if mount.is_mapped else full_path(exchange)
    headers: dict[str, str] = {}
    cookies: list[str] = []
    for name, value in text_headers(exchange):
        if name == "cookie":
            cookies += (part.strip() for part in value.split(";"))
        else:
            headers[name] = f"{headers[name]},{value}" if name in headers else value
    _forward(exchange, headers)
    if body:
        headers.setdefault("content-length", str(len(body)))  # which those that come in chunks have not
    context: dict[str, Any] = {
        "accountId": mount.account,
        "apiId": mount.api,
        "domainName": exchange.host,
        "domainPrefix": exchange.host.split(".", 1)[0],
        "http": {
            "method": exchange.method,
            "path": path,
            "protocol": exchange.protocol,
            "sourceIp": exchange.client.address,
            "userAgent": _header(exchange, b"user-agent"),
        },
        "requestId": exchange.id,
        "routeKey": exchange.route_key,
        "stage": mount.stage,
        "time": written,
        "timeEpoch": epoch,
    }
    if exchange.authorizer:
        context["authorizer"] = exchange.authorizer
    if exchange.client.certificate:
        context["authentication"] = {"clientCert": certificates.of_client(exchange.client.certificate)}
    result: dict[str, Any] = {
        "version": "2.0",
        "routeKey": exchange.route_key,
        "rawPath": path,
        "rawQueryString": exchange.query,
        "headers": headers,
        "requestContext": context,
        "isBase64Encoded": encoded,
    }
    if cookies:
        result["cookies"] = cookies
    if exchange.query:
        result["queryStringParameters"] = _joined(query_pairs(exchange))
    if exchange.parameters:
        result["pathParameters"] = exchange.parameters
    if mount.variables:
        result["stageVariables"] = dict(mount.variables)
    if text is not None:
        result["body"] = text
    return result


def _event_1(exchange: Exchange, body: bytes) -> dict[str, Any]:
    text, encoded = _body(exchange, body, "1.0")
    written, epoch = _times()
    mount = exchange.mount
    query, headers = _grouped(query_pairs(exchange)), _headers_1(exchange)
    context: dict[str, Any] = {
        "accountId": mount.account,
        "apiId": mount.api,
        "domainName": exchange.host,
        "domainPrefix": exchange.host.split(".", 1)[0],
        "extendedRequestId": exchange.id,
        "httpMethod": exchange.method,
        "identity": {
            "accessKey": None,
            "accountId": None,
            "caller": None,
            "cognitoAuthenticationProvider": None,
            "cognitoAuthenticationType": None,
            "cognitoIdentityId": None,
            "cognitoIdentityPoolId": None,
            "principalOrgId": None,
            "sourceIp": exchange.client.address,
            "user": None,
            "userAgent": _header(exchange, b"user-agent"),
            "userArn": None,
            **exchange.identity,
        },
        "path": _path_1(exchange, whole=True),
        "protocol": exchange.protocol,
        "requestId": exchange.id,
        "requestTime": written,
        "requestTimeEpoch": epoch,
        "resourceId": exchange.route_key,
        "resourcePath": exchange.resource,
        "stage": mount.stage,
    }
    if exchange.authorizer:
        context["authorizer"] = exchange.authorizer
    if exchange.client.certificate:
        context["identity"]["clientCert"] = certificates.of_client(exchange.client.certificate)
    return {
        "version": "1.0",
        "resource": exchange.resource,
        "path": _path_1(exchange, whole=mount.is_mapped),  # with a domain's base path, without a stage's name
        "httpMethod": exchange.method,
        "headers": {name: values[-1] for name, values in headers.items()},
        "multiValueHeaders": headers,
        "queryStringParameters": {name: values[-1] for name, values in query.items()} or None,
        "multiValueQueryStringParameters": query or None,
        "pathParameters": exchange.written_parameters or exchange.parameters or None,
        "stageVariables": dict(mount.variables) or None,
        "requestContext": context,
        "body": text,
        "isBase64Encoded": encoded,
    }


def _event_of_socket(exchange: Exchange, socket: SocketEvent, body: bytes) -> dict[str, Any]:
    """https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-websocket-api-mapping-template-reference.html"""
    written, epoch = _times()
    mount = exchange.mount
    context: dict[str, Any] = {
        "accountId": mount.account,
        "apiId": mount.api,
        "connectedAt": int(socket.connected_at * 1000) or epoch,
        "connectionId": socket.connection_id,
        "domainName": exchange.host,
        "eventType": socket.kind,
        "extendedRequestId": exchange.id,
        "identity": {
            "sourceIp": exchange.client.address,
            "userAgent": _header(exchange, b"user-agent"),
            **exchange.identity,
        },
        "messageDirection": "IN",
        "requestId": exchange.id,
        "requestTime": written,
        "requestTimeEpoch": epoch,
        "routeKey": exchange.route_key,
        "stage": mount.stage,
    }
    if exchange.authorizer:
        context["authorizer"] = exchange.authorizer
    result: dict[str, Any] = {"requestContext": context, "isBase64Encoded": False}
    if mount.variables:
        result["stageVariables"] = dict(mount.variables)
    if socket.kind == "MESSAGE":
        context["messageId"] = socket.message_id
        result["body"], result["isBase64Encoded"] = _body(exchange, body, "2.0")
        return result
    if socket.kind == "DISCONNECT":
        context["disconnectStatusCode"], context["disconnectReason"] = socket.code, socket.reason
    headers, query = _headers_1(exchange), _grouped(query_pairs(exchange))
    result["headers"] = {name: values[-1] for name, values in headers.items()}
    result["multiValueHeaders"] = headers
    if query:
        result["queryStringParameters"] = {name: values[-1] for name, values in query.items()}
        result["multiValueQueryStringParameters"] = query
    return result


def response(version: str, payload: bytes, decoded: bool = True) -> Response:
    """The HTTP response that a function's answer stands for; what is base64 stays so unless it is to be `decoded`.

    Raises MalformedResponseError.
    """
    try:
        answer = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise MalformedResponseError(f"the answer is not JSON: {error}") from None
    if not isinstance(answer, dict) or "statusCode" not in answer:
        if version == "1.0":
            raise MalformedResponseError("format 1.0 needs an object with statusCode")
        body = answer.encode() if isinstance(answer, str) else payload
        return Response(200, [(b"content-type", b"application/json")], body)
    status, headers = head(answer, b"application/json" if version == "1.0" else b"text/plain; charset=utf-8")
    text = answer.get("body")
    if type(text) is str and "isBase64Encoded" not in answer:  # as most are
        return Response(status, headers, text.encode())
    return Response(status, headers, _response_body(answer, decoded))


def head(answer: dict[str, Any], content_type: bytes) -> tuple[int, list[tuple[bytes, bytes]]]:
    """Status and headers of an answer; `content_type` if it names none. Raises MalformedResponseError."""
    headers = _response_headers(answer)
    if not any([name == b"content-type" for name, _ in headers]):  # noqa: C419 - a generator costs more than a few names
        headers.append((b"content-type", content_type))
    return _status(answer["statusCode"]), headers


def _status(value: Any) -> int:
    if type(value) is int and 200 <= value <= 599:
        return value
    try:
        status = int(value)
    except (TypeError, ValueError):
        raise MalformedResponseError(f"statusCode {value!r:.40} is not a number") from None
    if not 200 <= status <= 599:
        raise MalformedResponseError(f"statusCode {status} is not from 200 to 599")
    return status


def _response_body(answer: dict[str, Any], decoded: bool) -> bytes:
    body = answer.get("body")
    if body is None:
        return b""
    if not isinstance(body, str):
        raise MalformedResponseError("body is not a string")
    if answer.get("isBase64Encoded") is True and decoded:
        try:
            return base64.b64decode(body, validate=True)
        except ValueError:  # binascii.Error too
            raise MalformedResponseError("body is not base64 although isBase64Encoded is true") from None
    return body.encode("utf-8")


def _response_headers(answer: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    multi = answer.get("multiValueHeaders") or {}
    single = answer.get("headers") or {}
    cookies = answer.get("cookies") or []
    if not isinstance(multi, dict) or not isinstance(single, dict) or not isinstance(cookies, list):
        raise MalformedResponseError("headers, multiValueHeaders or cookies have the wrong type")
    headers = []
    for name, value in single.items():
        if type(value) is str and len(value) < KEPT_CHARACTERS_MAX:
            pair = _encoded(name, value)
        else:
            pair = _header_pair(name, value)
        if pair[0] not in _HOP_BY_HOP:
            headers.append(pair)
    if not multi and not cookies:
        return headers
    if multi:  # API Gateway merges the two: the same pair in both is one
        listed = [
            _header_pair(name, value)
            for name, values in multi.items()
            for value in (values if isinstance(values, list) else [values])
        ]
        headers = [pair for pair in headers if pair not in listed] + listed
    if cookies:
        headers += [_header_pair("set-cookie", cookie) for cookie in cookies]
    return [pair for pair in headers if pair[0] not in _HOP_BY_HOP]


def _header_pair(name: str, value: Any) -> tuple[bytes, bytes]:
    """Refuses what could split a response."""
    if type(value) is str and len(value) < KEPT_CHARACTERS_MAX:
        return _encoded(name, value)
    if isinstance(value, bool):
        value = str(value).lower()
    if not isinstance(value, str | int | float):
        raise MalformedResponseError(f"the header {name!r:.60} is not valid HTTP")
    return _encoded.__wrapped__(name, str(value))


@lru_cache(HEADERS_KEPT)
def _encoded(name: str, value: str) -> tuple[bytes, bytes]:
    """A header as it is sent. Most are of a few that a function answers again and again."""
    key, text = name.lower().encode("utf-8"), value.encode("utf-8")
    if not _HEADER_NAME.fullmatch(key) or not _HEADER_VALUE.fullmatch(text):
        raise MalformedResponseError(f"the header {name!r:.60} is not valid HTTP")
    return key, text
