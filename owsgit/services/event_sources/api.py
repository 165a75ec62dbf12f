"""The operations of Lambda's API about event source mappings. What would change one names the file to commit; where
there is a working tree (`owsgit up`), it writes that file, and answers as Lambda does.

https://docs.aws.amazon.com/lambda/latest/dg/invocation-eventsourcemapping.html
"""

import base64
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

import orjson
from botocore import xform_name

from owsgit.aws.api import Caller, Need, ServiceError
from owsgit.model.errors import InvalidError
from owsgit.model.names import is_name, unqualified
from owsgit.model.resource import Resource
from owsgit.model.service import Edit, Site
from owsgit.services.event_sources import FUNCTION_ARN, KIND, changing
from owsgit.services.event_sources.changing import Document, invalid
from owsgit.services.event_sources.described import uuid_of
from owsgit.services.event_sources.spec import EventSourceSpec

PAGE_MAX = 100
"""Lambda's, of ListEventSourceMappings."""

_WRITES = {
    "CreateEventSourceMapping": "Write",
    "UpdateEventSourceMapping": "Change",
    "DeleteEventSourceMapping": "Delete",
}
"""What is done with the file instead."""


class Mappings(Protocol):
    """What the API asks of the handler of mappings."""

    @property
    def resources(self) -> Mapping[str, Resource]:
        """All of the project, by name."""
        ...

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
        if operation in _WRITES:
            changing.refuse(parameters)
        if operation in _WRITES and self._site.edit is None:  # nothing is done, whoever asks: there is nothing to allow
            raise self._refusal(operation, parameters)
        if operation == "ListEventSourceMappings":
            yield Need("lambda:ListEventSourceMappings", "*")
            return
        scope, arn, functions = self._site.scope(), "*", []
        if "UUID" in parameters:
            resource = self._mappings.mapping(parameters["UUID"])
            arn = resource.arn(scope) if resource is not None else scope.arn(KIND.arn, parameters["UUID"])
            if resource is not None:
                assert isinstance(resource.spec, EventSourceSpec)
                functions.append(resource.spec.function)
        if "FunctionName" in parameters:
            functions.append(changing.function(parameters["FunctionName"]))
        contexts = [{"lambda:FunctionArn": scope.arn(FUNCTION_ARN, unqualified(each))} for each in functions]
        for context in contexts or [{}]:
            yield Need(f"lambda:{operation}", arn, context)

    def home(self, operation: str, parameters: Mapping[str, Any]) -> str | None:
        resource = self._mappings.mapping(parameters.get("UUID", ""))
        return self._mappings.home(resource.name) if resource is not None else None

    async def get_event_source_mapping(self, caller: Caller, *, uuid: str) -> dict[str, Any]:
        return _output(self._mappings.described(self._existing(uuid).name))

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
        function = changing.function(function_name) if function_name is not None else None
        left = [
            (name, each)
            for name, each in (await self._mappings.listed()).items()
            if name > after
            and (event_source_arn is None or each["EventSourceArn"] == event_source_arn)
            and (function is None or changing.function(each["FunctionArn"]) == function)
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
            document = changing.created({"StartingPosition": "LATEST", **given})
            function = unqualified(document["function"])
            name = function if is_name(function) else name
            text = ":\n" + orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()
        return invalid(
            f"{operation} changes nothing here: event source mappings are made by signed commits. "
            f"{_WRITES[operation]} {KIND.file(name)}, commit, and push it{text}"
        )

    async def create_event_source_mapping(self, caller: Caller, **parameters: Any) -> dict[str, Any]:
        given = _by_name(parameters)
        document, there = changing.created(given), self._mappings.resources
        for resource in there.values():
            assert isinstance(resource.spec, EventSourceSpec)
            if (resource.spec.function, resource.spec.source.named()) == (
                document["function"],
                *document["source"].items(),
            ):
                raise ServiceError(
                    "ResourceConflictException",
                    f'The event source arn (" {given["EventSourceArn"]} ") and function (" {document["function"]} ") '
                    "provided mapping already exists. Please update or delete the existing mapping with UUID "
                    f"{uuid_of(resource, self._site.scope())}",
                    status=409,
                    fields={"Type": "User"},
                )
        taken = set(there)
        while True:
            name = changing.name_for(document, taken)
            try:
                await self._edit(name, partial(_fresh, document))
                break
            except _TakenError:  # by a file that is not applied, or by who asked at the same time
                taken.add(name)
        return {**_output(self._mappings.described(name)), "State": "Creating"}

    async def update_event_source_mapping(self, caller: Caller, *, uuid: str, **parameters: Any) -> dict[str, Any]:
        name, given = self._existing(uuid).name, _by_name(parameters)
        await self._edit(name, lambda document: changing.updated(_there(document), given))
        return {**_output(self._mappings.described(name)), "State": "Updating"}

    async def delete_event_source_mapping(self, caller: Caller, *, uuid: str) -> dict[str, Any]:
        name = self._existing(uuid).name
        told = _output(self._mappings.described(name))
        await self._edit(name, lambda _: None)
        return {**told, "State": "Deleting"}

    def _existing(self, uuid: str) -> Resource:
        """Raises ServiceError."""
        resource = self._mappings.mapping(uuid)
        if resource is None:
            raise _not_found()
        return resource

    async def _edit(self, name: str, change: Callable[[Any], Document | None]) -> None:
        """Raises ServiceError for what the file would be wrong with."""
        edit: Edit | None = self._site.edit
        assert edit is not None, "refused by what it needs"
        try:
            await edit(KIND.name, name, change)
        except InvalidError as error:
            raise invalid(str(error)) from None


class _TakenError(Exception):
    """There is a file of that name."""


def _fresh(document: Document, before: Document | None) -> Document:
    """Raises _TakenError."""
    if before is not None:
        raise _TakenError
    return document


def _there(document: Document | None) -> Document:
    """Raises ServiceError if it was removed meanwhile."""
    if document is None:
        raise _not_found()
    return document


def _not_found() -> ServiceError:
    return ServiceError(
        "ResourceNotFoundException",
        "The resource you requested does not exist.",
        status=404,
        fields={"Type": "User"},
    )


_NAMES = {xform_name(name): name for name in changing.TAKEN}


def _by_name(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters by AWS's names, without those that say nothing."""
    return {_NAMES[name]: value for name, value in parameters.items() if name in _NAMES}


def _output(described: Mapping[str, Any]) -> dict[str, Any]:
    return {**described, "LastModified": datetime.fromtimestamp(described["LastModified"], UTC)}


def _marked(marker: str) -> str:
    """After which name a page begins. Raises ServiceError."""
    try:
        name = base64.b64decode(marker[:1024], altchars=b"-_", validate=True).decode("ascii")
    except ValueError:
        name = "?"
    if name and not is_name(name):
        raise invalid("Invalid Marker: it has to be the NextMarker of an earlier answer")
    return name
