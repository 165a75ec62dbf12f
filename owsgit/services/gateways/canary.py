"""Canary releases of routes: what is said of one in a gateway's file."""

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from owsgit.model.spec import Document, PlacedError
from owsgit.services.gateways.stages import resolved

if TYPE_CHECKING:
    from owsgit.services.gateways.spec import RouteSpec

HEADERS_MAX = 10

HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]+$", max_length=100)]
HeaderValue = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class CanarySpec(Document):
    """Another version that a part of a route's requests goes to."""

    function: Annotated[
        str, StringConstraints(pattern=r"^[A-Za-z0-9._${}-]+([:@][A-Za-z0-9._${}-]+)?$", max_length=256)
    ] = Field(description="The function of the canary: f, f:alias or f@commit, older or newer than the route's own.")
    percent_traffic: float = Field(0.0, ge=0, le=100, description="Share of the requests that it gets, in percent.")
    headers: dict[HeaderName, HeaderValue] = Field(
        default_factory=dict,
        max_length=HEADERS_MAX,
        description="Requests with one of these headers go to it in any case; * in a value stands for any characters.",
    )

    @model_validator(mode="after")
    def _gets_something(self) -> Self:
        if not self.percent_traffic and not self.headers:
            raise ValueError("this canary gets no request: set percentTraffic or headers")
        return self

    def patterns(self) -> list[tuple[bytes, "re.Pattern[bytes]"]]:
        """The headers, as they are compared."""
        return [
            (name.lower().encode(), re.compile(re.escape(value.encode()).replace(rb"\*", rb".*"), re.DOTALL))
            for name, value in self.headers.items()
        ]


def check_canary(key: str, route: "RouteSpec", stages: Iterable[Mapping[str, str]]) -> None:
    """Raises PlacedError if the canary is the route's own version in every stage, whose variables are given."""
    if route.canary is None or route.function is None:
        return
    main, other = route.function, route.canary.function
    if all(resolved(main, variables) == resolved(other, variables) for variables in stages):
        words = f"route {key!r}: the canary is {other!r}, and so is the function: name another version, or remove it"
        raise PlacedError(words, "routes", key, "canary", "function")
