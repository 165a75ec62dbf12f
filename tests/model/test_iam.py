"""AWS's policy language, the slice that is built."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owsgit.model.errors import InvalidError
from owsgit.model.iam.decision import AttachedPolicy, compile_policies, decide
from owsgit.model.iam.document import PolicyDocument, PolicySpec

FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:orders"


def attached(*statements: dict[str, Any]) -> AttachedPolicy:
    document = PolicyDocument.model_validate({"Version": "2012-10-17", "Statement": list(statements)})
    return AttachedPolicy("policies/p.json", "$", document)


def statement(effect: str = "Allow", **parts: Any) -> dict[str, Any]:
    return {"Effect": effect, "Action": "*", "Resource": "*", **parts}


def allowed(action: str, arn: str, *policies: AttachedPolicy) -> bool:
    return decide("bob", compile_policies(policies), action, arn).allowed


@pytest.mark.parametrize(
    ("pattern", "action", "matches"),
    [
        ("*", "lambda:InvokeFunction", True),
        ("lambda:*", "lambda:InvokeFunction", True),
        ("LAMBDA:invokefunction", "lambda:InvokeFunction", True),
        ("lambda:Invoke", "lambda:InvokeFunction", False),
        ("lambda:Get?unction", "lambda:GetFunction", True),
        ("lambda:Get?unction", "lambda:Getunction", False),
        ("lambda:*Function", "lambda:InvokeFunctionUrl", False),
        ("s3:*", "lambda:InvokeFunction", False),
    ],
)
def test_actions(pattern: str, action: str, matches: bool) -> None:
    assert allowed(action, FUNCTION, attached(statement(Action=pattern))) is matches
    negated = attached({"Effect": "Allow", "NotAction": pattern, "Resource": "*"})
    assert allowed(action, FUNCTION, negated) is not matches


@pytest.mark.parametrize(
    ("pattern", "arn", "matches"),
    [
        ("*", FUNCTION, True),
        (FUNCTION, FUNCTION, True),
        ("arn:aws:lambda:*:*:function:ord*", FUNCTION, True),
        ("arn:aws:lambda:*:*:function:order?", FUNCTION, True),
        ("arn:aws:lambda:*:*:function:Orders", FUNCTION, False),
        ("arn:aws:lambda:*:function:orders:*", FUNCTION, False),
        ("arn:aws:*:*:*:*", FUNCTION, True),
        ("arn:aws:lambda:us-east-1:123456789012:function.orders", FUNCTION, False),
        ("arn:aws:lambda:us-*:*:function:orders", "arn:aws:lambda:us-east-1:x:y:function:orders", False),
        ("arn:aws:iam::*:user/*", "arn:aws:iam::123456789012:user/alice", True),
        ("arn:aws:iam:?:*:user/*", "arn:aws:iam::123456789012:user/alice", False),
        ("arn:aws:ows:*:*:file/docs/*", "arn:aws:ows:us-east-1:1:file/docs/a:b/c.md", True),
    ],
)
def test_resources(pattern: str, arn: str, matches: bool) -> None:
    assert allowed("lambda:X", arn, attached(statement(Resource=pattern))) is matches
    negated = attached({"Effect": "Allow", "Action": "*", "NotResource": pattern})
    assert allowed("lambda:X", arn, negated) is not matches


def test_nothing_is_allowed_by_nothing() -> None:
    decision = decide("bob", compile_policies([]), "lambda:X", FUNCTION)
    assert not decision.allowed and decision.reason == "no policy of bob allows it"


def test_a_deny_wins_wherever_it_stands_and_is_named() -> None:
    deny = attached(statement("Allow"), statement("Deny", Action="lambda:Delete*", Sid="NoDeletes"))
    assert allowed("lambda:GetFunction", FUNCTION, deny)
    decision = decide("bob", compile_policies([deny, attached(statement())]), "lambda:DeleteFunction", FUNCTION)
    assert decision.reason == "denied by policies/p.json $.Statement[1] (NoDeletes)"


def test_a_grant_of_two_statements_does_not_add_up() -> None:
    """The classic fault: action allowed in one statement, resource in another."""
    other = FUNCTION.replace("orders", "prices")
    policy = attached(
        statement(Action="lambda:Get*", Resource=FUNCTION), statement(Action="lambda:Delete*", Resource=other)
    )
    assert allowed("lambda:GetFunction", FUNCTION, policy)
    assert not allowed("lambda:DeleteFunction", FUNCTION, policy)
    assert not allowed("lambda:GetFunction", other, policy)


@pytest.mark.parametrize(
    ("document", "path", "told"),
    [
        ({"Statement": {"Effect": "allow", "Action": "*", "Resource": "*"}}, "$.Statement.Effect", "'Allow' or 'Deny'"),
        (
            {"Statement": [{"Effect": "Allow", "Action": "*"}]},
            "$.Statement[0]",
            "exactly one of Resource or NotResource",
        ),
        (
            {"Statement": [{"Effect": "Allow", "Action": "*", "NotAction": "*", "Resource": "*"}]},
            "$.Statement[0]",
            "exactly one of Action",
        ),
        ({"Statement": [{"Effect": "Allow", "Action": [], "Resource": "*"}]}, "$.Statement[0]", "may not be empty"),
        (
            {"Statement": {"Effect": "Allow", "Action": "lambda", "Resource": "*"}},
            "$.Statement.Action",
            "service:Action",
        ),
        (
            {"Statement": {"Effect": "Allow", "Action": "*", "Resource": "arn:*"}},
            "$.Statement.Resource",
            "not a whole ARN",
        ),
        (
            {"Statement": {"Effect": "Allow", "Action": "*", "Resource": ["*", "arn:aws::::"]}},
            "$.Statement.Resource[1]",
            "not a whole ARN",
        ),
        (
            {
                "Version": "2012-10-17",
                "Statement": {"Effect": "Deny", "Action": "*", "Resource": "arn:aws:s3:::${nocolon}/*"},
            },
            "$.Statement.Resource",
            "is not a policy variable",
        ),
        (
            {
                "Statement": {
                    "Effect": "Allow",
                    "Action": "*",
                    "Resource": "*",
                    "Condition": {"StringEqual": {"aws:username": "x"}},
                }
            },
            "$.Statement.Condition.StringEqual",
            "did you mean the operator 'StringEquals'",
        ),
        (
            {
                "Statement": {
                    "Effect": "Allow",
                    "Action": "*",
                    "Resource": "*",
                    "Condition": {"Bool": {"aws:SecureTransport": "maybe"}},
                }
            },
            "$.Statement",
            "neither 'true' nor 'false'",
        ),
        (
            {
                "Statement": {
                    "Effect": "Allow",
                    "Action": "*",
                    "Resource": "*",
                    "Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.300"}},
                }
            },
            "$.Statement",
            "10.0.0.300",
        ),
        (
            {
                "Statement": {
                    "Effect": "Allow",
                    "Action": "*",
                    "Resource": "*",
                    "Condition": {"ForAllValues:Null": {"aws:TagKeys": "true"}},
                }
            },
            "$.Statement.Condition['ForAllValues:Null']",
            "not a condition operator",
        ),
        (
            {
                "Statement": {
                    "Effect": "Allow",
                    "Action": "*",
                    "Resource": "*",
                    "Condition": {"StringEquals": {"aws:username": []}},
                }
            },
            "$.Statement",
            "needs a value",
        ),
        (
            {"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*", "Principal": "*"}},
            "$.Statement",
            "Principal stands in policies of resources",
        ),
        (
            {"Statement": {"Effect": "Allow", "Actions": "*", "Resource": "*"}},
            "$.Statement.Actions",
            "not a known field",
        ),
        ({"Version": "2012-10-18", "Statement": []}, "$.Version", "2012-10-17"),
    ],
)
def test_what_cannot_mean_what_it_says_is_refused(document: dict[str, Any], path: str, told: str) -> None:
    import json

    with pytest.raises(InvalidError) as caught:
        PolicySpec.parse(json.dumps(document).encode(), "policies/p.json")
    assert any(problem.path == path and told in problem.message for problem in caught.value.problems), str(caught.value)


ACTIONS = st.sampled_from(
    ["*", "lambda:*", "lambda:Get*", "lambda:GetFunction", "iam:*", "iam:CreateUser", "lambda:?etFunction"]
)
ARNS = st.sampled_from(
    ["*", FUNCTION, "arn:aws:lambda:*:*:function:*", "arn:aws:iam::*:user/*", "arn:aws:iam::1:user/al?ce"]
)
STATEMENTS = st.builds(
    lambda effect, action, arn, negate_action, negate_arn: {
        "Effect": effect,
        "NotAction" if negate_action else "Action": action,
        "NotResource" if negate_arn else "Resource": arn,
    },
    st.sampled_from(["Allow", "Deny"]), ACTIONS, ARNS, st.booleans(), st.booleans(),
)  # fmt: skip
CALLS = st.tuples(
    st.sampled_from(["lambda:GetFunction", "iam:CreateUser", "s3:GetObject"]),
    st.sampled_from([FUNCTION, "arn:aws:iam::1:user/alice", "arn:aws:s3:::b/k"]),
)


@given(st.lists(STATEMENTS, max_size=6), STATEMENTS, CALLS)
def test_a_deny_never_widens(statements: list[dict[str, Any]], extra: dict[str, Any], call: tuple[str, str]) -> None:
    before = allowed(*call, attached(*statements))
    after = allowed(*call, attached(*statements, {**extra, "Effect": "Deny"}))
    assert before or not after


@given(st.lists(STATEMENTS, max_size=6), st.randoms(), CALLS)
def test_the_order_of_statements_never_matters(
    statements: list[dict[str, Any]], random: Any, call: tuple[str, str]
) -> None:
    shuffled = list(statements)
    random.shuffle(shuffled)
    half = len(statements) // 2
    together = allowed(*call, attached(*statements))
    assert together == allowed(*call, attached(*shuffled))
    assert together == allowed(*call, attached(*statements[:half]), attached(*statements[half:]))
