"""What a table's file may say, and what may follow what."""

from typing import Any

import pytest

from owsgit.model.change import Change
from owsgit.model.errors import InvalidError
from owsgit.model.resource import Resource
from owsgit.model.state import State
from owsgit.services import KINDS
from tests.services.tables.api import PLAIN, WHOLE, document, keys
from tests.support.people import Person
from tests.support.projects import node_key


def resource(kind: str, name: str, given: dict[str, Any]) -> Resource:
    found = KINDS[kind]
    return Resource(found, name, found.spec.model_validate(given), "0" * 40)


def node(name: str) -> Resource:
    return resource("node", name, {"key": node_key(), "address": f"{name}.test"})


@pytest.fixture
def state(alice: Person) -> State:
    made = [
        resource("project", "", {"name": "shop", "roots": ["alice"]}),
        resource("user", "alice", {"keys": [alice.public]}),
        node("a"),
    ]
    return State.empty(KINDS).born("ab" * 20).after([Change(None, each) for each in made])


def added(state: State, given: dict[str, Any], name: str = "orders") -> State:
    return state.after([Change(state.get("table", name), resource("table", name, given))])


def refused(state: State, *changes: Change) -> list[str]:
    """Each problem: its path, what it says, and what to do about it."""
    with pytest.raises(InvalidError) as caught:
        state.after(list(changes))
    for problem in caught.value.problems:
        assert problem.file and problem.remedy
    return [f"{problem.path} {problem.message}; {problem.remedy}" for problem in caught.value.problems]


def wrong(state: State, given: dict[str, Any], name: str = "orders") -> list[str]:
    return refused(state, Change(state.get("table", name), resource("table", name, given)))


def index(name: str, *key: str, **more: Any) -> dict[str, Any]:
    return {"indexName": name, "keySchema": keys(*key), **more}


def with_indexes(*indexes: dict[str, Any], local: bool = False, **types: str) -> dict[str, Any]:
    field = "localSecondaryIndexes" if local else "globalSecondaryIndexes"
    return document(types=types, **{field: list(indexes)})


def test_a_table_is_taken_with_all_that_it_can_say(state: State) -> None:
    more = {
        "billingMode": "PROVISIONED",
        "provisionedThroughput": {"readCapacityUnits": 5, "writeCapacityUnits": 5},
        "streamSpecification": {"streamEnabled": True, "streamViewType": "NEW_IMAGE"},
        "timeToLive": {"attributeName": "ends"},
        "deletionProtectionEnabled": True,
        "tags": [{"key": "team", "value": "shop"}],
        "node": "a",
    }
    assert added(added(state, {**WHOLE, **more}), PLAIN, "other").get("table", "orders") is not None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (document(types={"x": "S"}), "$.attributeDefinitions[2] the attribute 'x' is in no key; take it out"),
        ({**PLAIN, "keySchema": keys("id", "x")}, "$.keySchema[1].attributeName the attribute 'x' is in a key and not defined; add"),
        ({**PLAIN, "keySchema": keys("id")[::-1] + keys("id")}, "$.keySchema 2 HASH and 0 RANGE attributes are no key; a key has one"),
        (document(keySchema=keys("pk", "sk")[::-1]), "$.keySchema HASH attributes come first; write"),
        (with_indexes(*(index(f"index-{place}", "sk") for place in range(21))), "$.globalSecondaryIndexes 21 indexes, and 20 are the most; take"),
        (with_indexes(*(index(f"index-{place}", "pk", "n") for place in range(6)), local=True, n="N"), "$.localSecondaryIndexes 6 indexes, and 5 are"),
        (with_indexes(index("one", "sk", "pk"), local=True), "$.localSecondaryIndexes[0].keySchema[0] a local index has the table's HASH attribute, 'pk', not 'sk'; write that, or make it a global"),
        (with_indexes(index("one", "pk"), local=True), "$.localSecondaryIndexes[0] local indexes are other orders"),
        (with_indexes(index("one", "sk"), index("one", "pk")), "$.globalSecondaryIndexes[1].indexName there are two indexes 'one'; rename"),
        (with_indexes(index("one", "sk", projection={"projectionType": "INCLUDE"})), "$.globalSecondaryIndexes[0].projection projectionType INCLUDE has to name"),
        ({**PLAIN, "timeToLive": {"attributeName": "id"}}, "$.timeToLive.attributeName 'id' is a key of the table"),
        ({**PLAIN, "tags": [{"key": "a", "value": "b"}] * 2}, "$.tags[1] the tag 'a' is there twice"),
        ({**PLAIN, "node": "z"}, "$.node there is no node 'z'"),
    ],
    ids=lambda value: value.split(" ")[0] if isinstance(value, str) else "",
)  # fmt: skip
def test_what_does_not_go_together_is_refused(state: State, given: dict[str, Any], said: str) -> None:
    assert any(problem.startswith(said) for problem in wrong(state, given)), wrong(state, given)


def test_a_node_that_goes_takes_no_table_along_unsaid(state: State) -> None:
    [said] = wrong(state, {**PLAIN, "node": "z"})
    assert said.endswith(
        "or add it; if the node is to go, what it keeps goes first: copy that elsewhere, and delete this file in the same commit"
    )


def test_a_name_has_three_characters(state: State) -> None:
    assert "a table's name has at least 3 characters" in wrong(state, PLAIN, "ab")[0]


def test_keys_of_what_is_there_stay(state: State) -> None:
    before = added(state, with_indexes(index("one", "sk")))
    assert wrong(before, document(keySchema=keys("pk"), attributeDefinitions=PLAIN["attributeDefinitions"]))
    [said] = wrong(before, {**PLAIN, "globalSecondaryIndexes": [index("one", "id")]})[:1]
    assert said.startswith("$.keySchema the key of a table that is there cannot change; add a table with the new key")
    [said] = wrong(before, with_indexes(index("one", "sk", "pk")))
    assert said.startswith("$.globalSecondaryIndexes[0].keySchema the key of the index one that is there cannot change")
    retyped = with_indexes(index("one", "sk"))
    retyped["attributeDefinitions"][1]["attributeType"] = "N"
    assert len(wrong(before, retyped)) == 2
    assert added(before, with_indexes(index("two", "sk", "pk"), index("one", "sk")))


def test_a_protected_table_stays(state: State) -> None:
    before = added(state, {**PLAIN, "deletionProtectionEnabled": True})
    [said] = refused(before, Change(before.get("table", "orders"), None))
    assert said.startswith("$.deletionProtectionEnabled the table is protected")
    after = added(before, PLAIN)
    assert after.after([Change(after.get("table", "orders"), None)]).get("table", "orders") is None


def test_it_is_known_on_which_node_a_table_is_and_it_stays_there(state: State) -> None:
    before = added(state, PLAIN)
    [said] = refused(before, Change(None, node("b")))
    assert said.startswith(
        '$.node there are nodes a, b, and nobody says on which of them the table is; add "node": "a"'
    )
    orders, told = before.get("table", "orders"), resource("table", "orders", {**PLAIN, "node": "a"})
    two = before.after([Change(None, node("b")), Change(orders, told)])
    [said] = wrong(two, {**PLAIN, "node": "b"})
    assert said.startswith("$.node the table is on node a with what it keeps, and cannot move to b; write")
    elsewhere = resource("table", "orders", {**PLAIN, "node": "b"})
    assert len(refused(before, Change(None, node("b")), Change(orders, elsewhere))) == 1
    one = two.after([Change(two.get("node", "b"), None)])
    assert added(one, PLAIN)
