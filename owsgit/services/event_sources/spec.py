"""The spec of an event source mapping: `event-sources/<name>.json`, after Lambda's CreateEventSourceMapping.

https://docs.aws.amazon.com/lambda/latest/api/API_CreateEventSourceMapping.html
"""

import json
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from owsgit.model.errors import Problem
from owsgit.model.event_pattern import CHARACTERS_MAX, Pattern
from owsgit.model.names import ALIAS_NEED, unqualified
from owsgit.model.spec import Document, Name, PlacedError, Reference, Spec

FILTERS_MAX = 10
"""Lambda's, where it is asked for more than five."""

RECORD_AGE_MIN = 60

FunctionName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}(:[A-Za-z0-9_-]{1,128}|@[0-9a-f]{40})?$")
]
"""Of a function or one of its versions."""


class SourceSpec(Document):
    """Where the records come from: the kind of a resource, and its name."""

    table: Name = Field(description="A table that has a stream (streamSpecification).")

    def named(self) -> tuple[str, str]:
        """Kind and name of the resource."""
        return "table", self.table


class FailureSpec(Document):
    """Where it is told that records were given up."""

    function: FunctionName = Field(
        description="The function that is invoked with a record of the failure, asynchronously."
    )


class EventSourceSpec(Spec):
    """Feeds a function from a source, in batches, in the order of each key."""

    description: str | None = Field(None, max_length=256, description="What it is for.")
    function: FunctionName = Field(description="The function that is invoked: f, f:alias or f@commit.")
    source: SourceSpec = Field(description="What it is fed from. It cannot change.")
    starting_position: Literal["TRIM_HORIZON", "LATEST"] = Field(
        description="Begin with the oldest record that is there, or with those that come. It cannot change."
    )
    enabled: bool = Field(True, description="Whether the function is fed. One that is enabled again goes on.")
    batch_size: int = Field(100, ge=1, le=10_000, description="Records of one invocation, at most.")
    maximum_batching_window: int = Field(
        0, ge=0, le=300, description="Seconds for which a batch waits for more records."
    )
    parallelization_factor: int = Field(
        1, ge=1, le=10, description="Batches that are under way at once. Records of one key stay in their order."
    )
    maximum_retry_attempts: int = Field(
        -1, ge=-1, le=10_000, description="Retries after errors of the function; -1: until the records expire."
    )
    maximum_record_age: int = Field(
        -1, ge=-1, le=604_800, description="Seconds after which a record is given up, from 60; -1: when it expires."
    )
    bisect_batch_on_function_error: bool = Field(
        False, description="Try the halves of a batch that failed each for itself. Halving is no retry."
    )
    function_response_types: list[Literal["ReportBatchItemFailures"]] = Field(
        [], max_length=1, description="With ReportBatchItemFailures the function answers which records failed."
    )
    filters: list[dict[str, Any]] = Field(
        [],
        max_length=FILTERS_MAX,
        description="Event patterns, as EventBridge has them: records that fit none are left out (FilterCriteria).",
    )
    on_failure: FailureSpec | None = Field(
        None, description="Who is told of records that were given up. Without one they are in the node's log alone."
    )

    @field_validator("maximum_record_age")
    @classmethod
    def _age_is_none_or_long(cls, age: int) -> int:
        if age != -1 and age < RECORD_AGE_MIN:
            raise ValueError(f"it is -1, or {RECORD_AGE_MIN} seconds and more")
        return age

    @model_validator(mode="after")
    def _filters_are_patterns(self) -> Self:
        for index, pattern in enumerate(self.filters):
            if (size := len(json.dumps(pattern))) > CHARACTERS_MAX:
                raise PlacedError(f"a filter has at most {CHARACTERS_MAX:,} characters, not {size:,}", "filters", index)
            try:
                Pattern(pattern)
            except PlacedError as error:
                raise PlacedError(str(error), "filters", index, *error.at) from None
        return self

    @property
    def reports(self) -> bool:
        """Whether the function answers which records failed."""
        return bool(self.function_response_types)

    def references(self) -> Iterator[Reference]:
        kind, name = self.source.named()
        yield Reference(kind, name, f"$.source.{kind}", need="stream")
        yield _function(self.function, "$.function", passes=False)
        if self.on_failure is not None:
            yield _function(self.on_failure.function, "$.onFailure.function", orders=False)

    def problems_after(
        self, before: Spec | None, file: str, holder: Callable[[str, str], Spec | None]
    ) -> Iterator[Problem]:
        """As at AWS, a mapping keeps its source and where it began."""
        if not isinstance(before, EventSourceSpec):
            return
        for field, changed in (
            ("source", before.source != self.source),
            ("startingPosition", before.starting_position != self.starting_position),
        ):
            if changed:
                yield Problem(
                    f"the {field} of a mapping that is there cannot change",
                    file,
                    f"$.{field}",
                    "add a mapping under another name, and delete this one",
                )


def _function(named: str, path: str, *, passes: bool = True, orders: bool = True) -> Reference:
    """Who may feed a function is decided by lambda:CreateEventSourceMapping, as at AWS: so that is not passed on."""
    alias = named.partition(":")[2]
    return Reference("function", unqualified(named), path, passes, orders, ALIAS_NEED + alias if alias else "")
