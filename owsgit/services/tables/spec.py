"""The spec of a table: `tables/<name>.json`, in the shape of DynamoDB's CreateTable.

https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_CreateTable.html
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from owsgit.model.errors import Problem
from owsgit.model.housing import Housed
from owsgit.model.spec import Document, Spec

GLOBAL_INDEXES_MAX = 20
LOCAL_INDEXES_MAX = 5
NON_KEY_ATTRIBUTES_MAX = 100
"""Of all indexes together."""

INDEX_KEYS_MAX = 4
"""HASH attributes of a global secondary index, and RANGE attributes of one."""

NAME_CHARACTERS_MIN = 3
TAGS_MAX = 50

AttributeName = Annotated[str, StringConstraints(min_length=1, max_length=255)]
IndexName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_.-]{3,255}$")]


class AttributeDefinition(Document):
    """An attribute that is part of a key, of the table or of an index."""

    attribute_name: AttributeName = Field(description="Its name.")
    attribute_type: Literal["S", "N", "B"] = Field(description="S: string, N: number, B: binary.")


class KeyElement(Document):
    """An attribute's place in a key."""

    attribute_name: AttributeName = Field(description="One of attributeDefinitions.")
    key_type: Literal["HASH", "RANGE"] = Field(description="HASH: which items lie together. RANGE: in which order.")


KeyElements = Annotated[list[KeyElement], Field(min_length=1)]


class ProjectionSpec(Document):
    """Which attributes an index shows."""

    projection_type: Literal["ALL", "KEYS_ONLY", "INCLUDE"] = Field("ALL", description="All, keys, or keys and some.")
    non_key_attributes: list[AttributeName] = Field(
        [], max_length=NON_KEY_ATTRIBUTES_MAX, description="With INCLUDE: which more."
    )


class Throughput(Document):
    """Capacity. Taken as AWS's templates have it, and not used: a table here gives what its node can."""

    read_capacity_units: int = Field(ge=1, description="Not used.")
    write_capacity_units: int = Field(ge=1, description="Not used.")


class LocalIndexSpec(Document):
    """An index under the table's HASH key, in another order."""

    index_name: IndexName = Field(description="Its name.")
    key_schema: KeyElements = Field(description="The table's HASH attribute, and a RANGE attribute.")
    projection: ProjectionSpec = Field(
        default_factory=lambda: ProjectionSpec.model_validate({}), description="Which attributes it shows."
    )


class GlobalIndexSpec(LocalIndexSpec):
    """An index under other keys."""

    key_schema: KeyElements = Field(description="One to four HASH attributes, then up to four RANGE attributes.")
    provisioned_throughput: Throughput | None = Field(None, description="Not used.")


class StreamSpec(Document):
    """The record of changes."""

    stream_enabled: bool = Field(True, description="Whether changes are recorded, for 24 hours.")
    stream_view_type: Literal["KEYS_ONLY", "NEW_IMAGE", "OLD_IMAGE", "NEW_AND_OLD_IMAGES"] = Field(
        "NEW_AND_OLD_IMAGES", description="What of the item is in a record, beside its key."
    )


class TimeToLiveSpec(Document):
    """When items end."""

    enabled: bool = Field(True, description="Whether items end.")
    attribute_name: AttributeName = Field(
        description="A number, in seconds since 1970: the item is removed some time after it."
    )


class TagSpec(Document):
    """A label."""

    key: Annotated[str, StringConstraints(min_length=1, max_length=128)] = Field(description="Its name.")
    value: Annotated[str, StringConstraints(max_length=256)] = Field(description="What it says.")


class TableSpec(Housed):
    """A table, as DynamoDB has them. Its items are kept by one node, or a server (`engines` in project.json)."""

    elsewhere: ClassVar[Mapping[str, str]] = {
        "tableName": "take it out: the table is called as its file",
        "sSESpecification": "take it out: encrypt the node's disk",
        "sseSpecification": "take it out: encrypt the node's disk",
        "tableClass": "take it out: there is one class of tables",
        "onDemandThroughput": "take it out: nothing is throttled",
        "warmThroughput": "take it out: nothing is throttled",
        "resourcePolicy": "take it out: policies of roles and users say who may do what with a table",
    }

    attribute_definitions: list[AttributeDefinition] = Field(
        min_length=1, description="The attributes of all keys. No others: items have whatever attributes they have."
    )
    key_schema: KeyElements = Field(description="The key of items: a HASH attribute, and a RANGE attribute or none.")
    global_secondary_indexes: list[GlobalIndexSpec] = Field([], description="Indexes under other keys, at most 20.")
    local_secondary_indexes: list[LocalIndexSpec] = Field([], description="Indexes in another order, at most 5.")
    billing_mode: Literal["PROVISIONED", "PAY_PER_REQUEST"] = Field("PAY_PER_REQUEST", description="Not used.")
    provisioned_throughput: Throughput | None = Field(None, description="Not used.")
    stream_specification: StreamSpec | None = Field(None, description="Have changes recorded.")
    time_to_live: TimeToLiveSpec | None = Field(None, description="Have items end.")
    deletion_protection_enabled: bool = Field(False, description="While it is true, the table's file cannot go.")
    tags: list[TagSpec] = Field([], max_length=TAGS_MAX, description="Labels.")

    def indexes(self) -> Iterator[tuple[str, int, LocalIndexSpec]]:
        """All indexes, with the field and the place that each is at."""
        for field, found in (
            ("globalSecondaryIndexes", self.global_secondary_indexes),
            ("localSecondaryIndexes", self.local_secondary_indexes),
        ):
            for place, index in enumerate(found):
                yield field, place, index

    def type_of(self, attribute: str) -> str:
        """The type of a key attribute."""
        return next(each.attribute_type for each in self.attribute_definitions if each.attribute_name == attribute)

    def problems_after(
        self, before: Spec | None, file: str, holder: Callable[[str, str], Spec | None]
    ) -> Iterator[Problem]:
        """What the fields say together, and what cannot change of a table that is there."""
        yield from _Check(self, file).problems()
        if isinstance(before, TableSpec):
            yield from _changed(before, self, file)

    def lacks(self, need: str) -> str | None:
        """What feeds a function needs a stream."""
        stream = self.stream_specification
        if need == "stream" and (stream is None or not stream.stream_enabled):
            return "it has no stream: streamSpecification says whether changes are recorded"
        return None

    def problems_of_removal(self, file: str) -> Iterator[Problem]:
        if self.deletion_protection_enabled:
            yield Problem(
                "the table is protected, and cannot be deleted",
                file,
                "$.deletionProtectionEnabled",
                "push a commit that sets it to false, then delete the file",
            )


class _Check:
    """What one file says that does not go together."""

    def __init__(self, spec: TableSpec, file: str) -> None:
        self._spec, self._file = spec, file
        self._defined = [each.attribute_name for each in spec.attribute_definitions]

    def problems(self) -> Iterator[Problem]:
        name = self._file.rpartition("/")[2].removesuffix(".json")
        if len(name) < NAME_CHARACTERS_MIN:
            yield self._problem(f"a table's name has at least {NAME_CHARACTERS_MIN} characters", "$", "rename the file")
        yield from self._definitions()
        yield from self._key("$.keySchema", self._spec.key_schema, 1, 1)
        yield from self._counts()
        yield from self._names()
        for field, place, index in self._spec.indexes():
            path = f"$.{field}[{place}]"
            if field == "globalSecondaryIndexes":
                yield from self._key(f"{path}.keySchema", index.key_schema, INDEX_KEYS_MAX, INDEX_KEYS_MAX)
            else:
                yield from self._local(path, index)
            yield from self._projection(path, index.projection)
        yield from self._more()

    def _problem(self, message: str, path: str, remedy: str) -> Problem:
        return Problem(message, self._file, path, remedy)

    def _definitions(self) -> Iterator[Problem]:
        used = {element.attribute_name for element in self._spec.key_schema}
        used |= {element.attribute_name for _, _, index in self._spec.indexes() for element in index.key_schema}
        for place, name in enumerate(self._defined):
            path = f"$.attributeDefinitions[{place}]"
            if name in self._defined[:place]:
                yield self._problem(f"the attribute {name!r} is defined twice", path, "take one of them out")
            elif name not in used:
                yield self._problem(
                    f"the attribute {name!r} is in no key",
                    path,
                    "take it out: only attributes of keys are defined, items may have any others",
                )

    def _key(self, path: str, elements: list[KeyElement], hashes_max: int, ranges_max: int) -> Iterator[Problem]:
        hashes = [element for element in elements if element.key_type == "HASH"]
        ranges = [element for element in elements if element.key_type == "RANGE"]
        if elements != [*hashes, *ranges]:
            yield self._problem("HASH attributes come first", path, "write them before those with RANGE")
        if not 1 <= len(hashes) <= hashes_max or len(ranges) > ranges_max:
            words = {1: "one HASH attribute, and one RANGE attribute or none"}.get(
                hashes_max, f"one to {hashes_max} HASH attributes, and up to {ranges_max} RANGE attributes"
            )
            yield self._problem(
                f"{len(hashes)} HASH and {len(ranges)} RANGE attributes are no key", path, f"a key has {words}"
            )
        names = [element.attribute_name for element in elements]
        for place, name in enumerate(names):
            if name in names[:place]:
                yield self._problem(f"the attribute {name!r} is twice in a key", f"{path}[{place}]", "take one out")
            if name not in self._defined:
                yield self._problem(
                    f"the attribute {name!r} is in a key and not defined",
                    f"{path}[{place}].attributeName",
                    f'add to $.attributeDefinitions: {{"attributeName": "{name}", "attributeType": "S"}}',
                )

    def _local(self, path: str, index: LocalIndexSpec) -> Iterator[Problem]:
        own, table = index.key_schema, self._spec.key_schema
        yield from self._key(f"{path}.keySchema", own, 1, 1)
        if own[0].attribute_name != table[0].attribute_name:
            yield self._problem(
                f"a local index has the table's HASH attribute, {table[0].attribute_name!r}, not "
                f"{own[0].attribute_name!r}",
                f"{path}.keySchema[0]",
                "write that, or make it a global index: $.globalSecondaryIndexes",
            )
        if len(own) < 2 or len(table) < 2:
            lacks = "the local index" if len(own) < 2 else "the table"
            yield self._problem(
                f"local indexes are other orders, and {lacks} has no RANGE attribute", path, "add one, or take it out"
            )

    def _projection(self, path: str, projection: ProjectionSpec) -> Iterator[Problem]:
        named, kind = projection.non_key_attributes, projection.projection_type
        if (kind == "INCLUDE") != bool(named):
            yield self._problem(
                f"projectionType {kind} {'names no attributes' if named else 'has to name attributes'}",
                f"{path}.projection",
                "INCLUDE goes with nonKeyAttributes, and they with it",
            )
        elif len(set(named)) < len(named):
            yield self._problem("an attribute is named twice", f"{path}.projection.nonKeyAttributes", "take one out")

    def _counts(self) -> Iterator[Problem]:
        spec = self._spec
        for field, found, most in (
            ("globalSecondaryIndexes", len(spec.global_secondary_indexes), GLOBAL_INDEXES_MAX),
            ("localSecondaryIndexes", len(spec.local_secondary_indexes), LOCAL_INDEXES_MAX),
        ):
            if found > most:
                yield self._problem(f"{found} indexes, and {most} are the most", f"$.{field}", "take some out")
        named = sum(len(index.projection.non_key_attributes) for _, _, index in spec.indexes())
        if named > NON_KEY_ATTRIBUTES_MAX:
            yield self._problem(
                f"{named} attributes are named in nonKeyAttributes of all indexes, and {NON_KEY_ATTRIBUTES_MAX} are "
                "the most",
                "$.globalSecondaryIndexes" if spec.global_secondary_indexes else "$.localSecondaryIndexes",
                'take some out, or write "projectionType": "ALL"',
            )

    def _names(self) -> Iterator[Problem]:
        seen: set[str] = set()
        for field, place, index in self._spec.indexes():
            if index.index_name in seen:
                yield self._problem(
                    f"there are two indexes {index.index_name!r}", f"$.{field}[{place}].indexName", "rename one"
                )
            seen.add(index.index_name)

    def _more(self) -> Iterator[Problem]:
        ends = self._spec.time_to_live
        keys = [element.attribute_name for element in self._spec.key_schema]
        if ends is not None and ends.attribute_name in keys:
            yield self._problem(
                f"{ends.attribute_name!r} is a key of the table, and cannot say when an item ends",
                "$.timeToLive.attributeName",
                "name another attribute",
            )
        tags = [tag.key for tag in self._spec.tags]
        for place, key in enumerate(tags):
            if key in tags[:place]:
                yield self._problem(f"the tag {key!r} is there twice", f"$.tags[{place}]", "take one out")


def _changed(before: TableSpec, after: TableSpec, file: str) -> Iterator[Problem]:
    """Keys of a table that is there stay, and so do those of an index under its name."""
    if _key(before, before.key_schema) != _key(after, after.key_schema):
        yield Problem(
            "the key of a table that is there cannot change",
            file,
            "$.keySchema",
            "add a table with the new key under another name, copy the items, then delete this one",
        )
    former = {index.index_name: _key(before, index.key_schema) for _, _, index in before.indexes()}
    for field, place, index in after.indexes():
        name = index.index_name
        if name in former and former[name] != _key(after, index.key_schema):
            yield Problem(
                f"the key of the index {name} that is there cannot change",
                file,
                f"$.{field}[{place}].keySchema",
                "give the index another name: it is built anew, and the old one goes",
            )


def _key(spec: TableSpec, elements: list[KeyElement]) -> list[tuple[str, str, str]]:
    """Attributes with their places and types. Those that are not defined are told of elsewhere."""
    types = {each.attribute_name: each.attribute_type for each in spec.attribute_definitions}
    return [(element.attribute_name, element.key_type, types.get(element.attribute_name, "")) for element in elements]
