"""REST and HTTP APIs (Amazon API Gateway): what a gateway is, and how it is made to listen."""

from types import MappingProxyType

from owsgit.model.resource import Actions, FieldActions, Kind
from owsgit.model.service import Service
from owsgit.services.gateways.spec import GatewaySpec

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

SERVICE = Service(KIND, "owsgit.services.gateways.handler:GatewayHandler")
