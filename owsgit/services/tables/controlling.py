"""Operations that change what tables there are. Here that is a commit: each is answered with the file to write.

Where there is a working tree (`owsgit up`), they write that file themselves, and answer as DynamoDB does.
"""

from collections.abc import Callable
from typing import Any

import orjson

from owsgit.aws.api import Caller, ServiceError
from owsgit.model.errors import InvalidError, Problem
from owsgit.model.names import NAME_RULE, is_name
from owsgit.model.service import Edit
from owsgit.services.tables import KIND, changing
from owsgit.services.tables.catalog import TableNotFoundError
from owsgit.services.tables.changing import Document
from owsgit.services.tables.describing import Describing, Output
from owsgit.services.tables.spec import TableSpec

PROTECTED = (
    "Resource cannot be deleted as it is currently protected against deletion. Disable deletion protection first."
)


def _refuse(message: str) -> ServiceError:
    return ServiceError("ValidationException", message)


class Controlling(Describing):
    async def create_table(self, caller: Caller, **given: Any) -> Output:
        """What the file would hold is told whole: it is CreateTable's own shape."""
        document = changing.created(given)
        name = self._catalog.name_of(given["table_name"])
        if name in self._catalog.tables:
            raise ServiceError("ResourceInUseException", f"Table already exists: {name}")
        edit = self._catalog.edit
        if edit is None:
            raise _refuse(_to_commit(name, document))

        def change(before: Any) -> Document:
            if before is not None:
                raise ServiceError("ResourceInUseException", f"Table already exists: {name}")
            return document

        await edit(KIND.name, name, change)
        return await self._answered(name, "CREATING")

    async def update_table(self, caller: Caller, **given: Any) -> Output:
        edit = self._editing(given["table_name"], "change it there in the shape of CreateTable, commit, and push")
        name = self._table(given["table_name"]).name
        await edit(KIND.name, name, _of_table(lambda document: changing.updated(document, given)))
        return await self._answered(name, "UPDATING")

    async def delete_table(self, caller: Caller, *, table_name: str) -> Output:
        """With its items, as DynamoDB does: a deletion by commit would ask for them to be deleted first."""
        table = self._table(table_name)
        protected = 'push "deletionProtectionEnabled": false first; ' if table.spec.deletion_protection_enabled else ""
        edit = self._editing(table_name, f"{protected}delete its items, then the file, commit, and push")
        if table.spec.deletion_protection_enabled:
            raise _refuse(PROTECTED)
        told = await self._answered(table.name, "DELETING")
        self._catalog.dropping.add(table.name)
        try:
            await edit(KIND.name, table.name, lambda _: None)
        finally:
            self._catalog.dropping.discard(table.name)
        return told

    async def update_time_to_live(
        self, caller: Caller, *, table_name: str, time_to_live_specification: dict[str, Any]
    ) -> Output:
        attribute, enabled = time_to_live_specification["AttributeName"], time_to_live_specification["Enabled"]
        text = orjson.dumps({"enabled": enabled, "attributeName": attribute}).decode()
        edit = self._editing(table_name, f'write "timeToLive": {text}, commit, and push')
        change = _of_table(lambda document: changing.timed(document, attribute, enabled=enabled))
        await edit(KIND.name, self._table(table_name).name, change)
        return {"TimeToLiveSpecification": time_to_live_specification}

    async def tag_resource(self, caller: Caller, *, resource_arn: str, tags: list[dict[str, str]]) -> None:
        text = orjson.dumps([{"key": tag["Key"], "value": tag["Value"]} for tag in tags]).decode()
        edit = self._editing(resource_arn, f'add to "tags" {text}, commit, and push')
        change = _of_table(lambda document: changing.tagged(document, tags, []))
        await edit(KIND.name, self._table(resource_arn).name, change)

    async def untag_resource(self, caller: Caller, *, resource_arn: str, tag_keys: list[str]) -> None:
        edit = self._editing(resource_arn, f'take out of "tags" {", ".join(tag_keys)}, commit, and push')
        change = _of_table(lambda document: changing.tagged(document, [], tag_keys))
        await edit(KIND.name, self._table(resource_arn).name, change)

    def _editing(self, given: str, how: str) -> Edit:
        """Raises ServiceError that says how a commit does it, where commits alone do."""
        name = self._table(given).name
        if self._catalog.edit is None:
            raise _refuse(f"tables are changed by commits: the table {name} is the file tables/{name}.json; {how}")
        return self._catalog.edit

    async def _answered(self, name: str, status: str) -> Output:
        """What a table became, with the status that DynamoDB answers with; it is done with by then."""
        table = self._table(name)
        described = self._described(table, await self._catalog.engine.facts(name))
        return {"TableDescription": {**described, "TableStatus": status}}


def _to_commit(name: str, document: Document) -> str:
    """What to commit for CreateTable, or why that would be refused."""
    file, text = KIND.file(name), orjson.dumps(document, option=orjson.OPT_INDENT_2)
    problems: list[Problem] = []
    if not is_name(name):
        problems.append(Problem(f"{name!r:.100} is not a table's name", remedy=f"use {NAME_RULE}"))
    try:
        problems += TableSpec.parse(text, file).problems_after(None, file, lambda kind, name: None)
    except InvalidError as error:
        problems += error.problems
    if problems:
        told = "\n".join(line for problem in problems for line in problem.lines())
        return f"tables are made by commits, and what this asks for would be refused:\n{told}"
    return f"tables are made by commits: commit this as {file}, and push it:\n{text.decode()}"


def _of_table(change: Callable[[Document], Document]) -> Callable[[Any], Document]:
    def changed(document: Any) -> Document:
        if document is None:
            raise TableNotFoundError
        return change(document)

    return changed
