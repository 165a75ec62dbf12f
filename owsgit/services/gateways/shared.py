"""What the handlers of gateways and of usage plans have in common on one node."""

from typing import cast

from owsgit.gateway.api_keys import UsagePlans
from owsgit.model.service import Site

USAGE_PLANS = "usageplans"


def usage_plans(site: Site) -> UsagePlans:
    """The plans of a node: kept by the one, asked by the other."""
    return cast(UsagePlans, site.shared.setdefault(USAGE_PLANS, UsagePlans()))
