"""The spec of a usage plan: `usageplans/<name>.json`.

https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-api-usage-plans.html
"""

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from owsgit.gateway.table import parse_key
from owsgit.model.spec import Claim, Document, Name, PlacedError, Reference, Suspendable
from owsgit.model.strictjson import join
from owsgit.services.gateways.protection import RateSpec
from owsgit.services.gateways.stages import StageName

APIS_MAX = 100
KEYS_MAX = 5_000
"""As many as fit into a JSON file of the ledger."""

ROUTES_MAX = 300
KEY_CHARACTERS = 40
"""As many as API Gateway's own keys have."""

STAGE_NEED, ROUTE_NEED = "stage:", "route:"
"""What a plan needs of a gateway (Spec.lacks)."""

DAYS_MAX = {"DAY": 0, "WEEK": 6, "MONTH": 27}
"""The largest offset of each period."""


def _route_key(text: str) -> str:
    parse_key(text)
    return text


class PlanApi(Document):
    """A stage of a gateway that the plan's keys are good for."""

    gateway: Name = Field(description="The gateway (apiId).")
    stage: StageName = Field("$default", description="Its stage.")
    throttle: dict[Annotated[str, AfterValidator(_route_key)], RateSpec] = Field(
        default_factory=dict,
        max_length=ROUTES_MAX,
        description="For each key, by route key, in place of what the plan says.",
    )


class QuotaSpec(Document):
    """How many requests each key has. Each node counts those that it answers."""

    limit: int = Field(ge=1, le=1_000_000_000_000, description="Requests in each period.")
    period: Literal["DAY", "WEEK", "MONTH"] = Field(description="Periods begin at midnight, UTC.")
    offset: int = Field(
        0, ge=0, description="The day on which a WEEK (0 to 6, 0 is Sunday) or a MONTH (0 to 27, 0 is the 1st) begins."
    )

    @model_validator(mode="after")
    def _offset_is_in_the_period(self) -> Self:
        if self.offset > (most := DAYS_MAX[self.period]):
            raise ValueError(f"the offset of a {self.period} is {f'0 to {most}' if most else '0'}, not {self.offset}")
        return self


class KeySpec(Document):
    """An API key: never itself, only its hash."""

    sha256: str = Field(
        pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the key, as 'owsgit gateway key PLAN NAME' writes it."
    )
    enabled: bool = Field(True, description="Whether it is good.")
    description: str | None = Field(None, max_length=256, description="Whose it is.")


class UsagePlanSpec(Suspendable):
    """Who may call routes that ask for an API key, how fast and how often."""

    description: str | None = Field(None, max_length=1024, description="Whom the plan is for.")
    apis: list[PlanApi] = Field(
        default_factory=list, max_length=APIS_MAX, description="What its keys are good for (apiStages)."
    )
    throttle: RateSpec | None = Field(None, description="How fast each key may call. Each node counts by itself.")
    quota: QuotaSpec | None = Field(None, description="How often each key may call.")
    keys: dict[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$")], KeySpec] = Field(
        default_factory=dict, max_length=KEYS_MAX, description="Its API keys, by whose they are."
    )

    @model_validator(mode="after")
    def _said_once(self) -> Self:
        seen: set[tuple[str, str]] = set()
        for index, api in enumerate(self.apis):
            if (api.gateway, api.stage) in seen:
                words = f"apis[{index}] names the stage {api.stage} of {api.gateway} again: remove one"
                raise PlacedError(words, "apis", index)
            seen.add((api.gateway, api.stage))
        hashes: dict[str, str] = {}
        for name, key in self.keys.items():
            other = hashes.setdefault(key.sha256, name)
            if other != name:
                raise PlacedError(f"the keys {other!r} and {name!r} are the same: make one anew", "keys", name)
        return self

    def references(self) -> Iterator[Reference]:
        for index, api in enumerate(self.apis):
            path = f"$.apis[{index}]"
            yield Reference("gateway", api.gateway, f"{path}.gateway", orders=False)
            yield Reference("gateway", api.gateway, f"{path}.stage", orders=False, need=STAGE_NEED + api.stage)
            for route in api.throttle:
                place = join(f"{path}.throttle", route)
                yield Reference("gateway", api.gateway, place, orders=False, need=ROUTE_NEED + route)

    def claims(self) -> Iterator[Claim]:
        for name, key in self.keys.items():
            yield Claim("API key", key.sha256, join("$.keys", name) + ".sha256")
