"""Query and Scan: items in order, a page at a time.

https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_Query.html and API_Scan.html. A page ends with
`Limit` items looked at, or with 1 MB of them. Reads are consistent, whether they ask for it or not.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from owsgit.aws.api import Caller
from owsgit.services.tables import capacity, legacy, parameters
from owsgit.services.tables.capacity import Used
from owsgit.services.tables.catalog import Index, Table
from owsgit.services.tables.engine import Position, Snapshot, Span
from owsgit.services.tables.errors import INVALID, ValidationError, older
from owsgit.services.tables.expressions import condition, keycondition
from owsgit.services.tables.expressions.condition import Condition
from owsgit.services.tables.expressions.keycondition import KeyCondition
from owsgit.services.tables.expressions.placeholders import Placeholders
from owsgit.services.tables.expressions.projection import Projection
from owsgit.services.tables.keys import KeySchema, entry_of, key_of
from owsgit.services.tables.legacy import KeyConditions
from owsgit.services.tables.parameters import Given, Operations
from owsgit.services.tables.values import Item, check_item, load, size

PAGE_BYTES_MAX = 1024 * 1024
PAGE_BYTES_READ_MAX = 16 * 1024 * 1024
"""Of items as they are stored: an index may show a small part of large ones. Then a page ends early."""

START_INVALID = "The provided starting key is invalid"
START_OUTSIDE = "The provided starting key is outside query boundaries based on provided conditions"
START_NO_MATCH = f"{START_INVALID}: The provided key element does not match the schema"
OTHER_SEGMENT = f"{START_INVALID}: Invalid ExclusiveStartKey. Please use ExclusiveStartKey with correct Segment."
NO_CONDITIONS = "Either the KeyConditions or KeyConditionExpression parameter must be specified in the request."
ONLY_INDEXES = "ALL_PROJECTED_ATTRIBUTES can be used only when Querying using an IndexName"
MISSING = "parameter is required but was not present in the request when"
SEGMENT_ALONE = f"The TotalSegments {MISSING} Segment parameter is present"
TOTAL_ALONE = f"The Segment {MISSING} parameter TotalSegments is present"

Names = Mapping[str, str]
Output = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """What is looked for and what is told of it, beside the keys."""

    select: str | None
    shows: Projection | None
    holds: Condition | None
    limit: int | None
    start: Item | None
    consistent: bool
    capacity: str | None

    @property
    def names(self) -> set[str]:
        """The attributes that are asked for by name."""
        return self.shows.attributes() if self.shows is not None else set()


@dataclass
class Page:
    items: list[Item]
    scanned: int = 0
    bytes: int = 0
    last: Item | None = None
    count: int = 0


class Searches(Operations):
    async def query(
        self,
        caller: Caller,
        *,
        table_name: str,
        index_name: str | None = None,
        select: str | None = None,
        attributes_to_get: list[str] | None = None,
        limit: int | None = None,
        consistent_read: bool = False,
        key_conditions: Given | None = None,
        query_filter: Given | None = None,
        conditional_operator: str | None = None,
        scan_index_forward: bool = True,
        exclusive_start_key: Item | None = None,
        return_consumed_capacity: str | None = None,
        projection_expression: str | None = None,
        filter_expression: str | None = None,
        key_condition_expression: str | None = None,
        expression_attribute_names: Names | None = None,
        expression_attribute_values: Given | None = None,
    ) -> Output:
        found = parameters.placeholders(
            expression_attribute_names,
            expression_attribute_values,
            {
                "ProjectionExpression": projection_expression,
                "FilterExpression": filter_expression,
                "KeyConditionExpression": key_condition_expression,
            },
            {
                "AttributesToGet": attributes_to_get,
                "QueryFilter": query_filter,
                "ConditionalOperator": conditional_operator,
                "KeyConditions": key_conditions,
            },
        )
        filters = legacy.filters(query_filter or {}, conditional_operator)
        start = _checked_start(exclusive_start_key)
        shows = parameters.shows(attributes_to_get, projection_expression, found)
        holds = _filter(filter_expression, found) or (filters if query_filter else None)
        keys = _key_condition(key_conditions, key_condition_expression, found)
        found.finish()
        _check_select(select, attributes_to_get, projection_expression)
        wanted = Wanted(select, shows, holds, limit, start, consistent_read, return_consumed_capacity)
        table = self._catalog.table(table_name)
        index = self._index(table, index_name, wanted)
        _check_paths(table, wanted)
        schema = index.schema if index is not None else table.schema
        reach = keys.range(schema)
        if query_filter:
            legacy.check_query_filter(filters, schema)
        elif holds is not None:
            _check_filter(holds, schema)
        span = reach.span(table.name, index.name if index is not None else "", backwards=not scan_index_forward)
        if start is not None:
            if len(start) != len(schema.names()) and index is None:
                raise ValidationError(START_INVALID)
            after = position(table, index, start)
            check_inside(span, after)
            span = replace(span, after=after)
        return await self._page(table, index, span, wanted)

    async def scan(
        self,
        caller: Caller,
        *,
        table_name: str,
        index_name: str | None = None,
        attributes_to_get: list[str] | None = None,
        limit: int | None = None,
        select: str | None = None,
        scan_filter: Given | None = None,
        conditional_operator: str | None = None,
        exclusive_start_key: Item | None = None,
        return_consumed_capacity: str | None = None,
        total_segments: int | None = None,
        segment: int | None = None,
        projection_expression: str | None = None,
        filter_expression: str | None = None,
        expression_attribute_names: Names | None = None,
        expression_attribute_values: Given | None = None,
        consistent_read: bool = False,
    ) -> Output:
        with older():
            found = parameters.placeholders(
                expression_attribute_names,
                expression_attribute_values,
                {"ProjectionExpression": projection_expression, "FilterExpression": filter_expression},
                {
                    "AttributesToGet": attributes_to_get,
                    "ScanFilter": scan_filter,
                    "ConditionalOperator": conditional_operator,
                },
            )
            filters = legacy.filters(scan_filter or {}, conditional_operator)
            start = _checked_start(exclusive_start_key)
            shows = parameters.shows(attributes_to_get, projection_expression, found)
            holds = _filter(filter_expression, found) or (filters if scan_filter else None)
            found.finish()
            _check_select(select, attributes_to_get, projection_expression)
            _check_segments(segment, total_segments)
        wanted = Wanted(select, shows, holds, limit, start, consistent_read, return_consumed_capacity)
        table = self._catalog.table(table_name)
        index = self._index(table, index_name, wanted)
        _check_paths(table, wanted)
        after = position(table, index, start) if start is not None else None
        if after and total_segments and segment != self._catalog.engine.segment_of(after.key.hash, total_segments):
            raise ValidationError(f"{OTHER_SEGMENT} TotalSegments: {total_segments} Segment: {segment}")
        of = index.name if index is not None else ""
        span = Span(table.name, of, after=after, segment=segment or 0, segments=total_segments or 1)
        return await self._page(table, index, span, wanted)

    def _index(self, table: Table, name: str | None, wanted: Wanted) -> Index | None:
        """The index that is meant, if it can give what is wanted."""
        if name is None:
            if wanted.select == "ALL_PROJECTED_ATTRIBUTES":
                raise ValidationError(ONLY_INDEXES)
            return None
        index = table.indexes.get(name)
        if index is None:
            raise ValidationError(f"The table does not have the specified index: {name}")
        if not index.is_global:
            self._check_built(table, index, "local")
            return index
        if wanted.consistent:
            raise ValidationError("Consistent reads are not supported on global secondary indexes")
        if wanted.select == "ALL_ATTRIBUTES" and index.shown is not None:
            raise ValidationError(
                f"{INVALID}Select type ALL_ATTRIBUTES is not supported for global secondary index {name} "
                "because its projection type is not ALL"
            )
        missing = sorted(wanted.names - index.shown) if index.shown is not None else []
        if missing:
            raise ValidationError(f"{INVALID}Global secondary index {name} does not project [{', '.join(missing)}]")
        self._check_built(table, index, "global")
        return index

    def _check_built(self, table: Table, index: Index, what: str) -> None:
        if (table.name, index.name) in self._catalog.building:
            raise ValidationError(f"Cannot read from backfilling {what} secondary index: {index.name}")

    async def _page(self, table: Table, index: Index | None, span: Span, wanted: Wanted) -> Output:
        page = await self._catalog.engine.read(
            [table.name], lambda snapshot: read_page(snapshot, table, index, span, wanted)
        )
        output: Output = {"Count": page.count, "ScannedCount": page.scanned}
        if wanted.select != "COUNT":
            output["Items"] = page.items
        if page.last is not None:
            output["LastEvaluatedKey"] = page.last
        if wanted.capacity in (None, "NONE"):
            return output
        used = Used(table)
        used.read(page.bytes, consistent=wanted.consistent, index=index.name if index is not None else "")
        return capacity.with_capacity(output, used, wanted.capacity)


def read_page(snapshot: Snapshot, table: Table, index: Index | None, span: Span, wanted: Wanted) -> Page:
    """One page. Local indexes give attributes that they do not show, from the table, if they are asked for."""
    page = Page([])
    whole = index is None or (not index.is_global and (wanted.select == "ALL_ATTRIBUTES" or wanted.shows is not None))
    read = 0
    for row in snapshot.rows(span):
        item = load(row.item)
        read += len(row.item)
        if index is not None and not whole:
            item = index.project(item)
        page.scanned += 1
        page.bytes += size(item)
        if wanted.holds is None or wanted.holds.holds(item):
            page.count += 1
            if wanted.select != "COUNT":
                page.items.append(item if wanted.shows is None else wanted.shows.of(item))
        if page.scanned == wanted.limit or page.bytes >= PAGE_BYTES_MAX or read >= PAGE_BYTES_READ_MAX:
            names = table.schema.names() if index is None else [*table.schema.names(), *index.schema.names()]
            page.last = {name: item[name] for name in names}
            break
    return page


def _checked_start(given: Item | None) -> Item | None:
    try:
        return check_item(given) if given is not None else None
    except ValidationError as error:
        raise ValidationError(error.message, older=f"{START_INVALID}: {error.older}") from None


def _filter(text: str | None, found: Placeholders) -> Condition | None:
    parameters.check_empty(text, "FilterExpression")
    return condition.parse(text, found, "FilterExpression") if text is not None else None


def _key_condition(given: Given | None, text: str | None, found: Placeholders) -> KeyCondition | KeyConditions:
    if given is not None:
        return legacy.key_conditions(given)
    if text is None:
        raise ValidationError(NO_CONDITIONS)
    parameters.check_empty(text, "KeyConditionExpression")
    read = keycondition.read(text, found)
    read.check()
    return read


def _check_paths(table: Table, wanted: Wanted) -> None:
    if wanted.shows is not None:
        parameters.check_scalar_keys(table, wanted.shows.paths)
    parameters.check_condition(table, wanted.holds)


def _check_filter(holds: Condition, schema: KeySchema) -> None:
    """A filter is not on keys of what is queried: those belong into the key condition."""
    touched = holds.attributes()
    for name in schema.names():
        if name in touched:
            raise ValidationError(
                f"Filter Expression can only contain non-primary key attributes: Primary key attribute: {name}"
            )


def _check_select(select: str | None, names: list[str] | None, projection: str | None) -> None:
    given = "AttributesToGet" if names is not None else "ProjectionExpression" if projection is not None else None
    if given is not None and select not in (None, "SPECIFIC_ATTRIBUTES"):
        what = "only the Count" if select == "COUNT" else select
        raise ValidationError(f"Cannot specify the {given} when choosing to get {what}")
    if given is None and select == "SPECIFIC_ATTRIBUTES":
        raise ValidationError(
            "Must specify the AttributesToGet or ProjectionExpression when choosing to get SPECIFIC_ATTRIBUTES"
        )


def _check_segments(segment: int | None, total: int | None) -> None:
    if segment is not None and total is None:
        raise ValidationError(SEGMENT_ALONE)
    if segment is None and total is not None:
        raise ValidationError(TOTAL_ALONE)
    if segment is not None and total is not None and segment >= total:
        raise ValidationError(
            "The Segment parameter is zero-based and must be less than parameter TotalSegments: "
            f"Segment: {segment} is not less than TotalSegments: {total}"
        )


def position(table: Table, index: Index | None, start: Item) -> Position:
    """Where a starting key is. It has the keys of the table, and of the index, and nothing else."""
    schemas: Iterable[KeySchema] = [table.schema] if index is None else [index.schema, table.schema]
    types = {name: kind for schema in schemas for name, kind in (*schema.hash, *schema.range)}
    if start.keys() != types.keys():
        raise ValidationError(START_INVALID if index is not None else START_NO_MATCH)
    if any(kind not in start[name] for name, kind in types.items()):
        raise ValidationError(START_NO_MATCH)
    try:
        key = key_of(table.schema, start)
        if index is None:
            return Position(key.hash, key.range, key)
        entry = entry_of(index.name, index.schema, start)
    except ValidationError as error:
        raise ValidationError(f"{START_INVALID}: {error.message}") from None
    assert entry is not None
    return Position(entry.hash, entry.range, key)


def check_inside(span: Span, after: Position) -> None:
    low, high = span.low, span.high
    if after.hash != span.hash:
        raise ValidationError(START_OUTSIDE)
    if (low is not None and after.range < low) or (high is not None and after.range > high):
        raise ValidationError("The provided starting key does not match the range key predicate")
