"""Operations that change what tables there are. Here that is a commit: each is answered with the file to write."""

from typing import Any

import orjson

from owsgit.aws.api import Caller, ServiceError
from owsgit.services.tables.parameters import Operations
from owsgit.services.tables.spec import TableSpec

NOT_HERE = frozenset({"OnDemandThroughput", "WarmThroughput"})
"""Members of indexes that a file does not have."""


def _refuse(message: str) -> ServiceError:
    return ServiceError("ValidationException", message)


class Controlling(Operations):
    async def create_table(self, caller: Caller, **given: Any) -> None:
        """What the file would hold is told whole: it is CreateTable's own shape."""
        shown = {name: value for name, value in given.items() if name in TableSpec.model_fields}
        text = orjson.dumps(_camel(shown), option=orjson.OPT_INDENT_2).decode()
        name = self._catalog.name_of(given["table_name"])
        if name in self._catalog.tables:
            raise ServiceError("ResourceInUseException", f"Table already exists: {name}")
        raise _refuse(f"tables are made by commits: commit this as tables/{name}.json, and push it:\n{text}")

    async def update_table(self, caller: Caller, **given: Any) -> None:
        self._refuse_change(given["table_name"], "change it there in the shape of CreateTable, commit, and push")

    async def delete_table(self, caller: Caller, *, table_name: str) -> None:
        self._refuse_change(table_name, "delete its items, then the file, commit, and push")

    async def update_time_to_live(
        self, caller: Caller, *, table_name: str, time_to_live_specification: dict[str, Any]
    ) -> None:
        attribute, enabled = time_to_live_specification["AttributeName"], time_to_live_specification["Enabled"]
        text = orjson.dumps({"enabled": enabled, "attributeName": attribute}).decode()
        self._refuse_change(table_name, f'write "timeToLive": {text}, commit, and push')

    async def tag_resource(self, caller: Caller, *, resource_arn: str, tags: list[dict[str, str]]) -> None:
        text = orjson.dumps([{"key": tag["Key"], "value": tag["Value"]} for tag in tags]).decode()
        self._refuse_change(resource_arn, f'add to "tags" {text}, commit, and push')

    async def untag_resource(self, caller: Caller, *, resource_arn: str, tag_keys: list[str]) -> None:
        self._refuse_change(resource_arn, f'take out of "tags" {", ".join(tag_keys)}, commit, and push')

    def _refuse_change(self, given: str, how: str) -> None:
        name = self._catalog.table(given).name
        raise _refuse(f"tables are changed by commits: the table {name} is the file tables/{name}.json; {how}")


def _camel(value: Any) -> Any:
    """AWS's parameters, as a file has them."""
    if isinstance(value, dict):
        return {_lower(name): _camel(each) for name, each in value.items() if name not in NOT_HERE}
    return [_camel(each) for each in value] if isinstance(value, list) else value


def _lower(name: str) -> str:
    """Of a parameter as boto3 would call it, or of a member as AWS does."""
    first, *rest = name.split("_")
    return first[0].lower() + first[1:] + "".join(part.title() for part in rest)
