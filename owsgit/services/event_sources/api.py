"""The operations of Lambda's API about event source mappings: reading; what would change one names the file to commit.

https://docs.aws.amazon.com/lambda/latest/dg/invocation-eventsourcemapping.html
"""

import base64
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

import orjson

from owsgit.aws.api import Caller, Need, ServiceError
from owsgit.model.names import is_name, unqualified
from owsgit.model.resource import Resource
from owsgit.model.service import Site
from owsgit.services.event_sources import FUNCTION_ARN, KIND
from owsgit.services.event_sources.spec import EventSourceSpec

PAGE_MAX = 100
"""Lambda's, of ListEventSourceMappings."""

_WRITES = {
    "CreateEventSourceMapping": "Write",
    "UpdateEventSourceMapping": "Change",
    "DeleteEventSourceMapping": "Delete",
}
"""What is done with the file instead."""

_ARN = re.compile(r"arn:aws:lambda:[a-z0-9-]+:[0-9]{12}:function:(?P<name>.+)")
_TABLE = re.compile(r"arn:aws:dynamodb:[a-z0-9-]+:[0-9]{12}:table/(?P<name>[A-Za-z0-9_.-]+)/stream/.+")


class Mappings(Protocol):
    """What the API asks of the handler of mappings."""

    def mapping(self, uuid: str) -> Resource | None: ...

    def home(self, name: str) -> str | None: ...

    def described(self, name: str) -> dict[str, Any]: ...

    async def listed(self) -> dict[str, dict[str, Any]]: ...


class EventSources:
    """The operations."""

    service = "lambda"

    def __init__(self, site: Site, mappings: Mappings) -> None:
        self._site, self._mappings = site, mappings

    def needs(self, operation: str, parameters: Mapping[str, Any]) -> Iterable[Need]:
        if operation in _WRITES:  # nothing is done, whoever asks: there is nothing to allow
            raise self._refusal(operation, parameters)
        if operation == "ListEventSourceMappings":
            return (Need("lambda:ListEventSourceMappings", "*"),)
        scope, resource = self._site.scope(), self._mappings.mapping(parameters["UUID"])
        if resource is None:
            return (Need(f"lambda:{operation}", scope.arn(KIND.arn, parameters["UUID"])),)
        assert isinstance(resource.spec, EventSourceSpec)
        context = {"lambda:FunctionArn": scope.arn(FUNCTION_ARN, unqualified(resource.spec.function))}
        return (Need(f"lambda:{operation}", resource.arn(scope), context),)

    def home(self, operation: str, parameters: Mapping[str, Any]) -> str | None:
        resource = self._mappings.mapping(parameters.get("UUID", ""))
        return self._mappings.home(resource.name) if resource is not None else None

    async def get_event_source_mapping(self, caller: Caller, *, uuid: str) -> dict[str, Any]:
        resource = self._mappings.mapping(uuid)
        if resource is None:
            raise ServiceError(
                "ResourceNotFoundException",
                "The resource you requested does not exist.",
                status=404,
                fields={"Type": "User"},
            )
        return _output(self._mappings.described(resource.name))

    async def list_event_source_mappings(
        self,
        caller: Caller,
        *,
        event_source_arn: str | None = None,
        function_name: str | None = None,
        marker: str = "",
        max_items: int = PAGE_MAX,
    ) -> dict[str, Any]:
        """By name, a page at a time."""
        after = _marked(marker)
        function = _function(function_name) if function_name is not None else None
        left = [
            (name, each)
            for name, each in (await self._mappings.listed()).items()
            if name > after
            and (event_source_arn is None or each["EventSourceArn"] == event_source_arn)
            and (function is None or _function(each["FunctionArn"]) == function)
        ]
        most = min(max(max_items, 1), PAGE_MAX)
        page: dict[str, Any] = {"EventSourceMappings": [_output(each) for _, each in left[:most]]}
        if len(left) > most:
            page["NextMarker"] = base64.urlsafe_b64encode(left[most - 1][0].encode()).decode()
        return page

    def _refusal(self, operation: str, given: Mapping[str, Any]) -> ServiceError:
        """What to commit instead; of a new mapping, whole."""
        resource = self._mappings.mapping(given.get("UUID", ""))
        name, text = resource.name if resource is not None else "NAME", ""
        if operation == "CreateEventSourceMapping":
            document = _document(given)
            function = unqualified(document["function"])
            name = function if is_name(function) else name
            text = ":\n" + orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()
        return _invalid(
            f"{operation} changes nothing here: event source mappings are made by signed commits. "
            f"{_WRITES[operation]} {KIND.file(name)}, commit, and push it{text}"
        )

    async def _refused(self, caller: Caller, **parameters: Any) -> None:
        raise AssertionError("refused by what it needs")

    create_event_source_mapping = update_event_source_mapping = delete_event_source_mapping = _refused


def _output(described: Mapping[str, Any]) -> dict[str, Any]:
    return {**described, "LastModified": datetime.fromtimestamp(described["LastModified"], UTC)}


def _function(named: str) -> str:
    """A function's name with its qualifier, of an ARN or as it is."""
    found = _ARN.fullmatch(named)
    return found["name"] if found else named


def _marked(marker: str) -> str:
    """After which name a page begins. Raises ServiceError."""
    try:
        name = base64.b64decode(marker[:1024], altchars=b"-_", validate=True).decode("ascii")
    except ValueError:
        name = "?"
    if name and not is_name(name):
        raise _invalid("Invalid Marker: it has to be the NextMarker of an earlier answer")
    return name


def _invalid(message: str) -> ServiceError:
    return ServiceError("InvalidParameterValueException", message, fields={"Type": "User"})


_SAME = {
    "StartingPosition": "startingPosition",
    "Enabled": "enabled",
    "BatchSize": "batchSize",
    "MaximumBatchingWindowInSeconds": "maximumBatchingWindow",
    "ParallelizationFactor": "parallelizationFactor",
    "MaximumRetryAttempts": "maximumRetryAttempts",
    "MaximumRecordAgeInSeconds": "maximumRecordAge",
    "BisectBatchOnFunctionError": "bisectBatchOnFunctionError",
    "FunctionResponseTypes": "functionResponseTypes",
}
"""Parameters that are fields of the file."""


def _document(given: Mapping[str, Any]) -> dict[str, Any]:
    """The file of a mapping that somebody asks for. Raises ServiceError if it can be none."""
    arn = given.get("EventSourceArn", "")
    table = _TABLE.fullmatch(arn)
    if table is None:
        raise _invalid(
            f"Unrecognized event source: {arn or 'none'}. Functions are fed from the streams of tables here."
        )
    found: dict[str, Any] = {
        "function": _function(given["FunctionName"]),
        "source": {"table": table["name"]},
        "startingPosition": "LATEST",
    }
    found |= {field: given[name] for name, field in _SAME.items() if name in given}
    patterns = []
    for each in given.get("FilterCriteria", {}).get("Filters", ()):
        try:
            patterns.append(orjson.loads(each.get("Pattern", "")))
        except orjson.JSONDecodeError:
            raise _invalid("Invalid filter pattern definition.") from None
    if patterns:
        found["filters"] = patterns
    destination = given.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination")
    if destination:
        found["onFailure"] = {"function": _function(destination)}
    return found
