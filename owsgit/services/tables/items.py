"""Operations on one item: PutItem, GetItem, UpdateItem, DeleteItem.

https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_PutItem.html and its neighbours
"""

from collections.abc import Mapping
from typing import Any

from owsgit.aws.api import Caller
from owsgit.services.tables import capacity, legacy, parameters
from owsgit.services.tables.capacity import Used
from owsgit.services.tables.catalog import Table
from owsgit.services.tables.errors import detected
from owsgit.services.tables.expressions.condition import Condition
from owsgit.services.tables.expressions.projection import Projection
from owsgit.services.tables.expressions.update import Update
from owsgit.services.tables.keys import key_from
from owsgit.services.tables.parameters import Conditional, Given, Operations
from owsgit.services.tables.values import Item, check_item, check_size, load, size
from owsgit.services.tables.writing import Change, Delete, Write, Written, put, returned

Names = Mapping[str, str]
Output = dict[str, Any]
NOTHING_MORE = (None, None, None)


class Items(Operations):
    async def put_item(
        self,
        caller: Caller,
        *,
        table_name: str,
        item: Item,
        expected: Given | None = None,
        conditional_operator: str | None = None,
        condition_expression: str | None = None,
        expression_attribute_names: Names | None = None,
        expression_attribute_values: Given | None = None,
        return_values: str = "NONE",
        return_consumed_capacity: str | None = None,
        return_item_collection_metrics: str | None = None,
        return_values_on_condition_check_failure: str | None = None,
    ) -> Output:
        given = Conditional(
            expected,
            conditional_operator,
            condition_expression,
            expression_attribute_names,
            expression_attribute_values,
        )
        with detected():
            found = given.placeholders()
            item = check_item(item)
            parameters.check_return_values(return_values, "ALL_OLD", "NONE")
            check_size(item)
            condition = given.old() or given.new(found)
            found.finish()
        table = self._catalog.table(table_name)
        parameters.check_condition(table, condition)
        looks = return_values == "ALL_OLD" or return_consumed_capacity not in (None, "NONE")
        shows = return_values_on_condition_check_failure == "ALL_OLD"
        written = await self._write(put(table, item, condition, shows=shows, looks=looks))
        output = returned(return_values, written)
        return await self._told(output, table, item, written, return_consumed_capacity, return_item_collection_metrics)

    async def delete_item(
        self,
        caller: Caller,
        *,
        table_name: str,
        key: Item,
        expected: Given | None = None,
        conditional_operator: str | None = None,
        condition_expression: str | None = None,
        expression_attribute_names: Names | None = None,
        expression_attribute_values: Given | None = None,
        return_values: str = "NONE",
        return_consumed_capacity: str | None = None,
        return_item_collection_metrics: str | None = None,
        return_values_on_condition_check_failure: str | None = None,
    ) -> Output:
        given = Conditional(
            expected,
            conditional_operator,
            condition_expression,
            expression_attribute_names,
            expression_attribute_values,
        )
        with detected():
            found = given.placeholders()
            key = check_item(key)
            parameters.check_return_values(return_values, "ALL_OLD", "NONE")
            condition = given.old() or given.new(found)
            found.finish()
        table = self._catalog.table(table_name)
        parameters.check_condition(table, condition)
        shows = return_values_on_condition_check_failure == "ALL_OLD"
        written = await self._write(Delete(table, key_from(table.schema, key), condition, shows))
        output = returned(return_values, written)
        return await self._told(output, table, key, written, return_consumed_capacity, return_item_collection_metrics)

    async def update_item(
        self,
        caller: Caller,
        *,
        table_name: str,
        key: Item,
        attribute_updates: Given | None = None,
        update_expression: str | None = None,
        expected: Given | None = None,
        conditional_operator: str | None = None,
        condition_expression: str | None = None,
        expression_attribute_names: Names | None = None,
        expression_attribute_values: Given | None = None,
        return_values: str = "NONE",
        return_consumed_capacity: str | None = None,
        return_item_collection_metrics: str | None = None,
        return_values_on_condition_check_failure: str | None = None,
    ) -> Output:
        given = Conditional(
            expected,
            conditional_operator,
            condition_expression,
            expression_attribute_names,
            expression_attribute_values,
        )
        with detected():
            found = given.placeholders({"UpdateExpression": update_expression}, {"AttributeUpdates": attribute_updates})
            key = check_item(key)
            changes: Update | None = None
            if attribute_updates:
                changes = legacy.attribute_updates(attribute_updates)
            condition = given.old()
            if update_expression is not None:
                changes = parameters.updates(update_expression, found)
            condition = condition or given.new(found)
            found.finish()
        table = self._catalog.table(table_name)
        shows = return_values_on_condition_check_failure == "ALL_OLD"
        update = update_of(table, key, changes, condition, shows=shows, types=True)
        written = await self._write(update)
        output = returned(return_values, written, changes)
        return await self._told(output, table, key, written, return_consumed_capacity, return_item_collection_metrics)

    async def get_item(
        self,
        caller: Caller,
        *,
        table_name: str,
        key: Item,
        attributes_to_get: list[str] | None = None,
        projection_expression: str | None = None,
        expression_attribute_names: Names | None = None,
        consistent_read: bool = False,
        return_consumed_capacity: str | None = None,
    ) -> Output:
        """Reads are consistent, whether they ask for it or not."""
        shows: Projection | None = None
        given = (attributes_to_get, projection_expression, expression_attribute_names)
        if given == NOTHING_MORE:  # as most are
            key = check_item(key)
        else:
            found = parameters.placeholders(
                expression_attribute_names,
                None,
                {"ProjectionExpression": projection_expression},
                {"AttributesToGet": attributes_to_get},
            )
            key = check_item(key)
            shows = parameters.shows(attributes_to_get, projection_expression, found)
            found.finish()
        table = self._catalog.table(table_name)
        if shows is not None:
            parameters.check_scalar_keys(table, shows.paths)
        place = key_from(table.schema, key)
        stored = await self._catalog.engine.get(table.name, place)
        item = load(stored) if stored is not None else None
        output: Output = {}
        if item is not None:
            output["Item"] = item if shows is None else shows.of(item)
        if return_consumed_capacity in (None, "NONE"):
            return output
        used = Used(table)
        used.read(size(item or {}), consistent=consistent_read)
        return capacity.with_capacity(output, used, return_consumed_capacity)

    async def _write(self, write: Write) -> Written:
        return await self._catalog.engine.write([write.table.name], write.make)

    async def _told(
        self, output: Output, table: Table, key: Item, written: Written, how: str | None, metrics: str | None
    ) -> Output:
        """The output of a write, with what else was asked for."""
        if how not in (None, "NONE"):
            used = Used(table)
            used.write(written)
            output = capacity.with_capacity(output, used, how)
        if metrics == "SIZE" and table.has_local_indexes:
            facts = await self._catalog.engine.facts(table.name)
            output["ItemCollectionMetrics"] = capacity.collection(table, key, facts.bytes)
        return output


def update_of(
    table: Table, key: Item, changes: Update | None, condition: Condition | None, *, shows: bool, types: bool = False
) -> Change:
    """Raises ValidationError for the key, and for changes of it. `types`: of UpdateItem, see `check_update`."""
    parameters.check_update(table, changes, types=types)
    parameters.check_condition(table, condition)
    place = key_from(table.schema, key)
    creates = changes is None or changes.creates
    return Change(table, place, condition, shows, True, key, changes, creates)
