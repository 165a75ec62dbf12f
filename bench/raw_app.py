"""The baselines that bench.gateway serves: a bare ASGI hello for uvicorn, a Flask hello for gunicorn."""

from typing import Any

from flask import Flask

HELLO = b'{"hello": "world"}'
_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"content-length", b"18")],
}
_BODY = {"type": "http.response.body", "body": HELLO}


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send(_START)
    await send(_BODY)


flask = Flask(__name__)


@flask.get("/")
def root() -> tuple[bytes, dict[str, str]]:
    return HELLO, {"content-type": "application/json"}
