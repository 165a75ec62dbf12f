"""Bodies that are not text, in the payload formats."""

import base64
import json

import pytest

from owsgit.gateway.exchange import Handler, Mount
from owsgit.gateway.functions import FunctionIntegration
from tests.gateway.served import Echo, Served

PNG = b"\x89PNG\xff"


def serve(gateway: Served, *types: str) -> None:
    target = Echo()
    routes: list[tuple[str, Handler]] = [
        (f"POST /{name}/{version}", FunctionIntegration(target, name, version, 5.0))
        for name in ("echo", "say")
        for version in ("1.0", "2.0")
    ]
    gateway.handle(routes, mount=Mount("api", "1", binary_media_types=frozenset(types)))


@pytest.mark.parametrize(
    ("types", "version", "kind", "body", "encoded"),
    [
        ([], "1.0", "image/png", PNG, True),
        ([], "1.0", "application/json", b"{}", False),
        ([], "1.0", "application/octet-stream", b"text", True),
        ([], "1.0", "application/x-www-form-urlencoded", b"a=b", False),
        ([], "2.0", "application/x-www-form-urlencoded", b"a=b", True),
        ([], "1.0", "", b"{}", False),
        ([], "1.0", "", PNG, True),
        ([], "2.0", "", b"{}", True),
        ([], "2.0", "application/problem+json", b"{}", False),
        (["image/png"], "1.0", "image/png", PNG, True),
        (["image/png"], "1.0", "IMAGE/PNG; a=b", b"text", True),
        (["image/*"], "1.0", "image/gif", b"text", True),
        (["image/png"], "1.0", "application/octet-stream", b"text", False),
        (["image/png"], "1.0", "application/octet-stream", PNG, True),  # no text: AWS would damage it
        (["*/*"], "1.0", "application/json", b"{}", True),
        (["*/*"], "2.0", "application/json", b"{}", False),
        (["image/png"], "2.0", "application/octet-stream", b"text", True),
    ],
)
def test_binary_requests(
    gateway: Served, types: list[str], version: str, kind: str, body: bytes, encoded: bool
) -> None:
    serve(gateway, *types)
    event = gateway.client.post(
        f"/echo/{version}", content=body, headers={"content-type": kind, "accept": "*/*"}
    ).json()
    assert event["isBase64Encoded"] is encoded
    assert (base64.b64decode(event["body"]) if encoded else event["body"].encode()) == body


@pytest.mark.parametrize(
    ("types", "version", "accepted", "decoded"),
    [
        ([], "1.0", "text/html", True),
        (["image/png"], "1.0", "image/png", True),
        (["image/png"], "1.0", "image/png;q=0.9, text/html", True),
        (["image/png"], "1.0", "text/html, image/png", False),
        (["image/*"], "1.0", "image/webp", True),
        (["image/png"], "1.0", "*/*", False),
        (["image/png"], "2.0", "text/html", True),
    ],
)
def test_binary_responses(gateway: Served, types: list[str], version: str, accepted: str, decoded: bool) -> None:
    serve(gateway, *types)
    text = base64.b64encode(PNG).decode()
    answer = {"statusCode": 200, "headers": {"content-type": "image/png"}, "body": text, "isBase64Encoded": True}
    headers = {"content-type": "text/plain", "accept": accepted}
    found = gateway.client.post(f"/say/{version}", content=json.dumps(answer), headers=headers)
    assert found.content == (PNG if decoded else text.encode())


def test_headers_and_multi_value_headers_are_merged(gateway: Served) -> None:
    serve(gateway)
    answer = {
        "statusCode": 200,
        "headers": {"X-A": "1", "X-B": "b", "X-C": 3},
        "multiValueHeaders": {"x-a": ["1", "2"], "x-c": ["4"]},
        "body": "",
    }
    found = gateway.client.post("/say/1.0", content=json.dumps(answer), headers={"content-type": "text/plain"})
    assert found.headers.get_list("x-a") == ["1", "2"] and found.headers["x-b"] == "b"
    assert sorted(found.headers.get_list("x-c")) == ["3", "4"]
