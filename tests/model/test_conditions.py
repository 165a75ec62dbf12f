"""Conditions, policy variables and boundaries, as AWS documents them; and that what cannot be told opens nothing."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owsgit.model.iam import lint, pattern
from owsgit.model.iam.context import UNKNOWABLE, Context
from owsgit.model.iam.decision import AttachedPolicy, compile_policies, decide
from owsgit.model.iam.document import PolicyDocument
from owsgit.services import KINDS

BUCKET = "arn:aws:s3:::bucket"


def policy(*statements: dict[str, Any], version: str = "2012-10-17") -> AttachedPolicy:
    document = PolicyDocument.model_validate_json(json.dumps({"Version": version, "Statement": list(statements)}))
    return AttachedPolicy("policies/p.json", "$", document)


def statement(effect: str = "Allow", resource: str = "*", **condition: Any) -> dict[str, Any]:
    return {"Effect": effect, "Action": "*", "Resource": resource, **({"Condition": condition} if condition else {})}


def allowed(condition: dict[str, Any], unknowable: tuple[str, ...] = (), **keys: Any) -> bool:
    context = Context.of({name.replace("_", ":", 1): value for name, value in keys.items()}, frozenset(unknowable))
    return decide("bob", compile_policies([policy(statement(**condition))]), "s3:GetObject", BUCKET, context).allowed


def denied(condition: dict[str, Any], unknowable: tuple[str, ...] = (), **keys: Any) -> bool:
    context = Context.of({name.replace("_", ":", 1): value for name, value in keys.items()}, frozenset(unknowable))
    policies = compile_policies([policy(statement(), statement("Deny", **condition))])
    return not decide("bob", policies, "s3:GetObject", BUCKET, context).allowed


@pytest.mark.parametrize(
    ("operator", "wanted", "given_value", "holds"),
    [
        ("StringEquals", "a", "a", True),
        ("StringEquals", "a", "A", False),
        ("StringEquals", "a*", "ab", False),
        ("StringEquals", ["a", "b"], "b", True),
        ("StringNotEquals", ["a", "b"], "b", False),
        ("StringNotEquals", ["a", "b"], "c", True),
        ("StringEqualsIgnoreCase", "aB", "Ab", True),
        ("StringNotEqualsIgnoreCase", "aB", "Ab", False),
        ("StringLike", "a*c?", "abbbcd", True),
        ("StringLike", "a*c?", "abbbc", False),
        ("StringNotLike", "a*", "b", True),
        ("NumericEquals", "10", "10.0", True),
        ("NumericNotEquals", "10", "11", True),
        ("NumericLessThan", 10, "9.99", True),
        ("NumericLessThanEquals", "10", "10", True),
        ("NumericGreaterThan", "10", "10", False),
        ("NumericGreaterThanEquals", "10", "1e1", True),
        ("DateGreaterThan", "2020-04-01T00:00:00Z", "2020-05-01T00:00:00Z", True),
        ("DateLessThan", "2020-06-30T23:59:59Z", "2020-07-01T00:00:00+01:00", True),
        ("DateEquals", "2020-01-01T00:00:00Z", "1577836800", True),
        ("Bool", True, "true", True),
        ("Bool", "false", "true", False),
        ("BinaryEquals", "QmluYXJ5", "QmluYXJ5", True),
        ("IpAddress", "203.0.113.0/24", "203.0.113.77", True),
        ("IpAddress", "203.0.113.0/24", "203.0.114.1", False),
        ("IpAddress", "2001:DB8:1234:5678::/64", "2001:db8:1234:5678::1", True),
        ("NotIpAddress", ["203.0.113.0/24", "10.0.0.0/8"], "10.1.1.1", False),
        ("NotIpAddress", "203.0.113.0/24", "::1", True),
        ("ArnLike", "arn:aws:sns:*:*:topic*", "arn:aws:sns:us-east-1:123:topic-1", True),
        ("ArnLike", "arn:aws:sns:*:topic*", "arn:aws:sns:us-east-1:123:topic-1", None),
        ("ArnEquals", "arn:aws:sns:*:*:t", "arn:aws:sns:us-east-1:123:t", True),
        ("ArnNotLike", "arn:aws:sns:*:*:t", "arn:aws:sns:us-east-1:123:x", True),
    ],
)
def test_operators(operator: str, wanted: Any, given_value: str, holds: bool | None) -> None:
    condition = {operator: {"x:Key": wanted}}
    if holds is None:
        with pytest.raises(ValueError, match="not a whole ARN"):
            allowed(condition, x_key=given_value)
        return
    assert allowed(condition, x_key=given_value) is holds
    assert denied(condition, x_KEY=given_value) is holds, "keys are case-insensitive"


@pytest.mark.parametrize(
    ("operator", "holds"),
    [
        ("StringEquals", False),
        ("StringLike", False),
        ("StringNotEquals", True),
        ("ArnNotLike", True),
        ("NotIpAddress", True),
        ("StringEqualsIfExists", True),
        ("StringNotEqualsIfExists", True),
        ("NumericLessThan", False),
        ("BoolIfExists", True),
        ("ForAllValues:StringEquals", True),
        ("ForAnyValue:StringEquals", False),
        ("ForAnyValue:StringNotEquals", False),
    ],
)
def test_a_missing_key(operator: str, holds: bool) -> None:
    wanted = {"Ip": "10.0.0.1", "Arn": "arn:aws:a:::b", "Numeric": "1", "Bool": "true"}
    value = next((value for part, value in wanted.items() if part in operator), "a")
    assert allowed({operator: {"x:Key": value}}) is holds
    assert denied({operator: {"x:Key": value}}) is holds


def test_null_asks_whether_a_key_is_there() -> None:
    assert allowed({"Null": {"x:Key": "true"}}) and not allowed({"Null": {"x:Key": "true"}}, x_key="a")
    assert allowed({"Null": {"x:Key": "false"}}, x_key="a") and not allowed({"Null": {"x:Key": "false"}})


@pytest.mark.parametrize(
    ("operator", "values", "holds"),
    [
        ("ForAllValues:StringEquals", ("a", "b"), True),
        ("ForAllValues:StringEquals", ("a", "c"), False),
        ("ForAnyValue:StringEquals", ("c", "b"), True),
        ("ForAnyValue:StringEquals", ("c", "d"), False),
        ("ForAllValues:StringNotEquals", ("c", "d"), True),
        ("ForAllValues:StringNotEquals", ("c", "a"), False),
        ("ForAnyValue:StringNotEquals", ("a", "c"), True),
        ("ForAnyValue:StringNotLike", ("a", "b"), False),
    ],
)
def test_sets(operator: str, values: tuple[str, ...], holds: bool) -> None:
    assert allowed({operator: {"x:Keys": ["a", "b"]}}, x_keys=values) is holds


def test_all_operators_and_keys_have_to_hold() -> None:
    condition = {"StringEquals": {"x:A": "1", "x:B": "2"}, "Bool": {"x:C": "true"}}
    assert allowed(condition, x_a="1", x_b="2", x_c="true")
    for wrong in ({"x_a": "2"}, {"x_b": "1"}, {"x_c": "false"}):
        assert not allowed(condition, **{"x_a": "1", "x_b": "2", "x_c": "true", **wrong})


@pytest.mark.parametrize(
    ("operator", "wanted", "given_value"),
    [
        ("NumericNotEquals", "1", "one"),
        ("NumericLessThan", "1", "NaN"),
        ("DateNotEquals", "2020-01-01T00:00:00Z", "yesterday"),
        ("NotIpAddress", "10.0.0.0/8", "not an address"),
        ("Bool", "true", "yes"),
        ("BinaryEquals", "QQ==", "!"),
        ("StringNotEquals", "${x:missing}", "anything"),
        ("StringNotLike", "${x:missing}-*", "a-b"),
    ],
)
def test_what_cannot_be_told_allows_nothing_and_denies(operator: str, wanted: str, given_value: str) -> None:
    assert not allowed({operator: {"x:Key": wanted}}, x_key=given_value)
    assert denied({operator: {"x:Key": wanted}}, x_key=given_value)


def test_what_a_signed_commit_cannot_know_allows_nothing_and_denies() -> None:
    for operator in ("DateGreaterThan", "DateLessThan", "DateNotEquals"):
        condition = {operator: {"aws:CurrentTime": "2020-01-01T00:00:00Z"}}
        assert not allowed(condition, ("aws:currenttime",))
        assert denied(condition, ("aws:currenttime",))
    assert not allowed({"Null": {"aws:SourceIp": "true"}}, ("aws:sourceip",))
    assert Context(unknowable=frozenset({"a"})).get("a") is UNKNOWABLE


def reach(resource: str, arn: str, *, effect: str = "Allow", version: str = "2012-10-17", **keys: Any) -> bool:
    context = Context.of({name.replace("_", ":", 1): value for name, value in keys.items()})
    policies = compile_policies(
        [
            policy(statement(), statement("Deny", resource))
            if effect == "Deny"
            else policy(statement("Allow", resource), version=version)
        ]
    )
    return decide("bob", policies, "s3:GetObject", arn, context).allowed


def test_variables_are_replaced_in_resources() -> None:
    home = "arn:aws:s3:::homes/${aws:username}/*"
    assert reach(home, "arn:aws:s3:::homes/bob/x", aws_username="bob")
    assert not reach(home, "arn:aws:s3:::homes/eve/x", aws_username="bob")
    assert not reach(home, "arn:aws:s3:::homes/bob/x"), "a variable without a value matches nothing"
    assert reach("arn:aws:s3:::${aws:username, 'guest'}/*", "arn:aws:s3:::guest/x")
    assert reach("arn:aws:s3:::${aws:USERNAME}/*", "arn:aws:s3:::bob/x", aws_username="bob")


def test_wildcards_in_a_variables_value_are_literal() -> None:
    assert not reach("arn:aws:s3:::${aws:username}/*", "arn:aws:s3:::bob/x", aws_username="*")
    assert reach("arn:aws:s3:::${aws:username}/*", "arn:aws:s3:::*/x", aws_username="*")
    assert not reach("arn:aws:s3:::${aws:username}", "arn:aws:s3:::bob", aws_username="b?b")


def test_special_characters_are_written_as_variables() -> None:
    assert reach("arn:aws:s3:::b/${*}${?}${$}", "arn:aws:s3:::b/*?$")
    assert not reach("arn:aws:s3:::b/${*}", "arn:aws:s3:::b/x")


def test_variables_are_literal_under_the_old_version() -> None:
    assert not reach("arn:aws:s3:::${aws:username}", "arn:aws:s3:::bob", version="2008-10-17", aws_username="bob")
    assert reach("arn:aws:s3:::${aws:username}", "arn:aws:s3:::${aws:username}", version="2008-10-17")


def test_a_deny_with_a_variable_that_has_no_value_denies_all_that_it_might_mean() -> None:
    resource = "arn:aws:s3:::${x:team}/*"
    assert not reach(resource, "arn:aws:s3:::any/x", effect="Deny")
    assert reach(resource, "arn:aws:s3:::any", effect="Deny"), "but nothing that it cannot mean"
    assert reach(resource, "arn:aws:s3:::any/x", effect="Deny", x_team="other")


def test_a_boundary_bounds() -> None:
    wide, narrow = (
        compile_policies([policy(statement())]),
        compile_policies([policy(statement(resource="arn:aws:s3:::mine/*"))]),
    )
    assert decide("bob", wide, "s3:X", "arn:aws:s3:::mine/a", boundary=narrow).allowed
    outside = decide("bob", wide, "s3:X", "arn:aws:s3:::other/a", boundary=narrow)
    assert not outside.allowed and "but not by the permissions boundary policies/p.json" in outside.reason
    nothing = decide("bob", compile_policies([]), "s3:X", "arn:aws:s3:::mine/a", boundary=narrow)
    assert not nothing.allowed, "it gives nothing"
    lesser = decide("bob", wide, "s3:X", "arn:aws:s3:::other/a", session=narrow)
    kinds = [each.wanted for each in (outside, nothing, lesser)]
    assert kinds == ["permissions boundary", "identity-based policy", "session policy"]


LINT = lint.Lint(KINDS.vocabulary)


def said(condition: dict[str, Any], effect: str = "Allow", resource: str = "*") -> list[str]:
    document = policy(statement(effect, resource, **condition)).document
    return [str(problem) for problem in LINT.problems(document, "p.json", "$")]


def test_names_that_nobody_has_are_told() -> None:
    assert "aws:usrname is no condition key" in said({"StringEquals": {"aws:usrname": "x"}})[0]
    assert "ows:Pth is no condition key" in said({"ForAnyValue:StringEquals": {"ows:Pth": "x"}})[0]
    assert said({"StringEquals": {"AWS:Username": "x", "aws:PrincipalTag/team": "x", "s3:prefix": "x"}}) == []
    document = policy({"Effect": "Allow", "Action": "ows:AddNod", "Resource": "*"}).document
    (problem,) = LINT.problems(document, "p.json", "$")
    assert problem.path == "$.Statement[0].Action" and "ows:AddNode" in problem.remedy


def test_several_values_need_a_set_operator() -> None:
    assert "has several values" in said({"StringEquals": {"ows:Path": "x"}})[0]
    assert said({"ForAnyValue:StringEquals": {"ows:Path": "x"}, "Null": {"ows:ChangedFields": "true"}}) == []


def test_a_deny_whose_variable_never_resolves_is_told() -> None:
    resource = "arn:aws:s3:::${aws:PrincipalTag/team}/*"
    assert "never has a value here" in said({}, "Deny", resource)[0]
    assert said({}, "Allow", resource) == [] == said({}, "Deny", "arn:aws:s3:::${aws:PrincipalTag/team, 'none'}/*")


VALUES = st.sampled_from(["a", "b", "1", "2", "true", "10.0.0.1", "x"])
CONDITIONS = st.dictionaries(
    st.sampled_from(
        [
            "StringEquals",
            "StringNotEquals",
            "NumericLessThan",
            "NumericNotEquals",
            "ForAllValues:StringLike",
            "ForAnyValue:StringNotEquals",
            "StringEqualsIfExists",
        ]
    ),
    st.dictionaries(st.sampled_from(["x:A", "x:B"]), st.sampled_from(["1", "2"]), min_size=1),
    max_size=3,
)
STATEMENTS = st.builds(
    lambda effect, condition: statement(effect, **condition), st.sampled_from(["Allow", "Deny"]), CONDITIONS
)
CONTEXTS = st.dictionaries(st.sampled_from(["x:a", "x:b"]), st.lists(VALUES, max_size=3).map(tuple))


@given(st.lists(STATEMENTS, max_size=5), CONDITIONS, CONTEXTS, st.frozensets(st.sampled_from(["x:a", "x:b"])))
def test_a_deny_never_widens_and_not_knowing_never_opens(
    statements: list[dict[str, Any]],
    condition: dict[str, Any],
    values: dict[str, tuple[str, ...]],
    hidden: frozenset[str],
) -> None:
    def ask(context: Context, *more: dict[str, Any]) -> bool:
        return decide("bob", compile_policies([policy(*statements, *more)]), "s3:X", BUCKET, context).allowed

    known = ask(Context(values))
    assert known or not ask(Context(values), statement("Deny", **condition))
    assert known or not ask(Context(values, hidden)), "what is hidden may close, never open"


def test_no_pattern_takes_long() -> None:
    import time

    began = time.perf_counter()
    for text in (
        "*a" * 30 + "*b",
        "arn:aws:s3:::" + "*a?" * 40 + "b",
        "arn:" + "*a" * 20 + "b:s3:*a*a*a*b:x*y*y*z:" + "a*" * 30 + "b",
    ):
        assert not allowed({"StringLike": {"x:Key": text}}, x_key="a" * 5000)
        if text.startswith("arn"):
            assert not reach(text, "arn:aws:s3:::" + "a" * 5000)
    assert time.perf_counter() - began < 2


@given(st.text("ab*?:", max_size=8), st.text("ab:", max_size=8))
def test_wildcards_match_as_fnmatch_does(text: str, value: str) -> None:
    import fnmatch

    assert pattern.like(text, False).match(value) is fnmatch.fnmatchcase(value, text)


def test_an_ipv4_address_is_one_in_ipv6s_clothes_too() -> None:
    assert denied({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, aws_SourceIp="::ffff:10.1.1.1")
    assert not allowed({"NotIpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, aws_SourceIp="::ffff:10.1.1.1")


def test_each_mention_of_a_variable_has_its_own_default() -> None:
    assert not allowed({"StringEquals": {"x:Key": "${x:t}${x:t,'b'}"}}, x_key="bb"), "the first has no value"
    assert not reach("arn:aws:s3:::${x:t,'a'}${x:t,'b'}", "arn:aws:s3:::aa") and reach(
        "arn:aws:s3:::${x:t,'a'}${x:t,'b'}", "arn:aws:s3:::ab"
    )


def test_what_has_no_value_could_have_colons() -> None:
    condition = {"ArnNotLike": {"x:Key": "arn:aws:iam::${x:hidden}:user/bob"}}
    assert not allowed(condition, ("x:hidden",), x_key="arn:aws:iam::1:2:user/bob")


def test_large_policies_are_read_quickly() -> None:
    import time

    began = time.perf_counter()
    policy({"Effect": "Allow", "Action": "s3:*", "Resource": [f"arn:aws:s3:::b{number}/*" for number in range(3_000)]})
    assert time.perf_counter() - began < 2
