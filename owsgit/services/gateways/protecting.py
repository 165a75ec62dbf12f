"""The steps that protect a gateway, and the counts behind them, which outlive its deployments."""

from collections.abc import Iterator

from owsgit.gateway.api_keys import UsagePlans, asked_for_key
from owsgit.gateway.exchange import Step
from owsgit.gateway.throttle import Meters, limited, throttled, throttled_by_client
from owsgit.services.gateways.protection import ThrottleSpec
from owsgit.services.gateways.spec import GatewaySpec, RouteSpec


class Protection:
    """Of one gateway."""

    def __init__(self, name: str, plans: UsagePlans) -> None:
        self._name, self._plans = name, plans
        self._meters = Meters()

    def of_stage(self, spec: GatewaySpec, stage: str) -> list[Step]:
        return self._steps((stage, ""), spec.throttle, spec.concurrency)

    def of_route(self, stage: str, key: str, route: RouteSpec) -> list[Step]:
        return self._steps((stage, key), route.throttle, route.concurrency)

    def of_key(self, spec: GatewaySpec, stage: str, key: str) -> list[Step]:
        """Of a route that asks for an API key."""
        by_authorizer = spec.api_key_source == "AUTHORIZER"
        return [asked_for_key(self._plans, self._name, stage, key, by_authorizer=by_authorizer)]

    def _steps(self, place: tuple[str, str], throttle: ThrottleSpec | None, concurrency: int | None) -> list[Step]:
        """The client's own bucket comes first: what it is refused takes nothing from the others."""
        steps: list[Step] = []
        if throttle is not None and throttle.per_client is not None:
            steps.append(throttled_by_client(self._meters.clients(place, throttle.per_client.value())))
        if throttle is not None and (rate := throttle.value()) is not None:
            steps.append(throttled(self._meters.bucket(place, rate)))
        if concurrency is not None:
            steps.append(limited(self._meters.in_flight(place, concurrency)))
        return steps

    def forget_but(self, spec: GatewaySpec) -> None:
        """Forget what is counted for stages and routes that are gone."""
        self._meters.keep(self._places(spec))

    @staticmethod
    def _places(spec: GatewaySpec) -> Iterator[tuple[str, str]]:
        for stage in spec.stages:
            yield stage, ""
            for key in spec.routes:
                yield stage, key
