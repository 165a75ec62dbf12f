"""REST and HTTP APIs (Amazon API Gateway): what a gateway is, and how it is made to listen."""

from types import MappingProxyType

from owsgit.model.resource import Actions, FieldActions, Kind
from owsgit.model.service import Service
from owsgit.services.gateways.spec import GatewaySpec
from owsgit.services.gateways.usage_plans import UsagePlanSpec

USAGE_ACTION = "apigateway:GET"
"""Guards what the keys of a usage plan have used: owsgit gateway usage. On the plan."""

KIND = Kind(
    "gateway",
    "gateways",
    GatewaySpec,
    "arn:aws:apigateway:{region}::/apis/{name}",
    Actions(
        create="apigateway:POST",
        update="apigateway:PATCH",
        delete="apigateway:DELETE",
        fields=MappingProxyType(
            {"policy": FieldActions("apigateway:UpdateRestApiPolicy", "apigateway:UpdateRestApiPolicy")}
        ),
    ),
    principal="apigateway.amazonaws.com",
    calls=("execute-api:Invoke",),
    calls_arn="arn:aws:execute-api:{region}:{account}:{name}/",
    condition_keys=MappingProxyType(
        {
            "apigateway:Port": lambda spec: [str(spec.port)],
            "apigateway:Request/RouteKey": lambda spec: list(spec.routes),
        }
    ),
)

USAGE_PLAN = Kind(
    "usageplan",
    "usageplans",
    UsagePlanSpec,
    "arn:aws:apigateway:{region}::/usageplans/{name}",
    Actions(create="apigateway:POST", update="apigateway:PATCH", delete="apigateway:DELETE"),
    calls=(USAGE_ACTION,),
)

SERVICE = Service(KIND, "owsgit.services.gateways.handler:GatewayHandler")
USAGE_PLANS = Service(USAGE_PLAN, "owsgit.services.gateways.usage_handler:UsagePlanHandler")
