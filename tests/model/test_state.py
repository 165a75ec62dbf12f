"""The state of a project, and what changes of it need."""

import json
from typing import Any

import pytest

from owsgit.model.change import Change, Verb
from owsgit.model.errors import InvalidError
from owsgit.model.resource import Resource
from owsgit.model.state import State
from owsgit.services import KINDS
from tests.support.people import Person
from tests.support.projects import allow, function


def resource(kind: str, name: str, document: dict[str, Any], code: str | None = None) -> Resource:
    found = KINDS[kind]
    data = json.dumps(document).encode()
    return Resource(found, name, found.spec.parse(data, found.file(name)), f"{hash(data):x}", code, code)


def created(*resources: Resource) -> list[Change]:
    return [Change(None, each) for each in resources]


@pytest.fixture
def state(alice: Person, bob: Person) -> State:
    return (
        State.empty(KINDS)
        .born("ab" * 20)
        .after(
            created(
                resource("project", "", {"name": "shop", "roots": ["alice"]}),
                resource("user", "alice", {"keys": [alice.public]}),
                resource("user", "bob", {"keys": [bob.public], "policies": ["own"]}),
                resource("group", "ops", {"members": ["bob"], "policies": ["ops"]}),
                resource("policy", "own", allow("lambda:GetFunction")),
                resource("policy", "ops", allow("logs:*")),
                resource("function", "f", function(), "1" * 40),
                resource("gateway", "api", {"port": 80, "routes": {"GET /": {"function": "f"}}}),
            )
        )
    )


def problems(state: State, *changes: Change) -> list[str]:
    with pytest.raises(InvalidError) as caught:
        state.after(changes)
    return [str(problem) for problem in caught.value.problems]


def test_rights_come_from_own_policies_groups_and_being_root(state: State) -> None:
    assert state.decide("bob", "lambda:GetFunction", "arn:aws:x:::y").allowed
    assert (
        state.decide("bob", "logs:GetLogEvents", "arn:aws:x:::y").reason
        == "allowed by policies/ops.json $.Statement[0]"
    )
    assert not state.decide("bob", "iam:CreateUser", "arn:aws:x:::y").allowed
    assert state.decide("alice", "iam:CreateUser", "arn:aws:x:::y").allowed
    assert not state.decide("nobody", "lambda:GetFunction", "arn:aws:x:::y").allowed


def test_a_route_to_a_missing_function_names_the_nearest(state: State) -> None:
    gateway = resource("gateway", "b", {"port": 81, "routes": {"GET /x y".replace(" y", ""): {"function": "ff"}}})
    (problem,) = problems(state, *created(gateway))
    assert problem.startswith("gateways/b.json $.routes['GET /x'].function: there is no function 'ff'")


def test_what_is_still_referred_to_cannot_go(state: State) -> None:
    assert problems(state, Change(state.get("function", "f"), None))[0].startswith(
        "gateways/api.json $.routes['GET /'].function"
    )
    assert problems(state, Change(state.get("user", "bob"), None))[0].startswith("groups/ops.json $.members[0]")
    gone = state.after([Change(state.get("gateway", "api"), None), Change(state.get("function", "f"), None)])
    assert gone.get("function", "f") is None


def test_a_port_and_a_key_belong_to_one_resource_only(state: State, bob: Person) -> None:
    (problem,) = problems(state, *created(resource("gateway", "b", {"port": 80, "routes": {}})))
    assert problem == "gateways/b.json $.port: port 80 is used by gateways/api.json already"
    (problem,) = problems(state, *created(resource("user", "eve", {"keys": [bob.public + " other comment"]})))
    assert "is used by users/bob.json already" in problem


def test_a_port_and_a_key_can_move_in_one_commit(state: State, bob: Person) -> None:
    after = state.after(
        [
            Change(state.get("gateway", "api"), resource("gateway", "api", {"port": 81, "routes": {}})),
            *created(resource("gateway", "b", {"port": 80, "routes": {}})),
            Change(state.get("user", "bob"), resource("user", "bob", {"policies": ["own"]})),
            *created(resource("user", "robert", {"keys": [bob.public]})),
        ]
    )
    assert after.claims["port", "80"] == "gateways/b"
    assert state.claims["port", "80"] == "gateways/api", "the state before is as it was"


def needs(change: Change, state: State) -> list[tuple[str, str]]:
    return [(need.action, need.arn.rsplit(":", 1)[-1]) for need in change.needs(state.scope, KINDS)]


def test_each_field_needs_its_own_action(state: State, bob: Person) -> None:
    before = state.get("user", "bob")
    assert needs(
        Change(before, resource("user", "bob", {"keys": [bob.public], "policies": ["own", "ops"]})), state
    ) == [("iam:AttachUserPolicy", "user/bob")]
    assert needs(Change(before, resource("user", "bob", {"keys": [], "policies": ["own"]})), state) == [
        ("iam:DeleteSSHPublicKey", "user/bob")
    ]
    assert needs(
        Change(before, resource("user", "bob", {"keys": [bob.public], "policies": ["ops"], "email": "b@x"})), state
    ) == [
        ("iam:UpdateUser", "user/bob"),
        ("iam:AttachUserPolicy", "user/bob"),
        ("iam:DetachUserPolicy", "user/bob"),
    ]
    assert needs(Change(before, None), state) == [
        ("iam:DeleteUser", "user/bob"),
        ("iam:DeleteSSHPublicKey", "user/bob"),
        ("iam:DetachUserPolicy", "user/bob"),
    ]


def test_inline_policies_and_members_are_guarded_one_by_one(state: State) -> None:
    group = state.get("group", "ops")
    more = resource(
        "group", "ops", {"members": ["bob", "alice"], "policies": ["ops"], "inlinePolicies": {"x": allow("*")}}
    )
    assert needs(Change(group, more), state) == [
        ("iam:PutGroupPolicy", "group/ops"),
        ("iam:AddUserToGroup", "group/ops"),
    ]
    assert needs(Change(more, group), state) == [
        ("iam:DeleteGroupPolicy", "group/ops"),
        ("iam:RemoveUserFromGroup", "group/ops"),
    ]


def test_a_reordered_list_is_a_change_too(state: State) -> None:
    one = resource("user", "x", {"policies": ["own", "ops"]})
    other = resource("user", "x", {"policies": ["ops", "own"]})
    assert needs(Change(one, other), state) == [("iam:AttachUserPolicy", "user/x")]


def test_creating_with_rights_needs_the_rights_actions_too(state: State) -> None:
    change = Change(None, resource("user", "eve", {"policies": ["ops"]}))
    assert needs(change, state) == [("iam:CreateUser", "user/eve"), ("iam:AttachUserPolicy", "user/eve")]


def test_giving_a_role_to_a_function_needs_pass_role(state: State) -> None:
    state = state.after(created(resource("role", "reader", {"policies": ["own"]})))
    before = state.get("function", "f")
    with_role = resource("function", "f", function(role="reader"), "1" * 40)
    assert ("iam:PassRole", "role/reader") in needs(Change(before, with_role), state)
    again = resource("function", "f", function(role="reader", timeout=9), "1" * 40)
    assert ("iam:PassRole", "role/reader") not in needs(Change(with_role, again), state)


def test_code_and_configuration_are_two_actions(state: State) -> None:
    before = state.get("function", "f")
    code = Change(before, before, ("functions/f/app.py",))
    assert needs(code, state) == [("lambda:UpdateFunctionCode", "f")]
    both = Change(before, resource("function", "f", function(timeout=9), "2" * 40), ("functions/f/app.py",))
    assert [action for action, _ in needs(both, state)] == [
        "lambda:UpdateFunctionCode",
        "lambda:UpdateFunctionConfiguration",
    ]
    assert both.verb is Verb.UPDATE


def test_a_gateway_cannot_have_a_nodes_port(state: State) -> None:
    node = resource("node", "n", {"key": NODE_KEY, "address": "10.0.0.1", "ports": {"ssh": 7022}})
    with_node = state.after(created(node))
    assert (
        "port 7022 is used by nodes/n.json already"
        in problems(with_node, *created(resource("gateway", "b", {"port": 7022, "routes": {}})))[0]
    )
    other = resource("node", "m", {"key": NODE_KEY, "address": "10.0.0.2", "ports": {"ssh": 80}})
    assert "port 80 is used by gateways/api.json already" in problems(state, *created(other))[0]


NODE_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJT1v+2IQ273o5HMPrGW/EISKyT7RkigUzWyCfHixaOq"
