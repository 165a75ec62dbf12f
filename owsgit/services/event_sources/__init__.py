"""Event source mappings (AWS Lambda): from which source, such as a table's stream, a function gets records."""

from types import MappingProxyType

from owsgit.model.names import unqualified
from owsgit.model.resource import Actions, Kind
from owsgit.model.service import Service
from owsgit.services.event_sources.spec import EventSourceSpec

FUNCTION_ARN = "arn:aws:lambda:{region}:{account}:function:{name}"

KIND = Kind(
    "event-source",
    "event-sources",
    EventSourceSpec,
    "arn:aws:lambda:{region}:{account}:event-source-mapping:{name}",
    Actions(
        create="lambda:CreateEventSourceMapping",
        update="lambda:UpdateEventSourceMapping",
        delete="lambda:DeleteEventSourceMapping",
    ),
    principal="lambda.amazonaws.com",
    calls=("lambda:GetEventSourceMapping", "lambda:ListEventSourceMappings"),
    condition_arns=MappingProxyType({"lambda:FunctionArn": (FUNCTION_ARN, lambda spec: unqualified(spec.function))}),
)

SERVICE = Service(KIND, "owsgit.services.event_sources.handler:EventSourceHandler")
