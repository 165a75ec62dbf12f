"""The names that policies may use."""

import pytest

from owsgit.model.iam import vocabulary
from owsgit.services import KINDS


@pytest.mark.parametrize(
    "action",
    ["*", "s3:GetObject", "S3:getobject", "s3:*", "s3:Get*", "ec2:Describe?nstances", "lambda:InvokeFunction",
     "ows:AddNode", "ows:*", "execute-api:Invoke", "iam:PassRole"],
)  # fmt: skip
def test_actions_that_there_are(action: str) -> None:
    assert KINDS.vocabulary.action_problem(action) is None


@pytest.mark.parametrize(
    ("action", "told", "remedy"),
    [
        ("lamda:InvokeFunction", "there is no service 'lamda'", "'lambda'"),
        ("lambda:InvokeFuncion", "lambda:InvokeFuncion is no action", "'lambda:InvokeFunction'"),
        ("s3:GetObjekt*", "matches no action of s3", "did you mean"),
        ("ows:AddNod", "is no action", "'ows:AddNode'"),
        ("ows:Remove?", "matches no action of ows", "did you mean"),
        ("ec2:Xyzzy", "is no action", "see the actions of ec2"),
    ],
)
def test_actions_that_no_service_has(action: str, told: str, remedy: str) -> None:
    problem = KINDS.vocabulary.action_problem(action)
    assert problem is not None and told in problem[0] and remedy in problem[1], problem


@pytest.mark.parametrize(
    ("key", "known"),
    [
        ("s3:prefix", True), ("S3:PREFIX", True), ("s3:prefx", False), ("lambda:Runtime", True), ("lambda:VpcIds", True),
        ("apigateway:Port", True), ("kms:EncryptionContext:team", True), ("ec2:ResourceTag/cost center", True),
        ("ec2:ResourceTag/", False), ("nothing:Key", False), ("token.actions.githubusercontent.com:sub", True),
    ],
)  # fmt: skip
def test_condition_keys(key: str, known: bool) -> None:
    assert (KINDS.vocabulary.key_problem(key) is None) is known


def test_every_action_and_key_of_our_own_kinds_is_known() -> None:
    for kind in KINDS:
        assert all(KINDS.vocabulary.action_problem(action) is None for action in kind.all_actions())
        assert all(KINDS.vocabulary.key_problem(key) is None for key in kind.condition_keys)


def test_aws_names_are_there_in_full() -> None:
    """A list that lost names would refuse policies that were accepted: it only ever grows."""
    found = vocabulary.aws()
    assert len(found) >= 456
    assert sum(len(service.actions) for service in found.values()) >= 22_091
    assert sum(len(service.keys) + len(service.prefixes) for service in found.values()) >= 1_445
