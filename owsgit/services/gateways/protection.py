"""What protects a gateway: throttling, requests in flight, limits.

https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-request-throttling.html
"""

from typing import Annotated, Self

from pydantic import Field, model_validator

from owsgit.gateway.limits import (
    BODY_BYTES_MAX,
    BODY_SECONDS_MAX,
    BYTES_PER_SECOND_MIN,
    CONNECTIONS_MAX,
    HEAD_BYTES_MAX,
    HEAD_BYTES_SMALL,
    HEAD_SECONDS_MAX,
    Limits,
    Rate,
)
from owsgit.model.spec import Document

MEBIBYTE = 1024 * 1024
RATE_MIN, RATE_MAX = 0.001, 1_000_000
BURST_MAX = 1_000_000

RatePerSecond = Annotated[float, Field(ge=RATE_MIN, le=RATE_MAX)]
Burst = Annotated[int, Field(ge=1, le=BURST_MAX)]
InFlightMax = Annotated[int, Field(ge=1, le=100_000)]


class RateSpec(Document):
    """How often something may be asked for: a token bucket. Each node counts by itself."""

    rate: RatePerSecond = Field(description="Requests a second in the long run (rateLimit).")
    burst: Burst = Field(description="Requests at once (burstLimit): the size of the token bucket.")

    def value(self) -> Rate:
        return Rate(self.rate, self.burst)


class ThrottleSpec(Document):
    """How often something may be asked for, by all clients together and by each. Each node counts by itself."""

    rate: RatePerSecond | None = Field(None, description="Requests a second in the long run (rateLimit).")
    burst: Burst | None = Field(None, description="Requests at once (burstLimit): the size of the token bucket.")
    per_client: RateSpec | None = Field(
        None, description="The same for each client: an IPv4 address, or a /64 of IPv6."
    )

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if (self.rate is None) != (self.burst is None):
            raise ValueError("rate and burst belong together: give both, or neither")
        if self.rate is None and self.per_client is None:
            raise ValueError("nothing is throttled: give rate and burst, or perClient, or take throttle out")
        return self

    def value(self) -> Rate | None:
        """Of all clients together."""
        return Rate(self.rate, self.burst) if self.rate is not None and self.burst is not None else None


class LimitsSpec(Document):
    """What is taken from a client. Of gateways that share a port, the most generous counts in what is of the port:
    headSeconds, connections, connectionsPerClient."""

    body_bytes: int = Field(
        BODY_BYTES_MAX, ge=1, le=100 * MEBIBYTE, description="Bytes of a request's body; beyond them, 413."
    )
    head_bytes: int = Field(
        HEAD_BYTES_MAX,
        ge=HEAD_BYTES_SMALL,
        le=MEBIBYTE,
        description="Bytes of a request's line and headers; beyond them, 431. API Gateway takes 10,240.",
    )
    head_seconds: float = Field(
        HEAD_SECONDS_MAX, ge=1, le=300, description="Seconds in which a request's line and headers have to be there."
    )
    body_seconds: float = Field(
        BODY_SECONDS_MAX, ge=1, le=900, description="Seconds in which a body has to be there, or else 408; and ..."
    )
    min_bytes_per_second: int = Field(
        BYTES_PER_SECOND_MIN,
        ge=1,
        le=MEBIBYTE,
        description="... so much more as what came of it takes at this rate. Who reads a response slower is cut off.",
    )
    connections: int = Field(
        CONNECTIONS_MAX, ge=1, le=100_000, description="Connections of the port at once; more get 503."
    )
    connections_per_client: int | None = Field(
        None, ge=1, le=100_000, description="Connections of each client (an IPv4 address, a /64 of IPv6) at once."
    )

    def value(self, sockets: int = 0) -> Limits:
        """With room for so many WebSockets."""
        connections = self.connections + sockets
        return Limits(
            body_bytes=self.body_bytes,
            head_bytes=self.head_bytes,
            head_seconds=self.head_seconds,
            body_seconds=self.body_seconds,
            bytes_per_second=self.min_bytes_per_second,
            connections=connections,
            connections_per_client=self.connections_per_client or connections,
        )
