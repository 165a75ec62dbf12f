"""Operations that change what tables there are, as changes of a table's file: from what it says to what it is to say.

Documents are as they lie in the file. ServiceErrors are DynamoDB's own; what a file cannot say is told by whoever
checks it. https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_UpdateTable.html and its neighbours
"""

from collections.abc import Mapping
from typing import Any

from owsgit.aws.api import ServiceError
from owsgit.services.tables.spec import TableSpec

Document = dict[str, Any]

NOT_HERE = frozenset({"OnDemandThroughput", "WarmThroughput"})
"""Members of indexes that a file does not have."""

_REPLACED = ("billing_mode", "deletion_protection_enabled", "provisioned_throughput", "stream_specification")
"""Parameters of UpdateTable that stand in the file as they are given."""


def created(given: Mapping[str, Any]) -> Document:
    """The file of a table, from CreateTable's parameters as boto3 calls them."""
    return {_lower(name): camel(value) for name, value in given.items() if name in TableSpec.model_fields}


def updated(document: Document, given: Mapping[str, Any]) -> Document:
    """By UpdateTable's parameters. Raises ServiceError."""
    found = {**document, **{_lower(name): camel(given[name]) for name in _REPLACED if name in given}}
    if found.get("streamSpecification", {}).get("streamEnabled") is False:
        del found["streamSpecification"]
    found["attributeDefinitions"] = _merged(document["attributeDefinitions"], given.get("attribute_definitions", []))
    for update in given.get("global_secondary_index_updates", []):
        for verb, index in update.items():
            found["globalSecondaryIndexes"] = _indexes(found.get("globalSecondaryIndexes", []), verb, camel(index))
    if not found.get("globalSecondaryIndexes", True):
        del found["globalSecondaryIndexes"]
    used = {element["attributeName"] for element in found["keySchema"]}
    for field in ("globalSecondaryIndexes", "localSecondaryIndexes"):
        used |= {element["attributeName"] for index in found.get(field, []) for element in index["keySchema"]}
    found["attributeDefinitions"] = [each for each in found["attributeDefinitions"] if each["attributeName"] in used]
    return found


def _merged(known: list[Document], given: list[Mapping[str, Any]]) -> list[Document]:
    new = {each["AttributeName"]: camel(each) for each in given}
    kept = [new.pop(each["attributeName"], each) for each in known]
    return [*kept, *new.values()]


def _indexes(known: list[Document], verb: str, given: Document) -> list[Document]:
    name = given["indexName"]
    others = [index for index in known if index["indexName"] != name]
    if verb == "Create":
        if len(others) < len(known):
            raise _invalid(f"Attempting to create an index which already exists: {name}")
        return [*known, given]
    if len(others) == len(known):
        raise ServiceError("ResourceNotFoundException", "Requested resource not found")
    if verb == "Delete":
        return others
    return [{**index, **given} if index["indexName"] == name else index for index in known]


def timed(document: Document, attribute: str, *, enabled: bool) -> Document:
    """By UpdateTimeToLive. Raises ServiceError."""
    now = document.get("timeToLive")
    if (now is not None and now.get("enabled", True)) == enabled:
        raise _invalid(f"TimeToLive is already {'enabled' if enabled else 'disabled'}")
    if enabled:
        return {**document, "timeToLive": {"attributeName": attribute}}
    return {name: value for name, value in document.items() if name != "timeToLive"}


def tagged(document: Document, tags: list[dict[str, str]], removed: list[str]) -> Document:
    """By TagResource and UntagResource."""
    found = {tag["key"]: tag["value"] for tag in document.get("tags", []) if tag["key"] not in removed}
    found |= {tag["Key"]: tag["Value"] for tag in tags}
    return {**document, "tags": [{"key": key, "value": value} for key, value in found.items()]}


def _invalid(message: str) -> ServiceError:
    return ServiceError("ValidationException", message)


def camel(value: Any) -> Any:
    """AWS's parameters, as a file has them."""
    if isinstance(value, dict):
        return {_lower(name): camel(each) for name, each in value.items() if name not in NOT_HERE}
    return [camel(each) for each in value] if isinstance(value, list) else value


def _lower(name: str) -> str:
    """Of a parameter as boto3 would call it, or of a member as AWS does."""
    first, *rest = name.split("_")
    return first[0].lower() + first[1:] + "".join(part.title() for part in rest)
