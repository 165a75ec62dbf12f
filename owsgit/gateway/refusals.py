"""What the gateway itself answers when a request goes no further, in API Gateway's words."""

import orjson

from owsgit.gateway.exchange import RefusedError, Response

JSON = (b"content-type", b"application/json")


def response(refusal: RefusedError) -> Response:
    return Response(refusal.status, [JSON, *refusal.headers], orjson.dumps({refusal.field: refusal.message}))
