"""Parameters of Lambda's operations that change mappings, as changes of a mapping's file: from what it says to what it
is to say. On nodes, commits change mappings: there they tell what to commit.

https://docs.aws.amazon.com/lambda/latest/api/API_CreateEventSourceMapping.html and its neighbours
"""

import itertools
import re
from collections.abc import Collection, Mapping
from typing import Any

from owsgit.aws.api import ServiceError
from owsgit.model import strictjson
from owsgit.model.errors import InvalidError
from owsgit.model.names import NAME_RULE, is_name, unqualified

Document = dict[str, Any]
Parameters = Mapping[str, Any]
"""By AWS's names."""

_ARN = re.compile(r"arn:aws:lambda:[a-z0-9-]+:[0-9]{12}:function:(?P<name>.+)")
_TABLE = re.compile(r"arn:aws:dynamodb:[a-z0-9-]+:[0-9]{12}:table/(?P<name>[A-Za-z0-9_.-]+)/stream/.+")

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

TAKEN = frozenset({*_SAME, "UUID", "EventSourceArn", "FunctionName", "FilterCriteria", "DestinationConfig"})
_SAYS_NOTHING: Mapping[str, tuple[Any, ...]] = {
    "TumblingWindowInSeconds": (0,),
    "Tags": ({},),
    "KMSKeyArn": ("",),
    "MetricsConfig": ({}, {"Metrics": []}),
    "SourceAccessConfigurations": ([],),
    "Topics": ([],),
    "Queues": ([],),
}
"""Parameters without a field: the values that say what is so anyway."""


def invalid(message: str) -> ServiceError:
    return ServiceError("InvalidParameterValueException", message, fields={"Type": "User"})


def function(named: str) -> str:
    """A function's name with its qualifier, of an ARN or as it is."""
    found = _ARN.fullmatch(named)
    return found["name"] if found else named


def refuse(given: Parameters) -> None:
    """Raises ServiceError for the first parameter that would be dropped otherwise."""
    for name, value in given.items():
        if name not in TAKEN and value not in _SAYS_NOTHING.get(name, ()):
            raise invalid(f"{name} is not built in owsgit: leave it out")


def created(given: Parameters) -> Document:
    """The file of a mapping that somebody asks for. Raises ServiceError if it can be none."""
    arn = given.get("EventSourceArn", "")
    table = _TABLE.fullmatch(arn)
    if table is None:
        raise invalid(f"Unrecognized event source: {arn or 'none'}. Functions are fed from the streams of tables here.")
    if "StartingPosition" not in given:
        raise invalid("StartingPosition is missing: TRIM_HORIZON or LATEST")
    return updated({"function": "", "source": {"table": table["name"]}}, given)


def updated(document: Document, given: Parameters) -> Document:
    """By UpdateEventSourceMapping's parameters, of which CreateEventSourceMapping has the same. Raises ServiceError."""
    found = document | {field: given[name] for name, field in _SAME.items() if name in given}
    if "FunctionName" in given:
        found["function"] = function(given["FunctionName"])
    if "FilterCriteria" in given:
        _set(found, "filters", _patterns(given["FilterCriteria"].get("Filters", [])))
    if "DestinationConfig" in given:
        _set(found, "onFailure", _destination(given["DestinationConfig"]))
    return found


def _set(document: Document, field: str, value: Any) -> None:
    """What is empty is not said."""
    if value:
        document[field] = value
    else:
        document.pop(field, None)


def _patterns(filters: list[Mapping[str, str]]) -> list[Any]:
    try:
        return [strictjson.loads(each.get("Pattern", "").encode(), "FilterCriteria") for each in filters]
    except InvalidError:
        raise invalid("Invalid filter pattern definition.") from None


def _destination(given: Mapping[str, Mapping[str, str]]) -> Document:
    if given.get("OnSuccess"):
        raise invalid("DestinationConfig: a mapping has no OnSuccess: leave it out")
    arn = given.get("OnFailure", {}).get("Destination", "")
    return {"function": function(arn)} if arn else {}


def name_for(document: Document, taken: Collection[str]) -> str:
    """What a new mapping may be called: as its function is, or by the table as well. Raises ServiceError."""
    named, table = unqualified(document["function"]), document["source"]["table"]
    if not is_name(named):  # no name that begins with it would be one
        raise invalid(f"FunctionName: {named!r:.100} is not the name of a function: use {NAME_RULE}")
    wanted = itertools.chain((named, f"{named}-{table}"), map(f"{named[:50]}-{{}}".format, itertools.count(2)))
    return next(each for each in wanted if is_name(each) and each not in taken)
