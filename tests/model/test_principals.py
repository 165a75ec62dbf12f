"""Policies of resources, trust policies, sessions: who is named, and what it takes besides.

The cases of same-account evaluation are those of AWS's own table:
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic_policy-eval-basics-resource.html
"""

import json
from typing import Any

import pytest

from owsgit.model.errors import InvalidError
from owsgit.model.iam.context import Context
from owsgit.model.iam.decision import AttachedPolicy, Decision, Policies, ResourcePolicy, compile_policies, decide
from owsgit.model.iam.document import PolicyDocument, ResourcePolicyDocument
from owsgit.model.iam.principal import Caller, Match, Principals
from owsgit.services import KINDS

ACCOUNT = "123456789012"
USER = f"arn:aws:iam::{ACCOUNT}:user/bob"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/deploy"
SESSION = f"arn:aws:sts::{ACCOUNT}:assumed-role/deploy/build-1"
BOB = Caller("bob", USER, ACCOUNT)
BUILD = Caller("build", SESSION, ACCOUNT, role_arn=ROLE)
LAMBDA = Caller("lambda.amazonaws.com", service="lambda.amazonaws.com")
BUCKET = "arn:aws:s3:::bucket/key"


def policies(*effects: str) -> Policies:
    return compile_policies(
        [
            AttachedPolicy("p.json", "$", PolicyDocument.model_validate({"Statement": _statement(effect)}))
            for effect in effects
        ]
    )


def _statement(effect: str, **more: Any) -> dict[str, Any]:
    return {"Effect": effect, "Action": "s3:GetObject", "Resource": "*", **more}


def on_resource(*statements: dict[str, Any]) -> ResourcePolicy:
    document = ResourcePolicyDocument.model_validate({"Version": "2012-10-17", "Statement": list(statements)})
    return ResourcePolicy(AttachedPolicy("r.json", "$.policy", document))


def asked(caller: Caller, resource: ResourcePolicy | None, identity: Policies | None = None, **limits: Any) -> Decision:
    given = identity if identity is not None else policies()
    return decide(caller, given, "s3:GetObject", BUCKET, resource=resource, **limits)


@pytest.mark.parametrize(
    ("element", "bob", "build", "service"),
    [
        ("*", Match.WIDE, Match.WIDE, Match.WIDE),
        ({"AWS": "*"}, Match.WIDE, Match.WIDE, Match.WIDE),
        ({"AWS": ACCOUNT}, Match.ACCOUNT, Match.ACCOUNT, Match.NONE),
        ({"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, Match.ACCOUNT, Match.ACCOUNT, Match.NONE),
        ({"AWS": "210987654321"}, Match.NONE, Match.NONE, Match.NONE),
        ({"AWS": USER}, Match.EXACT, Match.NONE, Match.NONE),
        ({"AWS": "arn:aws:iam::*:user/bob"}, Match.EXACT, Match.NONE, Match.NONE),
        ({"AWS": USER.replace(ACCOUNT, "210987654321")}, Match.NONE, Match.NONE, Match.NONE),
        ({"AWS": USER + "by"}, Match.NONE, Match.NONE, Match.NONE),
        ({"AWS": ROLE}, Match.NONE, Match.WIDE, Match.NONE),
        ({"AWS": SESSION}, Match.NONE, Match.EXACT, Match.NONE),
        ({"AWS": "arn:aws:sts::*:assumed-role/deploy/build-1"}, Match.NONE, Match.EXACT, Match.NONE),
        ({"AWS": SESSION.replace("build-1", "build-2")}, Match.NONE, Match.NONE, Match.NONE),
        ({"AWS": [USER, ROLE]}, Match.EXACT, Match.WIDE, Match.NONE),
        ({"Service": "lambda.amazonaws.com"}, Match.NONE, Match.NONE, Match.EXACT),
        ({"Service": ["events.amazonaws.com"], "AWS": ROLE}, Match.NONE, Match.WIDE, Match.NONE),
    ],
)
def test_who_is_named(element: Any, bob: Match, build: Match, service: Match) -> None:
    found = Principals(element)
    assert (found.match(BOB), found.match(BUILD), found.match(LAMBDA)) == (bob, build, service)


@pytest.mark.parametrize(
    ("caller", "named", "identity", "limit", "allowed"),
    [
        # the very user: nothing else is asked
        (BOB, USER, (), None, True),
        (BOB, USER, (), "boundary", True),
        (BOB, USER, ("Deny",), None, False),
        # a role: without its own policies, within its limits
        (BUILD, ROLE, (), None, True),
        (BUILD, ROLE, (), "boundary", False),
        (BUILD, ROLE, (), "session", False),
        # the very session: nothing else is asked
        (BUILD, SESSION, (), "boundary", True),
        (BUILD, SESSION, (), "session", True),
        (BUILD, SESSION, ("Deny",), None, False),
        # the account: its own policies have to allow it
        (BOB, ACCOUNT, (), None, False),
        (BOB, ACCOUNT, ("Allow",), None, True),
        (BOB, ACCOUNT, ("Allow",), "boundary", False),
        # everybody: within limits
        (BOB, "*", (), None, True),
        (BOB, "*", (), "boundary", False),
        # somebody else
        (BOB, ROLE, (), None, False),
        (BOB, ROLE, ("Allow",), None, True),
    ],
)
def test_what_it_takes_besides(
    caller: Caller, named: str, identity: tuple[str, ...], limit: str | None, allowed: bool
) -> None:
    """`limit`: a boundary or session policy that allows something else only."""
    elsewhere = PolicyDocument.model_validate({"Statement": _statement("Allow", Resource="arn:aws:s3:::other")})
    limits = {} if limit is None else {limit: compile_policies([AttachedPolicy("b.json", "$", elsewhere)])}
    resource = on_resource(_statement("Allow", Principal={"AWS": named}))
    assert asked(caller, resource, policies(*identity), **limits).allowed is allowed


def test_a_denial_of_the_resource_wins_and_says_where_it_stands() -> None:
    resource = on_resource(
        _statement("Allow", Principal="*"), _statement("Deny", Principal={"AWS": ACCOUNT}, Sid="NotOurs")
    )
    decision = asked(BOB, resource, policies("Allow"))
    assert decision == Decision(False, "denied by r.json $.policy.Statement[1] (NotOurs)")
    assert asked(LAMBDA, resource).allowed, "the Deny is about the account's own"


def test_a_denial_for_all_but_some() -> None:
    spared = on_resource(_statement("Deny", NotPrincipal={"AWS": USER}))
    assert asked(BOB, spared, policies("Allow")).allowed
    assert not asked(BUILD, spared, policies("Allow")).allowed
    listed = on_resource(_statement("Deny", NotPrincipal={"AWS": [USER, ACCOUNT]}))  # as AWS has it written
    eve = Caller("eve", f"arn:aws:iam::{ACCOUNT}:user/eve", ACCOUNT)
    assert asked(BOB, listed, policies("Allow")).allowed and not asked(eve, listed, policies("Allow")).allowed
    by_role = on_resource(_statement("Deny", NotPrincipal={"AWS": ROLE}))
    assert not asked(BUILD, by_role, policies("Allow")).allowed, "the session has to be named itself"
    assert asked(
        BUILD, on_resource(_statement("Deny", NotPrincipal={"AWS": [ROLE, SESSION]})), policies("Allow")
    ).allowed
    boundary = policies("Allow")
    assert not asked(BOB, spared, policies("Allow"), boundary=boundary).allowed, (
        "as on AWS, who has a boundary is not spared"
    )


def test_without_any_grant_it_says_where_it_looked() -> None:
    resource = on_resource(_statement("Allow", Principal={"AWS": ROLE}))
    assert asked(BOB, resource).reason == "no policy of bob allows it, nor does r.json $.policy"


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ({"Principal": {"AWS": "bob"}}, "is no principal"),
        ({"Principal": {"AWS": "arn:aws:iam::123456789012:user/*"}}, "is no principal"),
        ({"Principal": {"AWS": "arn:aws:iam::12345:user/bob"}}, "is no principal"),
        ({"Principal": {"Service": "lambda"}}, "is no service principal"),
        ({"Principal": {"Federated": "accounts.google.com"}}, "Federated principals are not built"),
        ({"Principal": {"User": "bob"}}, "is no kind of principal"),
        ({"Principal": {}}, "names nobody"),
        ({"Principal": {"AWS": []}}, "names nobody"),
        ({"Principal": "bob"}, "a principal is"),
        ({}, "exactly one of Principal or NotPrincipal"),
        ({"NotPrincipal": {"AWS": USER}}, "for the whole world"),
        ({"Principal": "*", "NotPrincipal": "*", "Effect": "Deny"}, "exactly one of Principal"),
    ],
)
def test_principals_that_cannot_mean_what_they_say_are_refused(statement: dict[str, Any], told: str) -> None:
    document = {"runtime": "python", "handler": "a.b", "policy": {"Statement": [{**_statement("Allow"), **statement}]}}
    with pytest.raises(InvalidError) as caught:
        KINDS["function"].spec.parse(json.dumps(document).encode(), "functions/f/function.json")
    assert any(
        told in problem.message and problem.path.startswith("$.policy.Statement[0]")
        for problem in caught.value.problems
    ), str(caught.value)


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ({"Action": "s3:GetObject", "Principal": "*"}, "a trust policy is about taking on the role"),
        ({"Action": "sts:AssumeRole", "Principal": "*", "Resource": "*"}, "'Resource' is not a known field"),
        ({"Action": "sts:AssumeRole"}, "this field is missing"),
        ({"Action": "sts:AssumeRole", "NotPrincipal": "*"}, "'NotPrincipal' is not a known field"),
    ],
)
def test_trust_policies_are_about_roles(statement: dict[str, Any], told: str) -> None:
    document = {"trust": {"Statement": [{"Effect": "Allow", **statement}]}}
    with pytest.raises(InvalidError) as caught:
        KINDS["role"].spec.parse(json.dumps(document).encode(), "roles/r.json")
    assert any(told in problem.message for problem in caught.value.problems), str(caught.value)


def test_trust_policies_take_conditions_and_denials() -> None:
    statements = [
        {"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "sts:AssumeRole",
         "Condition": {"StringEquals": {"sts:ExternalId": "x"}}},
        {"Effect": "Deny", "Principal": "*", "Action": "sts:AssumeRole",
         "Condition": {"StringEquals": {"aws:username": "eve"}}},
    ]  # fmt: skip
    spec: Any = KINDS["role"].spec.parse(json.dumps({"trust": {"Statement": statements}}).encode(), "roles/r.json")
    trust = ResourcePolicy(AttachedPolicy("roles/r.json", "$.trust", spec.trust))

    def may(keys: dict[str, str], *identity: str) -> bool:
        found = compile_policies(
            [
                AttachedPolicy(
                    "p", "$", PolicyDocument.model_validate({"Statement": {**_statement(effect), "Action": "*"}})
                )
                for effect in identity
            ]
        )
        context = Context.of(keys)
        return decide(BOB, found, "sts:AssumeRole", ROLE, context, resource=trust, trusted_only=True).allowed

    assert may({"sts:ExternalId": "x", "aws:username": "bob"}, "Allow")
    assert not may({"sts:ExternalId": "x", "aws:username": "bob"}), (
        "the account is named: bob's own policies have to allow it"
    )
    assert not may({"aws:username": "bob"}, "Allow")
    assert not may({"sts:ExternalId": "x", "aws:username": "eve"}, "Allow")
