"""The spec of an API gateway: `gateways/<name>.json`."""

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from owsgit.gateway.table import parse_key
from owsgit.model.core import Port
from owsgit.model.spec import Claim, Document, Name, Reference, Suspendable
from owsgit.model.strictjson import join

ROUTES_MAX = 10_000


def _route_key(text: str) -> str:
    parse_key(text)
    return text


class RouteSpec(Document):
    """Where the requests of a route go."""

    function: Name = Field(description="The function that answers.")
    payload_format_version: Literal["1.0", "2.0"] = Field(
        "2.0", description="Format of event and answer: 1.0 as of REST APIs, 2.0 as of HTTP APIs."
    )
    timeout: int = Field(29, ge=1, le=900, description="Seconds after which the client gets an error.")


class GatewaySpec(Suspendable):
    """An HTTP API: a port of its own on every node, and the routes behind it."""

    description: str | None = Field(None, max_length=1024, description="What the API is for.")
    port: Port = Field(description="TCP port on which every node serves this API.")
    routes: dict[Annotated[str, AfterValidator(_route_key)], RouteSpec] = Field(
        max_length=ROUTES_MAX,
        description="By route key: 'METHOD /path' with {parameter} and {parameter+}, 'ANY /path', or '$default'.",
    )

    @model_validator(mode="after")
    def _routes_differ(self) -> Self:
        seen: dict[object, str] = {}
        for text in self.routes:
            other = seen.setdefault((parse_key(text).shape, text == "$default"), text)
            if other != text:
                raise ValueError(f"the routes {other!r} and {text!r} match the same requests: remove one")
        return self

    def references(self) -> Iterator[Reference]:
        for key, route in self.routes.items():
            yield Reference("function", route.function, join(join("$.routes", key), "function"))

    def claims(self) -> Iterator[Claim]:
        yield Claim("port", str(self.port), "$.port")
