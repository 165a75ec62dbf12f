"""API Gateway's payload formats 1.0 and 2.0: requests into events, answers into responses.

Source: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
"""

import base64
import binascii
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

import orjson

_TEXT_TYPES = re.compile(
    r"text/.*|application/(.*\+)?(json|xml)|application/(javascript|x-www-form-urlencoded|graphql)", re.IGNORECASE
)
_HEADER_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"te", b"trailer", b"content-length"}
)
BODILESS = (204, 205, 304)
"""Statuses without a body (RFC 9110): bytes after their head would be read as the next response."""

QUERY_FIELDS_MAX = 1000


class MalformedResponseError(Exception):
    """What the function answered is not a response of its payload format."""


@dataclass(frozen=True)
class HttpRequest:
    """A request as the gateway read it. Header names are lower case."""

    id: str
    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    body: bytes
    source_ip: str
    protocol: str
    host: str


@dataclass(frozen=True)
class RouteContext:
    """What an event says about where the request was routed."""

    api_id: str
    account: str
    route_key: str
    resource: str
    parameters: dict[str, str]


@dataclass(frozen=True)
class HttpResponse:
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


def event(version: str, request: HttpRequest, route: RouteContext) -> bytes:
    """The event for a function, as JSON text."""
    return orjson.dumps(_event_1(request, route) if version == "1.0" else _event_2(request, route))


def _header(request: HttpRequest, name: str) -> str:
    return next((value for key, value in request.headers if key == name), "")


def _body(request: HttpRequest) -> tuple[str | None, bool]:
    if not request.body:
        return None, False
    kind = _header(request, "content-type").split(";", 1)[0].strip()
    if _TEXT_TYPES.fullmatch(kind) and not _header(request, "content-encoding"):
        try:
            return request.body.decode("utf-8"), False
        except UnicodeDecodeError:
            pass
    return base64.b64encode(request.body).decode("ascii"), True


def _query(request: HttpRequest) -> list[tuple[str, str]]:
    try:
        return parse_qsl(request.query, keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX)
    except ValueError:
        return [
            (unquote_plus(part.partition("=")[0]), unquote_plus(part.partition("=")[2]))
            for part in request.query.split("&")[:QUERY_FIELDS_MAX]
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


def _times() -> tuple[str, int]:
    now = time.time()
    return time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now)), int(now * 1000)


def _event_2(request: HttpRequest, route: RouteContext) -> dict[str, Any]:
    body, encoded = _body(request)
    written, epoch = _times()
    cookies = [part.strip() for name, value in request.headers if name == "cookie" for part in value.split(";")]
    result: dict[str, Any] = {
        "version": "2.0",
        "routeKey": route.route_key,
        "rawPath": request.path,
        "rawQueryString": request.query,
        "headers": _joined((name, value) for name, value in request.headers if name != "cookie"),
        "requestContext": {
            "accountId": route.account,
            "apiId": route.api_id,
            "domainName": request.host,
            "domainPrefix": request.host.split(".", 1)[0],
            "http": {
                "method": request.method,
                "path": request.path,
                "protocol": request.protocol,
                "sourceIp": request.source_ip,
                "userAgent": _header(request, "user-agent"),
            },
            "requestId": request.id,
            "routeKey": route.route_key,
            "stage": "$default",
            "time": written,
            "timeEpoch": epoch,
        },
        "isBase64Encoded": encoded,
    }
    if cookies:
        result["cookies"] = cookies
    if request.query:
        result["queryStringParameters"] = _joined(_query(request))
    if route.parameters:
        result["pathParameters"] = route.parameters
    if body is not None:
        result["body"] = body
    return result


def _event_1(request: HttpRequest, route: RouteContext) -> dict[str, Any]:
    body, encoded = _body(request)
    written, epoch = _times()
    query, headers = _grouped(_query(request)), _grouped(request.headers)
    return {
        "version": "1.0",
        "resource": route.resource,
        "path": request.path,
        "httpMethod": request.method,
        "headers": {name: values[-1] for name, values in headers.items()},
        "multiValueHeaders": headers,
        "queryStringParameters": {name: values[-1] for name, values in query.items()} or None,
        "multiValueQueryStringParameters": query or None,
        "pathParameters": route.parameters or None,
        "stageVariables": None,
        "requestContext": {
            "accountId": route.account,
            "apiId": route.api_id,
            "domainName": request.host,
            "domainPrefix": request.host.split(".", 1)[0],
            "extendedRequestId": request.id,
            "httpMethod": request.method,
            "identity": {
                "accessKey": None,
                "accountId": None,
                "caller": None,
                "cognitoAuthenticationProvider": None,
                "cognitoAuthenticationType": None,
                "cognitoIdentityId": None,
                "cognitoIdentityPoolId": None,
                "principalOrgId": None,
                "sourceIp": request.source_ip,
                "user": None,
                "userAgent": _header(request, "user-agent"),
                "userArn": None,
            },
            "path": request.path,
            "protocol": request.protocol,
            "requestId": request.id,
            "requestTime": written,
            "requestTimeEpoch": epoch,
            "resourceId": route.route_key,
            "resourcePath": route.resource,
            "stage": "$default",
        },
        "body": body,
        "isBase64Encoded": encoded,
    }


def response(version: str, payload: bytes) -> HttpResponse:
    """The HTTP response that a function's answer stands for. Raises MalformedResponseError."""
    try:
        answer = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise MalformedResponseError(f"the answer is not JSON: {error}") from None
    if not isinstance(answer, dict) or "statusCode" not in answer:
        if version == "1.0":
            raise MalformedResponseError("format 1.0 needs an object with statusCode")
        body = answer.encode() if isinstance(answer, str) else payload
        return HttpResponse(200, [(b"content-type", b"application/json")], body)
    headers = _response_headers(answer)
    if not any(name == b"content-type" for name, _ in headers):
        headers.append((b"content-type", b"application/json" if version == "1.0" else b"text/plain; charset=utf-8"))
    status = _status(answer["statusCode"])
    return HttpResponse(status, headers, b"" if status in BODILESS else _response_body(answer))


def _status(value: Any) -> int:
    try:
        status = int(value)
    except (TypeError, ValueError):
        raise MalformedResponseError(f"statusCode {value!r:.40} is not a number") from None
    if not 200 <= status <= 599:
        raise MalformedResponseError(f"statusCode {status} is not from 200 to 599")
    return status


def _response_body(answer: dict[str, Any]) -> bytes:
    body = answer.get("body")
    if body is None:
        return b""
    if not isinstance(body, str):
        raise MalformedResponseError("body is not a string")
    if answer.get("isBase64Encoded") is True:
        try:
            return base64.b64decode(body, validate=True)
        except binascii.Error:
            raise MalformedResponseError("body is not base64 although isBase64Encoded is true") from None
    return body.encode("utf-8")


def _response_headers(answer: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    pairs: list[tuple[str, Any]] = []
    multi = answer.get("multiValueHeaders") or {}
    single = answer.get("headers") or {}
    cookies = answer.get("cookies") or []
    if not isinstance(multi, dict) or not isinstance(single, dict) or not isinstance(cookies, list):
        raise MalformedResponseError("headers, multiValueHeaders or cookies have the wrong type")
    taken = {name.lower() for name in multi}
    pairs += [(name, value) for name, value in single.items() if name.lower() not in taken]
    pairs += [
        (name, value) for name, values in multi.items() for value in (values if isinstance(values, list) else [values])
    ]
    pairs += [("set-cookie", cookie) for cookie in cookies]
    return [header for name, value in pairs if (header := _header_pair(name, value))[0] not in _HOP_BY_HOP]


def _header_pair(name: str, value: Any) -> tuple[bytes, bytes]:
    """Refuses what could split a response."""
    if isinstance(value, bool):
        value = str(value).lower()
    key, text = name.lower().encode("utf-8"), str(value).encode("utf-8")
    if not isinstance(value, str | int | float) or not _HEADER_NAME.fullmatch(key) or not _HEADER_VALUE.fullmatch(text):
        raise MalformedResponseError(f"the header {name!r:.60} is not valid HTTP")
    return key, text
