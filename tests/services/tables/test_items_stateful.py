"""Random operations on items, with expressions and indexes, against dictionaries and what Python says of them."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from owsgit.aws.api import ServiceError
from tests.services.tables.api import WHOLE, Tables, TablesBeside

Item = dict[str, dict[str, Any]]
Key = tuple[str, str]

PKS, SKS = ("a", "b"), ("", "1", "11", "2", "é", "😀", "\ufffd")
KEYS = st.tuples(st.sampled_from(PKS), st.sampled_from(SKS[1:]))
NUMBERS = st.sampled_from(["-10", "-1", "0", "0.5", "2", "10"])
VALUES = st.one_of(
    st.builds(lambda text: {"S": text}, st.sampled_from(["", "x", "xy"])),
    st.builds(lambda number: {"N": number}, NUMBERS),
    st.builds(lambda members: {"SS": sorted(members)}, st.sets(st.sampled_from("pqr"), min_size=1)),
)
REST = st.fixed_dictionaries(
    {},
    optional={
        "g": st.builds(lambda text: {"S": text}, st.sampled_from("xy")),
        "n": st.builds(lambda number: {"N": number}, NUMBERS),
        "v": VALUES,
        "w": VALUES,
    },
)


class Condition(NamedTuple):
    """An expression, its values, and the same in Python."""

    text: str
    values: dict[str, Any]
    holds: Callable[[Item], bool]


def _order(value: Any) -> Any:
    """What Python compares as DynamoDB does; values of other types compare with nothing."""
    if value is None or "SS" in value:
        return None
    return ("N", float(value["N"])) if "N" in value else ("S", value["S"].encode())


def _compared(name: str, operator: str, value: Any) -> Condition:
    def holds(item: Item) -> bool:
        mine = item.get(name)
        if operator in ("=", "<>"):
            return (mine == value) is (operator == "=")
        left, right = _order(mine), _order(value)
        if left is None or left[0] != right[0]:
            return False
        return bool({"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[operator])

    return Condition(f"{name} {operator} :c", {":c": value}, holds)


NAMES = st.sampled_from(["g", "n", "v", "w"])
CONDITIONS = st.one_of(
    st.builds(lambda name: Condition(f"attribute_exists({name})", {}, lambda item: name in item), NAMES),
    st.builds(lambda name: Condition(f"attribute_not_exists({name})", {}, lambda item: name not in item), NAMES),
    st.builds(_compared, NAMES, st.sampled_from(["=", "<>"]), VALUES),
    st.builds(
        _compared, NAMES, st.sampled_from(["<", "<=", ">", ">="]), VALUES.filter(lambda value: "SS" not in value)
    ),
    st.builds(
        lambda name, a, b: Condition(
            f"NOT ({a.text} AND attribute_exists({name}))", a.values, lambda item: not (a.holds(item) and name in item)
        ),
        NAMES,
        st.builds(_compared, NAMES, st.just("="), VALUES),
        st.none(),
    ),
)
MAYBE = st.none() | CONDITIONS


class Change(NamedTuple):
    """An update expression, its values, and the same in Python: None where it does not fit the item."""

    text: str
    values: dict[str, Any]
    apply: Callable[[Item], Item | None]
    creates: bool = True


def _added(name: str, number: str) -> Change:
    def apply(item: Item) -> Item | None:
        old = item.get(name, {"N": "0"})
        return {**item, name: {"N": _written(float(old["N"]) + float(number))}} if "N" in old else None

    return Change(f"ADD {name} :u", {":u": {"N": number}}, apply)


def _written(number: float) -> str:
    return str(int(number)) if number == int(number) else str(number)


def _united(members: list[str], verb: str) -> Change:
    def apply(item: Item) -> Item | None:
        old = item.get("v")
        if old is not None and "SS" not in old:
            return None
        before = set(old["SS"]) if old else set()
        after = before | set(members) if verb == "ADD" else before - set(members)
        rest = {name: value for name, value in item.items() if name != "v"}
        return {**rest, "v": {"SS": sorted(after)}} if after else rest

    return Change(f"{verb} v :u", {":u": {"SS": members}}, apply, verb == "ADD")


CHANGES = st.one_of(
    st.builds(lambda name, value: Change(f"SET {name} = :u", {":u": value}, lambda item: {**item, name: value}), st.sampled_from("vw"), VALUES),
    st.builds(lambda number: Change("SET n = :u", {":u": {"N": number}}, lambda item: {**item, "n": {"N": number}}), NUMBERS),
    st.builds(lambda: Change("SET w = v", {}, lambda item: {**item, "w": item["v"]} if "v" in item else None)),
    st.builds(lambda value: Change("SET w = if_not_exists(v, :u) REMOVE v", {":u": value}, lambda item: {**{k: x for k, x in item.items() if k != "v"}, "w": item.get("v", value)}), VALUES),
    st.builds(lambda name: Change(f"REMOVE {name}", {}, lambda item: {k: x for k, x in item.items() if k != name}, creates=False), NAMES),
    st.builds(_added, st.sampled_from("nv"), NUMBERS),
    st.builds(_united, st.lists(st.sampled_from("pqr"), min_size=1, unique=True), st.sampled_from(["ADD", "DELETE"])),
)  # fmt: skip

ACTIONS = st.one_of(
    st.tuples(st.just("Put"), REST, MAYBE),
    st.tuples(st.just("Update"), CHANGES, MAYBE),
    st.tuples(st.just("Delete"), st.none(), MAYBE),
    st.tuples(st.just("ConditionCheck"), st.none(), CONDITIONS),
)
Action = tuple[str, Any, Condition | None]
FAILED = object()


def _key(key: Key) -> Item:
    return {"pk": {"S": key[0]}, "sk": {"S": key[1]}}


class Items(RuleBasedStateMachine):
    made: type[Tables] = Tables

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.tables = self.made(Path(self.folder.name))
        self.tables.add("whole", WHOLE)
        self.model: dict[Key, Item] = {}

    def teardown(self) -> None:
        self.tables.close()
        self.folder.cleanup()

    def outcome(self, key: Key, action: Action) -> Any:
        """The item afterwards (None for none), or FAILED."""
        kind, what, condition = action
        old = self.model.get(key)
        if condition is not None and not condition.holds(old or {}):
            return FAILED
        if kind == "Put":
            return {**_key(key), **what}
        if kind == "Delete":
            return None
        if kind == "ConditionCheck":
            return old
        new = what.apply(old or _key(key))
        if new is None:
            return FAILED
        return new if old is not None or what.creates else None

    def become(self, key: Key, new: Item | None) -> None:
        self.model.pop(key, None)
        if new is not None:
            self.model[key] = new

    def request(self, key: Key, action: Action) -> dict[str, Any]:
        kind, what, condition = action
        values = {**(condition.values if condition else {}), **(what.values if kind == "Update" else {})}
        found: dict[str, Any] = {"TableName": "whole"}
        found |= {"Item": {**_key(key), **what}} if kind == "Put" else {"Key": _key(key)}
        if kind == "Update":
            found["UpdateExpression"] = what.text
        if condition is not None:
            found["ConditionExpression"] = condition.text
        return found | ({"ExpressionAttributeValues": values} if values else {})

    def call(self, operation: str, **parameters: Any) -> Any:
        try:
            return self.tables.call(operation, **parameters)
        except ServiceError as error:
            assert error.code in (
                "ConditionalCheckFailedException", "TransactionCanceledException", "ValidationException"
            ), error  # fmt: skip
            return FAILED

    @rule(key=KEYS, action=ACTIONS.filter(lambda action: action[0] != "ConditionCheck"))
    def write(self, key: Key, action: Action) -> None:
        old, new = self.model.get(key), self.outcome(key, action)
        done = self.call(f"{action[0]}Item", **self.request(key, action), ReturnValues="ALL_OLD")
        assert done == (FAILED if new is FAILED else {"Attributes": old} if old else {})
        if new is not FAILED:
            self.become(key, new)

    @rule(actions=st.dictionaries(KEYS, ACTIONS, min_size=1, max_size=4))
    def write_together(self, actions: dict[Key, Action]) -> None:
        outcomes = {key: self.outcome(key, action) for key, action in actions.items()}
        done = self.call(
            "TransactWriteItems", TransactItems=[{each[0]: self.request(key, each)} for key, each in actions.items()]
        )
        if FAILED in outcomes.values():
            assert done is FAILED
            return
        assert done == {}
        for key, new in outcomes.items():
            self.become(key, new)

    @rule(changes=st.dictionaries(KEYS, st.none() | REST, min_size=1, max_size=5))
    def write_many(self, changes: dict[Key, Item | None]) -> None:
        requests = [
            {"DeleteRequest": {"Key": _key(key)}} if rest is None else {"PutRequest": {"Item": {**_key(key), **rest}}}
            for key, rest in changes.items()
        ]
        assert self.call("BatchWriteItem", RequestItems={"whole": requests}) == {"UnprocessedItems": {}}
        for key, rest in changes.items():
            self.become(key, None if rest is None else {**_key(key), **rest})

    def pages(self, operation: str, **asked: Any) -> Iterator[Item]:
        start: dict[str, Any] = {}
        while True:
            page = self.tables.call(operation, TableName="whole", **asked, **start)
            yield from page["Items"]
            if "LastEvaluatedKey" not in page:
                return
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    @rule(
        pk=st.sampled_from(PKS),
        form=st.sampled_from(["", "=", "<", ">=", "BETWEEN", "begins_with"]),
        bounds=st.tuples(st.sampled_from(SKS[1:]), st.sampled_from(SKS[1:])).map(
            lambda both: tuple(sorted(both, key=str.encode))
        ),
        forward=st.booleans(),
        limit=st.integers(1, 4),
        wanted=MAYBE,
    )
    def query(
        self, pk: str, form: str, bounds: tuple[str, str], forward: bool, limit: int, wanted: Condition | None
    ) -> None:
        low, high = bounds
        texts = {
            "": "", "BETWEEN": " AND sk BETWEEN :l AND :h", "begins_with": " AND begins_with(sk, :l)"
        }  # fmt: skip
        text = "pk = :p" + texts.get(form, f" AND sk {form} :l")
        given = {":p": {"S": pk}, ":l": {"S": low}, ":h": {"S": high}}
        values = {name: value for name, value in given.items() if name in text}
        fits: dict[str, Callable[[str], bool]] = {
            "": lambda sk: True,
            "=": lambda sk: sk == low,
            "<": lambda sk: sk.encode() < low.encode(),
            ">=": lambda sk: sk.encode() >= low.encode(),
            "BETWEEN": lambda sk: low.encode() <= sk.encode() <= high.encode(),
            "begins_with": lambda sk: sk.startswith(low),
        }
        asked: dict[str, Any] = {}
        if wanted is not None:
            asked["FilterExpression"] = wanted.text
            values |= wanted.values
        found = list(
            self.pages("Query", KeyConditionExpression=text, ExpressionAttributeValues=values, Limit=limit, ScanIndexForward=forward, **asked)
        )  # fmt: skip
        keys = sorted(
            (key for key in self.model if key[0] == pk and fits[form](key[1])),
            key=lambda key: key[1].encode(),
            reverse=not forward,
        )
        items = [self.model[key] for key in keys]
        assert found == [item for item in items if wanted is None or wanted.holds(item)]

    @rule(g=st.sampled_from("xy"), low=NUMBERS, forward=st.booleans(), limit=st.integers(1, 4))
    def query_the_index(self, g: str, low: str, forward: bool, limit: int) -> None:
        values = {":g": {"S": g}, ":n": {"N": low}}
        found = list(
            self.pages("Query", IndexName="global", KeyConditionExpression="g = :g AND n >= :n", ExpressionAttributeValues=values, Limit=limit, ScanIndexForward=forward)
        )  # fmt: skip
        wanted = [
            item
            for item in self.model.values()
            if item.get("g") == {"S": g} and "n" in item and float(item["n"]["N"]) >= float(low)
        ]
        assert sorted(found, key=repr) == sorted(wanted, key=repr)
        numbers = [float(item["n"]["N"]) for item in found]
        assert numbers == sorted(numbers, reverse=not forward)

    @rule(segments=st.integers(1, 4), limit=st.integers(1, 4))
    def scan(self, segments: int, limit: int) -> None:
        found = [
            item
            for segment in range(segments)
            for item in self.pages("Scan", Segment=segment, TotalSegments=segments, Limit=limit)
        ]
        assert sorted(found, key=repr) == sorted(self.model.values(), key=repr)

    @invariant()
    def every_item_is_as_the_model_has_it(self) -> None:
        keys = [(pk, sk) for pk in PKS for sk in SKS[1:]]
        gets = [{"Get": {"TableName": "whole", "Key": _key(key)}} for key in keys]
        found = self.tables.call("TransactGetItems", TransactItems=gets)["Responses"]
        assert [each.get("Item") for each in found] == [self.model.get(key) for key in keys]


class ItemsBeside(Items):
    made = TablesBeside


TestItems, TestItemsBeside = Items.TestCase, ItemsBeside.TestCase
TestItems.settings = TestItemsBeside.settings = settings(
    max_examples=400 if os.environ.get("OWSGIT_SOAK") else 8,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],  # the disk counts; machines have long runs
)
