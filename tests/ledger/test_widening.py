"""No accepted change gives its own signer more rights, unless an iam: action allowed it. Over random ledgers and changes."""

import json
import os
from collections.abc import Iterator
from itertools import product
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from owsgit.ledger import grants, verify
from owsgit.ledger.grants import Signatories
from owsgit.ledger.signatures import Signer
from owsgit.model.change import Change
from owsgit.model.errors import InvalidError
from owsgit.model.resource import Resource
from owsgit.model.state import State
from owsgit.services import KINDS
from tests.support import projects
from tests.support.projects import function

ACTIONS = (
    "iam:AttachUserPolicy", "iam:CreatePolicyVersion", "iam:AddUserToGroup", "iam:PutUserPolicy", "iam:PassRole",
    "lambda:UpdateFunctionCode", "lambda:UpdateFunctionConfiguration", "lambda:InvokeFunction", "lambda:AddPermission",
    "sts:AssumeRole", "ows:UpdateProject", "ows:AddNode", "ows:UpdateFile", "apigateway:PATCH",
)  # fmt: skip
PATTERNS = (*ACTIONS, "iam:*", "lambda:*", "ows:*", "sts:*", "*")
RESOURCES = (
    "*",
    "arn:aws:iam::*:user/*",
    "arn:aws:iam::*:policy/p1",
    "arn:aws:lambda:*:*:function:f",
    "arn:aws:iam::*:role/r",
)
NAMES = ("bob", "carol")

documents = st.builds(
    lambda statements: {"Version": "2012-10-17", "Statement": statements},
    st.lists(
        st.builds(
            lambda effect, action, resource: {"Effect": effect, "Action": action, "Resource": resource},
            st.sampled_from(("Allow", "Allow", "Allow", "Deny")),
            st.one_of(st.sampled_from(PATTERNS), st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=3)),
            st.sampled_from(RESOURCES),
        ),
        min_size=1,
        max_size=3,
    ),
)
attached = st.lists(st.sampled_from(("p1", "p2", "p3")), max_size=2, unique=True)
boundaries = st.sampled_from((None, None, None, "p3"))


def _clean(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if value is not None}


users = st.builds(
    lambda policies, inline, boundary: _clean(
        {"policies": policies, "inlinePolicies": inline, "permissionsBoundary": boundary}
    ),
    attached,
    st.dictionaries(st.just("own"), documents, max_size=1),
    boundaries,
)
groups = st.builds(
    lambda members, policies: {"members": members, "policies": policies},
    st.lists(st.sampled_from(NAMES), max_size=2, unique=True),
    attached,
)
roles = st.builds(
    lambda policies, who: {
        "policies": policies,
        "trust": {
            "Statement": [
                {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"},
                *(
                    [
                        {
                            "Effect": "Allow",
                            "Principal": {"AWS": f"arn:aws:iam::*:user/{who}"},
                            "Action": "sts:AssumeRole",
                        }
                    ]
                    if who
                    else []
                ),
            ]
        },
    },
    attached,
    st.sampled_from((None, *NAMES)),
)
functions = st.builds(
    lambda role, who, timeout: _clean(
        {
            **function(),
            "timeout": timeout,
            "role": role,
            "policy": who
            and {
                "Statement": [
                    {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::*:user/{who}"},
                     "Action": "lambda:*", "Resource": "*"},
                ]
            },
        }
    ),
    st.sampled_from((None, "r")),
    st.sampled_from((None, None, *NAMES)),
    st.integers(1, 3),
)  # fmt: skip
ledgers = st.fixed_dictionaries(
    {
        ("user", "bob"): users,
        ("user", "carol"): users,
        ("group", "ops"): groups,
        ("policy", "p1"): documents,
        ("policy", "p2"): documents,
        ("policy", "p3"): documents,
        ("role", "r"): roles,
        ("function", "f"): functions,
    }
)
FIXED: dict[tuple[str, str], dict[str, Any]] = {
    ("project", ""): {"name": "shop", "roots": ["alice"]},
    ("user", "alice"): {"keys": [projects.node_key()]},
}


def resource(kind: str, name: str, document: dict[str, Any]) -> Resource:
    found = KINDS[kind]
    data = json.dumps(document).encode()
    code = "1" * 40 if kind == "function" else None
    spec = found.spec.parse(data, found.file(name))
    return Resource(found, name, spec, f"{hash(data):x}", f"{hash(data):x}" if code else None, code)


def state_of(ledger: dict[tuple[str, str], dict[str, Any]]) -> State:
    made = [Change(None, resource(*key, document)) for key, document in {**FIXED, **ledger}.items()]
    return State.empty(KINDS).born("ab" * 20).after(made)


def rights(state: State, user: str) -> set[tuple[str, str]]:
    arns = [each.arn(state.scope) for each in state.resources.values()]
    return {(action, arn) for action, arn in product(ACTIONS, arns) if state.decide(user, action, arn).allowed}


def changes(state: State, wanted: dict[tuple[str, str], dict[str, Any]]) -> Iterator[Change]:
    for (kind, name), document in wanted.items():
        before, after = state.get(kind, name), resource(kind, name, document)
        if before is None or before.document() != after.document():
            yield Change(before, after)


@settings(max_examples=20_000 if os.environ.get("OWSGIT_SOAK") else 100, deadline=None)
@given(ledgers, ledgers, st.sets(st.sampled_from(range(8)), max_size=3))
def test_nobody_widens_their_own_rights_without_an_iam_action(
    before: dict[tuple[str, str], Any], after: dict[tuple[str, str], Any], which: set[int]
) -> None:
    keys = list(before)
    wanted = {keys[index]: after[keys[index]] for index in which}
    state = state_of(before)
    found = list(changes(state, wanted))
    signatories = Signatories(state, Signer("bob", "ssh-ed25519", ""))
    needed = (need for change in found for need in change.needs(state.scope, state.kinds))
    given_, denied = verify.decisions(signatories, needed)
    if denied or list(grants.root_problems(signatories, found)):
        return
    try:
        changed = state.after(found)
    except InvalidError:
        return
    everything = [Change(None, each) for each in changed.resources.values()]
    loaded = State.empty(KINDS).born(changed.genesis).after(everything, trusted=True)
    assert set(loaded.resources) == set(changed.resources), "what is accepted is what a node can start with"
    more = rights(changed, "bob") - rights(state, "bob")
    guards = {grant.need.action for grant in given_}
    assert not more or any(action.startswith("iam:") or action == "lambda:AddPermission" for action in guards), more


def test_the_property_is_about_something() -> None:
    """A policy that may be rewritten widens; one that lets itself be rewritten without a right would be found."""
    allow = {"Effect": "Allow", "Action": "iam:CreatePolicyVersion", "Resource": "*"}
    ledger: dict[tuple[str, str], dict[str, Any]] = {
        ("user", "bob"): {"policies": ["p1"]},
        ("policy", "p1"): {"Version": "2012-10-17", "Statement": [allow]},
    }
    state = state_of(ledger)
    wide = {"Version": "2012-10-17", "Statement": [{**allow, "Action": "*"}]}
    (change,) = changes(state, {("policy", "p1"): wide})
    assert [need.action for need in change.needs(state.scope, state.kinds)] == ["iam:CreatePolicyVersion"]
    assert rights(state.after([change]), "bob") > rights(state, "bob")
