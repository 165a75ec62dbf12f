"""What callers need to be allowed, for each operation: actions on ARNs of tables and indexes, with condition keys.

https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazondynamodb.html and
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/specifying-conditions.html
"""

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from owsgit.aws.api import Need, ServiceError
from owsgit.model.iam.context import Later
from owsgit.services.tables import legacy
from owsgit.services.tables.catalog import Catalog, Table
from owsgit.services.tables.expressions import Placeholders, condition, keycondition, projection, update
from owsgit.services.tables.keys import KeySchema
from owsgit.services.tables.partiql import binding, grammar
from owsgit.services.tables.partiql.statements import Change, Delete, Exists, Insert, Select
from owsgit.services.tables.values import Item

Given = Mapping[str, Any]
Keys = dict[str, str | tuple[str, ...]]

TRANSACTED = {
    "ConditionCheck": "ConditionCheckItem",
    "Put": "PutItem",
    "Update": "UpdateItem",
    "Delete": "DeleteItem",
    "Get": "GetItem",
}
"""Which operation's action an action of a transaction needs."""

STATEMENTS = {
    "ExecuteStatement": "",
    "BatchExecuteStatement": "Statements",
    "ExecuteTransaction": "TransactStatements",
}
"""Operations by statements, and which parameter has them, where there are several."""

_OF_ONE = frozenset({"GetItem", "PutItem", "UpdateItem", "DeleteItem", "Query", "Scan"})
"""Operations that name one table: most of what is asked."""

_NO_MORE: Mapping[str, str] = {}
NOT_OF_TABLES = frozenset({"ListTables", "DescribeLimits", "DescribeEndpoints"})


def needs(catalog: Catalog, operation: str, given: Given) -> Iterable[Need]:
    if operation in _OF_ONE:
        return (_need(catalog, operation, given["TableName"], given, _NO_MORE),)
    return _needs(catalog, operation, given)


def _needs(catalog: Catalog, operation: str, given: Given) -> Iterator[Need]:
    match operation:
        case "BatchGetItem" | "BatchWriteItem":
            for name, request in given["RequestItems"].items():
                yield _batch(catalog, operation, name, request)
        case "TransactGetItems" | "TransactWriteItems":
            for each in given["TransactItems"]:
                for action, request in each.items():
                    if action in TRANSACTED:
                        enclosing = {"dynamodb:EnclosingOperation": operation}
                        yield _need(catalog, TRANSACTED[action], request["TableName"], request, enclosing)
        case _ if operation in STATEMENTS:
            for each in _statements(operation, given):
                yield from _statement(catalog, operation, each)
        case _ if operation in NOT_OF_TABLES:
            yield Need(f"dynamodb:{operation}", "*")
        case _:
            yield _need(catalog, operation, given.get("TableName") or given.get("ResourceArn") or "", given, _NO_MORE)


def tables(operation: str, given: Given) -> Iterator[str]:
    """What an operation calls the tables that it is about."""
    if operation in ("BatchGetItem", "BatchWriteItem"):
        yield from given["RequestItems"]
    elif operation in ("TransactGetItems", "TransactWriteItems"):
        for each in given["TransactItems"]:
            yield from (request["TableName"] for action, request in each.items() if action in TRANSACTED)
    elif operation in STATEMENTS:
        for each in _statements(operation, given):
            with suppress(ServiceError):
                yield grammar.read(each["Statement"]).statement.source.table
    elif "TableName" in given:
        yield given["TableName"]
    elif "ResourceArn" in given:
        yield given["ResourceArn"]


def _statements(operation: str, given: Given) -> list[Given]:
    several = STATEMENTS[operation]
    return given[several] if several else [given]


def _statement(catalog: Catalog, operation: str, given: Given) -> Iterator[Need]:
    """Of one statement: none if it cannot be read, which is refused later and does nothing before."""
    try:
        statement = grammar.read(given["Statement"]).statement
    except ServiceError:
        return
    source = statement.source
    arn = catalog.arn(catalog.name_of(source.table)) + (f"/index/{source.index}" if source.index is not None else "")
    keys: Keys = {}
    if operation == "ExecuteTransaction":
        keys["dynamodb:EnclosingOperation"] = operation
    if isinstance(statement, Select):
        keys["dynamodb:Select"] = _selected(statement)
    elif isinstance(statement, Change | Delete):
        keys["dynamodb:ReturnValues"] = statement.returning
    attributes, items = _of_statement(catalog.find(source.table), given)
    if attributes:
        keys["dynamodb:Attributes"] = tuple(sorted(attributes))
    schema = _schema(catalog.find(source.table), source.index)
    if schema is not None:
        keys.update(_leading(schema, items))
    if isinstance(statement, Select | Exists):
        keys["dynamodb:FullTableScan"] = "false" if items else "true"
    yield Need(f"dynamodb:{_PARTIQL[type(statement)]}", arn, keys)


def _of_statement(table: Table | None, given: Given) -> tuple[set[str], list[Item]]:
    """The attributes that it names, and the keys. What else is wrong with it is told later, too."""
    attributes: set[str] = set()
    items: list[Item] = []
    with suppress(ServiceError):
        bound = binding.bind(given["Statement"], binding.check_parameters(given.get("Parameters")))
        attributes = binding.attributes(bound)
        if table is not None:
            items = binding.named(table, bound)
    return attributes, items


def _schema(table: Table | None, index: str | None) -> KeySchema | None:
    if table is None or index is None:
        return table.schema if table is not None else None
    found = table.indexes.get(index)
    return found.schema if found is not None else None


_PARTIQL: Mapping[type, str] = {
    Select: "PartiQLSelect",
    Exists: "PartiQLSelect",
    Insert: "PartiQLInsert",
    Change: "PartiQLUpdate",
    Delete: "PartiQLDelete",
}


def _selected(select: Select) -> str:
    if select.columns is not None:
        return "SPECIFIC_ATTRIBUTES"
    return "ALL_PROJECTED_ATTRIBUTES" if select.source.index is not None else "ALL_ATTRIBUTES"


def _need(catalog: Catalog, operation: str, name: str, given: Given, more: Mapping[str, str]) -> Need:
    arn = catalog.arn(catalog.name_of(name))
    if "IndexName" in given and operation in ("Query", "Scan"):
        arn += f"/index/{given['IndexName']}"
    return Need(f"dynamodb:{operation}", arn, Later(lambda: _keys(catalog.find(name), operation, given, more)))


def _keys(table: Table | None, operation: str, given: Given, more: Mapping[str, str]) -> Keys:
    """The condition keys of a request for one table."""
    keys: Keys = dict(more)
    schema = table.schema if table is not None else None
    if "IndexName" in given and operation in ("Query", "Scan"):
        index = table.indexes.get(given["IndexName"]) if table is not None else None
        schema = index.schema if index is not None else None
    attributes, wanted = _named(given)
    item: Given = given.get("Item") or given.get("Key") or wanted
    if schema is not None:
        keys.update(_leading(schema, [item]))
    attributes.update(item)
    if attributes:
        keys["dynamodb:Attributes"] = tuple(sorted(attributes))
    for name_, default in _DEFAULTS.get(operation, {}).items():
        value = given.get(name_, default)
        if value:
            keys[f"dynamodb:{name_}"] = value
    if operation in ("GetItem", "Query", "Scan"):
        keys["dynamodb:Select"] = _select(given)
    if operation == "Scan":
        keys["dynamodb:FullTableScan"] = "true"
    return keys


def _select(given: Given) -> str:
    """What is read of items, also where the request does not say it: or who may see some attributes would see all."""
    if given.get("Select"):
        return str(given["Select"])
    if given.get("ProjectionExpression") or given.get("AttributesToGet"):
        return "SPECIFIC_ATTRIBUTES"
    return "ALL_PROJECTED_ATTRIBUTES" if "IndexName" in given else "ALL_ATTRIBUTES"


_DEFAULTS: Mapping[str, Mapping[str, str]] = {
    "PutItem": {"ReturnValues": "NONE", "ReturnConsumedCapacity": ""},
    "UpdateItem": {"ReturnValues": "NONE", "ReturnConsumedCapacity": ""},
    "DeleteItem": {"ReturnValues": "NONE", "ReturnConsumedCapacity": ""},
    "GetItem": {"ReturnConsumedCapacity": ""},
    "Query": {"ReturnConsumedCapacity": ""},
    "Scan": {"ReturnConsumedCapacity": ""},
}
"""Parameters that are condition keys, and what they are where they are left out."""


def _batch(catalog: Catalog, operation: str, name: str, request: Any) -> Need:
    arn = catalog.arn(catalog.name_of(name))
    return Need(f"dynamodb:{operation}", arn, Later(lambda: _batch_keys(catalog.find(name), operation, request)))


def _batch_keys(table: Table | None, operation: str, request: Any) -> Keys:
    if operation == "BatchGetItem":
        items = request["Keys"]
        more, _ = _named(request)
        select = {"dynamodb:Select": _select(request)}
    else:
        found = [each.get("PutRequest") or each.get("DeleteRequest") or {} for each in request]
        items = [each.get("Item") or each.get("Key") or {} for each in found]
        more, select = set(), {}
    keys: Keys = {**select}
    if table is not None:
        keys.update(_leading(table.schema, items))
    attributes = more | {attribute for item in items for attribute in item}
    if attributes:
        keys["dynamodb:Attributes"] = tuple(sorted(attributes))
    return keys


def _text(value: Mapping[str, Any]) -> str:
    """A key's value, as policies have it."""
    [content] = value.values() or [""]
    return base64.b64encode(content).decode() if isinstance(content, bytes) else str(content)


_LEADING = (
    "FirstPartitionKeyValues",
    "SecondPartitionKeyValues",
    "ThirdPartitionKeyValues",
    "FourthPartitionKeyValues",
)


def _leading(schema: KeySchema, items: Iterable[Given]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The values of hash keys: LeadingKeys of the first attribute, and each attribute's own key."""
    listed = list(items)
    for place, attribute in enumerate(schema.hash):
        values = [item[attribute.name] for item in listed if item.get(attribute.name)]
        told = tuple(dict.fromkeys(_text(value) for value in values if len(value) == 1))
        if told:
            if place == 0:
                yield "dynamodb:LeadingKeys", told
            yield f"dynamodb:{_LEADING[place]}", told


def _wanted(given: Given, known: Placeholders) -> Mapping[str, Given]:
    """What a query wants of keys: attributes, and the values that they equal (empty for other conditions)."""
    if "KeyConditions" in given:
        tests = legacy.key_conditions(given["KeyConditions"]).tests
        return {test.attribute: test.values[0] if test.operator == "EQ" else {} for test in tests}
    if not given.get("KeyConditionExpression"):
        return {}
    terms = keycondition.read(given["KeyConditionExpression"], known).check()
    return {name: term.values[0] if term.operator == "=" else {} for name, term in terms.items()}


_EXPRESSIONS: Mapping[str, Callable[[str, Placeholders], Any]] = {
    "ProjectionExpression": projection.parse,
    "UpdateExpression": update.parse,
    "ConditionExpression": condition.parse,
    "FilterExpression": condition.parse,
}
_LEGACIES = ("Expected", "AttributeUpdates", "QueryFilter", "ScanFilter")


def _named(given: Given) -> tuple[set[str], Given]:
    """The attributes that a request names, and the values of keys that it queries.

    What cannot be read is refused later, for what is wrong with it.
    """
    found = set(given.get("AttributesToGet") or ())
    for name in _LEGACIES:
        found |= set(given.get(name) or ())
    texts = [(name, given[name]) for name in _EXPRESSIONS if given.get(name)]
    wanted: Given = {}
    if texts or "KeyConditionExpression" in given or "KeyConditions" in given:
        try:
            known = Placeholders(given.get("ExpressionAttributeNames"), given.get("ExpressionAttributeValues"))
            wanted = _wanted(given, known)
            found |= wanted.keys()
            for name, text in texts:
                parsed = _EXPRESSIONS[name](text, known)
                found |= parsed.attributes()
                found |= {str(path[0]) for path in getattr(parsed, "reads", ())}
        except ServiceError:
            return found, wanted
    return found, wanted
