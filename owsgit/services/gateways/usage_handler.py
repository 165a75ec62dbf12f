"""Makes usage plans known to the gateways of the node, and counts what their keys use."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from owsgit.gateway.api_keys import Key, KeySpec, Plan, Quota
from owsgit.model.resource import Resource
from owsgit.model.service import Applied, Site
from owsgit.services.gateways.shared import usage_plans
from owsgit.services.gateways.usage import Usage
from owsgit.services.gateways.usage_plans import UsagePlanSpec


class UsagePlanHandler:
    """The handler of usage plans."""

    def __init__(self, site: Site) -> None:
        self._plans = usage_plans(site)
        self._usage = Usage(site.home / "usage.db")
        self._plans.counted = self._counted

    def _counted(self, key: Key) -> None:
        self._usage.changed(key.plan.name, key.name)

    async def apply(self, resource: Resource, commit: str) -> Applied:
        spec = resource.spec
        assert isinstance(spec, UsagePlanSpec)
        await asyncio.to_thread(self._usage.open)
        self._plans.put(plan_of(resource.name, spec), partial(self._usage.count, resource.name))
        count = len(spec.keys)
        return Applied(f"{count} key{'s' if count != 1 else ''}")

    async def delete(self, name: str) -> None:
        """The counts stay for a while: a plan that is taken away and brought back gives nobody more."""
        self._plans.remove(name)

    async def observe(self, resource: Resource) -> str | None:
        return None if self._plans.has(resource.name) else "the plan is not known to the gateways"

    def details(self, name: str) -> Mapping[str, Any]:
        return {"keys": len(self._plans.keys(name))}

    def usage(self, name: str) -> list[dict[str, Any]]:
        """What the keys of a plan have used on this node in this period, by their names."""
        return [_used(key) for key in sorted(self._plans.keys(name), key=lambda key: key.name)]

    async def close(self) -> None:
        await self._usage.close()


def _used(key: Key) -> dict[str, Any]:
    quota, count = key.plan.quota, key.count
    told: dict[str, Any] = {"key": key.name, "enabled": key.enabled}
    if quota is not None:
        count.turn(quota, datetime.now(UTC).timestamp())
        told |= {
            "used": count.used,
            "limit": quota.limit,
            "begin": datetime.fromtimestamp(count.begin, UTC).strftime("%Y-%m-%d"),
            "end": datetime.fromtimestamp(count.end, UTC).strftime("%Y-%m-%d"),
        }
    return told


def plan_of(name: str, spec: UsagePlanSpec) -> Plan:
    quota = spec.quota
    return Plan(
        name,
        {key: KeySpec(bytes.fromhex(about.sha256), about.enabled) for key, about in spec.keys.items()},
        frozenset((api.gateway, api.stage) for api in spec.apis),
        spec.throttle.value() if spec.throttle is not None else None,
        {(api.gateway, api.stage, route): rate.value() for api in spec.apis for route, rate in api.throttle.items()},
        Quota(quota.limit, quota.period, quota.offset) if quota is not None else None,
    )
