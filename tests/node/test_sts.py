"""STS at a front door: who takes on which role from which, and what bounds a session."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from owsgit.aws import credentials
from owsgit.aws.credentials import Given, Holder
from owsgit.model.service import CredentialError
from owsgit.node.sts import Sts
from tests.support import projects
from tests.support.doors import Running, running
from tests.support.gateways import Account
from tests.support.sdk import refused

ANY = "arn:aws:lambda:us-east-1:*:function:"


def document(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **each} for each in statements]}


def trust(*principals: str, **more: Any) -> dict[str, Any]:
    return document({"Principal": {"AWS": list(principals)}, "Action": "sts:AssumeRole", **more})


def invoking(*names: str, **more: Any) -> dict[str, Any]:
    return document({"Action": "lambda:InvokeFunction", "Resource": [f"{ANY}{name}" for name in names], **more})


class House:
    """An account with roles, and the door of one of its nodes."""

    def __init__(self, home: Path) -> None:
        self.account = account = Account()
        bob, clerk, boss = (f"arn:aws:iam::*:{name}" for name in ("user/bob", "role/clerk", "role/boss"))
        service = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
        known = trust(bob, Condition={"StringEquals": {"sts:ExternalId": "s3cret"}})
        self.files = {
            ("policy", "one"): invoking("one"),
            ("role", "clerk"): {"trust": {**trust(bob), "Statement": [*trust(bob, clerk)["Statement"], service]},
                                "inlinePolicies": {"all": invoking("one", "two", "three")}},
            ("role", "boss"): {"trust": trust(clerk), "inlinePolicies": {"all": invoking("boss")}},
            ("role", "chief"): {"trust": trust(boss)},
            ("role", "partner"): {"trust": known},
            ("function", "f"): projects.function(role="clerk"),
        }  # fmt: skip
        account.change(self.files)
        self._running = running(home, [Sts(lambda: account.state, self._give)], account=account)
        self.door: Running = self._running.__enter__()
        self._session = boto3.session.Session()

    def close(self) -> None:
        self._running.__exit__(None, None, None)

    def _give(self, holder: Holder, state: Any, until: int | None = None) -> Given:
        key = self.account.nodes["a"]
        return credentials.give(holder, key.private, key.public, state, time.time(), until)

    def arn(self, name: str, kind: str = "role") -> str:
        return f"arn:aws:iam::{self.account.state.scope.account}:{kind}/{name}"

    def client(self, given: Any) -> Any:
        """Of credentials as they were given, or as STS tells them."""
        if isinstance(given, Given):
            given = given.document("SessionToken")
        return self._session.client(
            "sts", endpoint_url=self.door.url, region_name="us-east-1", aws_access_key_id=given["AccessKeyId"],
            aws_secret_access_key=given["SecretAccessKey"], aws_session_token=given["SessionToken"],
            config=Config(retries={"total_max_attempts": 1}),
        )  # fmt: skip

    def bob(self) -> Any:
        return self.client(self.account.give("bob"))

    def function(self) -> Any:
        return self.client(self._give(Holder.of_function("f", "", "clerk"), self.account.state))

    def taken(self, by: Any, role: str, name: str = "desk", **more: Any) -> Any:
        return by.assume_role(RoleArn=self.arn(role), RoleSessionName=name, **more)["Credentials"]

    def may(self, given: Any, name: str) -> bool:
        who = self.account.desk.check(given["SessionToken"]).who
        arn = f"arn:aws:lambda:us-east-1:{self.account.state.scope.account}:function:{name}"
        return self.account.state.decide(who, "lambda:InvokeFunction", arn).allowed


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    made = House(tmp_path_factory.mktemp("sts"))
    yield made
    made.close()


@pytest.fixture
def house(opened: House) -> Iterator[House]:
    """With its ledger as it was afterwards."""
    before = opened.account.state
    yield opened
    opened.account.state = before


@pytest.mark.parametrize("start", ["bob", "function"])
def test_a_role_is_taken_on_from_a_role(house: House, start: str) -> None:
    by = house.client(house.taken(house.bob(), "clerk")) if start == "bob" else house.function()
    boss = house.taken(by, "boss", "up")
    assert house.client(boss).get_caller_identity()["Arn"].endswith(":assumed-role/boss/up")
    assert house.may(boss, "boss") and not house.may(boss, "one")
    chief = house.taken(house.client(boss), "chief", "top")
    assert house.client(chief).get_caller_identity()["Arn"].endswith(":assumed-role/chief/top")
    assert chief["Expiration"] <= boss["Expiration"]
    assert refused(by.assume_role, RoleArn=house.arn("chief"), RoleSessionName="xx").code == "AccessDenied"


def test_a_function_takes_on_its_own_role_with_less(house: House) -> None:
    less = house.taken(house.function(), "clerk", "less", Policy=json.dumps(invoking("one")))
    assert house.may(less, "one") and not house.may(less, "two")


WITHOUT: dict[str, dict[tuple[str, str], Any]] = {
    "the function": {("function", "f"): None},
    "its role": {("function", "f"): projects.function(), ("role", "boss"): {}, ("role", "clerk"): None},
    "the role that was taken on": {("role", "boss"): None, ("role", "chief"): None},
    "the role of the function": {("function", "f"): projects.function()},
}


@pytest.mark.parametrize("gone", WITHOUT)
def test_a_chain_ends_with_what_it_rests_on(house: House, gone: str) -> None:
    boss = house.taken(house.function(), "boss")
    house.account.change(WITHOUT[gone])
    with pytest.raises(CredentialError):
        house.account.desk.check(boss["SessionToken"])
    assert refused(house.client(boss).get_caller_identity).code == "InvalidClientTokenId"


def test_a_session_may_last_an_hour(house: House) -> None:
    asked = {"RoleSessionName": "xx", "DurationSeconds": 3601}
    told = refused(house.bob().assume_role, RoleArn=house.arn("clerk"), **asked)
    assert told.code == "ValidationError" and "exceeds the MaxSessionDuration" in told.message
    told = refused(house.function().assume_role, RoleArn=house.arn("boss"), **asked)
    assert told.code == "ValidationError" and "1 hour session limit for roles assumed by role chaining" in told.message


def test_a_session_does_what_its_role_and_one_of_its_policies_allow(house: House) -> None:
    policy = {"Policy": json.dumps(invoking("two", "four")), "PolicyArns": [{"arn": house.arn("one", "policy")}]}
    both = house.taken(house.bob(), "clerk", **policy)
    assert [name for name in ("one", "two", "three", "four") if house.may(both, name)] == ["one", "two"]
    managed = house.taken(house.bob(), "clerk", PolicyArns=policy["PolicyArns"])
    assert [name for name in ("one", "two", "three") if house.may(managed, name)] == ["one"]
    denied = house.taken(house.bob(), "clerk", Policy=json.dumps(invoking("one", Effect="Deny")))
    assert not any(house.may(denied, name) for name in ("one", "two"))
    house.account.change({("policy", "one"): invoking("three")})
    assert [name for name in ("one", "two", "three") if house.may(managed, name)] == ["three"]
    house.account.change({("policy", "one"): None})
    for given in (both, managed):
        with pytest.raises(CredentialError, match="the policy one of the session"):
            house.account.desk.check(given["SessionToken"])


def test_a_session_that_is_bounded_takes_on_no_role_that_its_policy_does_not_allow(house: House) -> None:
    files = {("role", "clerk"): {**house.files["role", "clerk"], "inlinePolicies": {
        "up": document({"Action": "sts:AssumeRole", "Resource": house.arn("boss")})}}}  # fmt: skip
    house.account.change(files)
    bounded = house.taken(house.bob(), "clerk", Policy=json.dumps(document(
        {"Effect": "Deny", "Action": "sts:AssumeRole", "Resource": "*"})))  # fmt: skip
    assert (
        refused(house.client(bounded).assume_role, RoleArn=house.arn("boss"), RoleSessionName="xx").code
        == "AccessDenied"
    )


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"Policy": "x"}, "MalformedPolicyDocument"),
        ({"Policy": "{}"}, "MalformedPolicyDocument"),
        ({"Policy": json.dumps(invoking("f" * 2000))}, "PackedPolicyTooLarge"),
        ({"PolicyArns": [{"arn": "arn:aws:iam::111111111111:policy/nobody"}]}, "ValidationError"),
        ({"PolicyArns": [{"arn": "arn:aws:iam::111111111111:policy/nobody"}] * 11}, "PackedPolicyTooLarge"),
        ({"Tags": [{"Key": "a", "Value": "b"}]}, "ValidationError"),
    ],
)
def test_what_cannot_bound_a_session_is_refused(house: House, more: dict[str, Any], code: str) -> None:
    told = refused(house.bob().assume_role, RoleArn=house.arn("clerk"), RoleSessionName="xx", **more)
    assert told.code == code and told.message


def test_a_trust_policy_asks_for_a_name_that_two_know(house: House) -> None:
    assert house.taken(house.bob(), "partner", ExternalId="s3cret")
    for more in ({}, {"ExternalId": "other"}):
        told = refused(house.bob().assume_role, RoleArn=house.arn("partner"), RoleSessionName="xx", **more)
        assert told.code == "AccessDenied"
