"""Hostile bytes: changed commits, approvals, policies, resources and ref updates are refused in words, or mean the same."""

import json
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from owsgit.ledger import commits, receive, signatures, verdicts, verify
from owsgit.ledger.verify import Verified
from owsgit.model.change import Change
from owsgit.model.errors import InvalidError, OwsgitError, RefusedError
from owsgit.model.iam.context import Context
from owsgit.model.iam.decision import AttachedPolicy, compile_policies, decide
from owsgit.model.iam.document import PolicySpec
from owsgit.model.resource import Resource
from owsgit.services import KINDS
from tests.support import projects
from tests.support.people import Person
from tests.support.projects import Project, allow, function

EXAMPLES = 20_000 if os.environ.get("OWSGIT_SOAK") else 300
slow = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory, alice: Person) -> tuple[Project, Verified]:
    project = projects.create(tmp_path_factory.mktemp("fuzz") / "shop", alice)
    return project, verify.push(project.objects(), KINDS, None, project.head()).head


def edits(data: st.DataObject, original: bytes) -> bytes:
    """Some bytes changed, left out, doubled or put in."""
    changed = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed)))
        end = min(len(changed), at + data.draw(st.integers(0, 40)))
        how = data.draw(st.sampled_from(("replace", "remove", "double", "insert", "flip")))
        if how == "flip" and at < len(changed):
            changed[at] ^= data.draw(st.integers(1, 255))
        elif how == "replace":
            changed[at:end] = data.draw(st.binary(max_size=40))
        elif how == "remove":
            del changed[at:end]
        elif how == "double":
            changed[at:at] = changed[at:end]
        else:
            lines = (
                b"gpgsigX evil\n",
                b"gpgsig-sha256 x\n",
                b"parent " + b"0" * 40 + b"\n",
                b"\n",
                b"\0",
                b" ",
                b"mergetag x\n",
            )
            changed[at:at] = data.draw(st.sampled_from(lines))
    return bytes(changed)


@slow
@given(st.data())
def test_no_changed_commit_is_taken_for_a_signed_one(signed: tuple[Project, Verified], data: st.DataObject) -> None:
    project, head = signed
    original = project.objects().commit(head.commit)
    changed = edits(data, original)
    try:
        commit = commits.parse(head.commit, changed)
        signatures.signer(commit, head.state)
    except RefusedError:
        return
    assert changed == original, "the same signature made another commit"


@pytest.fixture(scope="module")
def approval(signed: tuple[Project, Verified], alice: Person) -> bytes:
    project, head = signed
    oid = project.verdict(head.commit, head.commit, alice, comment="fine\nwith me")
    return project.objects().tag(oid)


@slow
@given(st.data())
def test_no_changed_approval_is_taken_for_a_signed_one(
    signed: tuple[Project, Verified], approval: bytes, data: st.DataObject
) -> None:
    changed = edits(data, approval)
    try:
        verdict = verdicts.parse(changed)
        verdict.signer(signed[1].state)
    except RefusedError:
        return
    assert verdict.data == changed == approval


VALUES: Any = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-5, 5), st.text(max_size=5), st.floats(allow_nan=False),
        st.sampled_from(("*", "Allow", "Deny", "s3:*", "s3:GetObject", "iam:?reateUser", "2012-10-17", "arn:aws:s3:::b/${aws:username}",
                         "${", "${aws:username, 'x'}", "arn:*", "10.0.0.0/8", "true", "1e400", "2020-01-01T00:00:00Z")),
    ),
    lambda below: st.one_of(
        st.lists(below, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ("Effect", "Action", "NotAction", "Resource", "NotResource", "Principal", "Condition", "Sid", "AWS", "StringLike",
                 "ForAnyValue:StringNotEqualsIfExists", "Null", "NumericLessThan", "IpAddress", "DateEquals", "aws:username",
                 "s3:prefix", "aws:SourceIp")
            ),
            below,
            max_size=4,
        ),
    ),
    max_leaves=12,
)  # fmt: skip
POLICIES = st.fixed_dictionaries(
    {"Statement": st.one_of(VALUES, st.lists(st.fixed_dictionaries(
        {"Effect": st.sampled_from(("Allow", "Deny")), "Action": VALUES, "Resource": VALUES}, optional={"Condition": VALUES}
    ), max_size=3))},
    optional={"Version": VALUES, "Id": VALUES},
)  # fmt: skip
CONTEXT = Context.of({"aws:username": "bob", "aws:SourceIp": "10.0.0.1", "s3:prefix": "*"})


@slow
@given(POLICIES)
def test_any_policy_is_refused_in_words_or_decides(document: dict[str, Any]) -> None:
    try:
        spec = PolicySpec.parse(json.dumps(document).encode(), "policies/p.json")
    except InvalidError as error:
        assert all(problem.file == "policies/p.json" and problem.message for problem in error.problems)
        return
    policies = compile_policies([AttachedPolicy("policies/p.json", "$", spec)])
    decision = decide("bob", policies, "s3:GetObject", "arn:aws:s3:::b/bob", CONTEXT)
    assert decision.reason


GOOD: dict[str, tuple[str, dict[str, Any]]] = {
    "user": ("u", {"keys": [projects.node_key()], "policies": [], "inlinePolicies": {"a": allow("s3:*")}}),
    "group": ("g", {"members": [], "policies": []}),
    "role": ("r", {"trust": {"Statement": [{"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole"}]}}),
    "policy": ("p", allow("s3:GetObject")),
    "node": ("n", {"key": projects.node_key(), "address": "n.example.com"}),
    "function": ("f", function(secrets={"A_B": {"secret": "s"}}, environment={"XY": "z"})),
    "gateway": ("w", {"port": 80, "routes": {"GET /{x}": {"function": "f"}}}),
}


@slow
@given(st.sampled_from(sorted(GOOD)), st.data())
def test_any_document_is_refused_in_words_or_becomes_state(
    signed: tuple[Project, Verified], kind: str, data: st.DataObject
) -> None:
    name, document = GOOD[kind]
    text = edits(data, json.dumps(document).encode())
    found = KINDS[kind]
    try:
        spec = found.spec.parse(text, found.file(name))
        made = Resource(found, name, spec, "0" * 40, "1" * 40 if found.has_files else None)
        signed[1].state.after([Change(None, made)])
    except InvalidError as error:
        assert all(problem.file and problem.message for problem in error.problems)


@slow
@given(st.data())
def test_any_list_of_ref_updates_is_refused_or_moves_one_known_ref(data: st.DataObject) -> None:
    line = f"{'0' * 40} {'a' * 40} refs/heads/main\n"
    commands = edits(data, (line * data.draw(st.integers(1, 2))).encode()).decode("utf-8", "surrogateescape")
    try:
        update = receive.update(commands, data.draw(st.lists(st.text(max_size=9), max_size=2)))
    except OwsgitError:
        return
    assert commands.strip("\n").endswith(update.ref) and len(update.new) == 40
    assert update.ref == "refs/heads/main" or update.ref.startswith(("refs/for/main", *receive.VERDICTS))


def test_hostile_policies_are_bounded_before_they_are_compiled() -> None:
    """Long patterns, many of them, deep nesting; and what is taken is matched in linear time."""

    def policy(resources: list[str]) -> PolicySpec:
        document = {"Statement": {"Effect": "Allow", "Action": "s3:*", "Resource": resources}}
        return PolicySpec.parse(json.dumps(document).encode(), "policies/p.json")

    with pytest.raises(InvalidError, match="at most 2,048 are taken"):
        policy(["arn:aws:s3:::" + "*a" * 2_000])
    with pytest.raises(InvalidError, match="at most 65,536 are taken"):
        policy(["arn:aws:s3:::" + "*a" * 1_000] * 50)
    spec = policy(["arn:aws:s3:::" + "*a" * 1_000 + str(number) for number in range(30)])
    policies = compile_policies([AttachedPolicy("policies/p.json", "$", spec)])
    assert not decide("bob", policies, "s3:GetObject", "arn:aws:s3:::" + "a" * 50_000 + "b").allowed
    deep: Any = "x"
    for _ in range(200):
        deep = {"Statement": deep}
    with pytest.raises(InvalidError):
        PolicySpec.parse(json.dumps(deep).encode(), "policies/p.json")
