"""Decisions of owsgit compared with another implementation's, on random policies and requests: `make oracle`.

The other is the npm package @cloud-copilot/iam-simulate (AGPL: a development tool, started as a process of its own,
never shipped). It is not AWS: each lasting difference stands in DIFFERENCES, with its reason and a case that shows it.
The random cases leave out what those are about, and have to agree, all of them.

    .venv/bin/python -m oracle [--cases 20000] [--seed 1]
"""

import argparse
import json
import random
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from owsgit.model.iam.context import Context
from owsgit.model.iam.decision import AttachedPolicy, ResourcePolicy, compile_policies, decide
from owsgit.model.iam.document import PolicyDocument, ResourcePolicyDocument
from owsgit.model.iam.principal import Caller

FOLDER = Path(__file__).resolve().parent
ACCOUNT = "123456789012"
USER, ROLE = f"arn:aws:iam::{ACCOUNT}:user/bob", f"arn:aws:iam::{ACCOUNT}:role/deploy"
SESSION = f"arn:aws:sts::{ACCOUNT}:assumed-role/deploy/build-1"
ACTIONS = ("s3:GetObject", "s3:PutObject", "s3:ListBucket", "lambda:InvokeFunction", "lambda:GetFunction")
ACTION_PATTERNS = (
    *ACTIONS,
    "*",
    "s3:*",
    "s3:Get*",
    "S3:getobject",
    "lambda:*Function",
    "s3:?etObject",
    "lambda:Invoke*",
)
ARNS = (
    "arn:aws:s3:::bucket/key", "arn:aws:s3:::bucket/home/bob/x", "arn:aws:s3:::bucket/home/eve/x", "arn:aws:s3:::other",
    f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:f", f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:f:live",
)  # fmt: skip
ARN_PATTERNS = (
    *ARNS, "*", "arn:aws:s3:::*", "arn:aws:s3:::bucket/*", "arn:aws:s3:::bucket/home/${aws:username}/*",
    "arn:aws:s3:::b?cket/key", "arn:aws:lambda:*:*:function:f", "arn:aws:lambda:us-*:*:function:*", "arn:aws:*:*:*:*",
    "arn:aws:s3:::bucket/${aws:PrincipalTag/team, 'home'}/*", "arn:aws:s3:::bucket/${*}",
)  # fmt: skip
EVERYBODY = ("*", {"AWS": "*"})
PRINCIPALS = (
    *EVERYBODY, {"AWS": ACCOUNT}, {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, {"AWS": USER}, {"AWS": ROLE},
    {"AWS": SESSION}, {"AWS": [f"arn:aws:iam::{ACCOUNT}:user/eve", USER]}, {"Service": "lambda.amazonaws.com"},
    {"AWS": "210987654321"},
)  # fmt: skip
BY_ACCOUNT_OR_ROLE = ({"AWS": ACCOUNT}, {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, {"AWS": ROLE})
VALUES: dict[str, tuple[str, ...]] = {
    "aws:username": ("bob", "eve", "Bob", "b*", "${aws:username}"),
    "aws:PrincipalTag/team": ("red", "blue", "r?d", "home"),
    "s3:prefix": ("home/", "home/bob", "home/*", "", "${aws:username}"),
    "aws:SourceIp": ("10.0.0.1", "10.0.0.0/8", "192.168.1.0/24", "192.168.1.7"),
    "aws:CurrentTime": ("2026-01-01T00:00:00Z", "2026-06-01T12:00:00Z", "2026-06-01T13:00:00+01:00"),
    "aws:SecureTransport": ("true", "false", "TRUE"),
    "s3:max-keys": ("10", "10.0", "-1", "0"),
    "aws:SourceArn": ("arn:aws:sns:us-east-1:123456789012:t", "arn:aws:sns:*:*:t", "arn:aws:s3:::b"),
    "aws:TagKeys": ("a", "b", "A", "cost*"),
}
KINDS: dict[str, tuple[str, ...]] = {
    "aws:SourceIp": ("IpAddress", "NotIpAddress"),
    "aws:CurrentTime": tuple(f"Date{each}" for each in ("Equals", "NotEquals", "LessThan", "GreaterThanEquals")),
    "aws:SecureTransport": ("Bool",),
    "s3:max-keys": tuple(f"Numeric{each}" for each in ("Equals", "NotEquals", "LessThanEquals", "GreaterThan")),
    "aws:SourceArn": ("ArnLike", "ArnNotLike", "ArnEquals", "ArnNotEquals"),
}
STRINGS = ("StringEquals", "StringNotEquals", "StringEqualsIgnoreCase", "StringNotEqualsIgnoreCase", "StringLike",
           "StringNotLike")  # fmt: skip


class Maker:
    """Makes cases from a seed."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)

    def some(self, choices: tuple[Any, ...]) -> Any:
        """One, or a list of some."""
        if self.chance.random() < 0.6:
            return self.chance.choice(choices)
        return self.chance.sample(choices, self.chance.randint(1, 3))

    def condition(self) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key in self.chance.sample(list(VALUES), self.chance.choice((0, 0, 1, 1, 2))):
            operator = self.chance.choice((*KINDS.get(key, STRINGS), "Null"))
            if operator == "Null":
                made.setdefault("Null", {})[key] = self.chance.choice(("true", "false"))
                continue
            several = key == "aws:TagKeys"
            over = self.chance.choice(("ForAllValues:", "ForAnyValue:")) if several else ""
            ending = self.chance.choice(("", "", "IfExists")) if over != "ForAnyValue:" else ""
            made.setdefault(f"{over}{operator}{ending}", {})[key] = self.some(VALUES[key])
        return made

    def statement(self, *, principals: tuple[Any, ...]) -> dict[str, Any]:
        made: dict[str, Any] = {"Effect": self.chance.choice(("Allow", "Allow", "Deny"))}
        made[self.chance.choice(("Action", "Action", "Action", "NotAction"))] = self.some(ACTION_PATTERNS)
        made[self.chance.choice(("Resource", "Resource", "Resource", "NotResource"))] = self.some(ARN_PATTERNS)
        if condition := self.condition():
            made["Condition"] = condition
        if principals:
            negate = made["Effect"] == "Deny" and self.chance.random() < 0.2
            exact = tuple(each for each in principals if each not in BY_ACCOUNT_OR_ROLE)
            made["NotPrincipal" if negate else "Principal"] = self.chance.choice(exact if negate else principals)
        return made

    def policy(self, principals: tuple[Any, ...] = ()) -> dict[str, Any]:
        statements = [self.statement(principals=principals) for _ in range(self.chance.randint(1, 3))]
        old = "${" not in json.dumps(statements) and self.chance.random() < 0.3
        return {"Version": "2008-10-17" if old else "2012-10-17", "Statement": statements}

    def context(self) -> dict[str, str | list[str]]:
        made: dict[str, str | list[str]] = {}
        for key in self.chance.sample(list(VALUES), self.chance.randint(0, len(VALUES))):
            usable = [each for each in VALUES[key] if not (key == "aws:SourceIp" and "/" in each)]
            if key == "aws:TagKeys":
                made[key] = self.chance.sample(usable, self.chance.randint(1, 2))
            else:
                made[key] = self.chance.choice(usable)
        return made

    def case(self) -> dict[str, Any]:
        action = self.chance.choice(ACTIONS)
        caller = self.chance.choice((USER, USER, SESSION, "lambda.amazonaws.com"))
        service = caller == "lambda.amazonaws.com"
        boundary = self.policy() if not service and self.chance.random() < 0.25 else None
        session = self.policy() if caller == SESSION and self.chance.random() < 0.3 else None
        left_out = (*(EVERYBODY if boundary or session else ()), *(({"AWS": SESSION},) if session else ()))
        principals = tuple(each for each in PRINCIPALS if each not in left_out)
        return {
            "caller": caller,
            "action": action,
            "arn": self.chance.choice([arn for arn in ARNS if arn.startswith(f"arn:aws:{action.split(':')[0]}:")]),
            "identity": [] if service else [self.policy() for _ in range(self.chance.randint(0, 2))],
            "boundary": boundary,
            "session": session,
            "resource": self.policy(principals) if service or self.chance.random() < 0.5 else None,
            "context": {"aws:username": "bob", **self.context()},
        }


CALLERS = {
    USER: Caller("bob", USER, ACCOUNT),
    SESSION: Caller("deploy", SESSION, ACCOUNT, role_arn=ROLE),
    "lambda.amazonaws.com": Caller("lambda", service="lambda.amazonaws.com"),
}


def ours(case: dict[str, Any]) -> str:
    """The decision of owsgit."""
    resource = case["resource"]
    bounds = {name: compile_policies([_attached(case[name])]) for name in ("boundary", "session") if case[name]}
    decision = decide(
        CALLERS[case["caller"]],
        compile_policies([_attached(each) for each in case["identity"]]),
        case["action"],
        case["arn"],
        Context.of(case["context"]),
        resource=ResourcePolicy(AttachedPolicy("r.json", "$", ResourcePolicyDocument.model_validate(resource)))
        if resource
        else None,
        **bounds,
    )
    return "Allowed" if decision.allowed else "ExplicitlyDenied" if decision.explicit else "ImplicitlyDenied"


def _attached(policy: dict[str, Any]) -> AttachedPolicy:
    return AttachedPolicy("p.json", "$", PolicyDocument.model_validate(policy))


def simulation(case: dict[str, Any]) -> dict[str, Any]:
    """The case as simulate.mjs takes it."""
    request = {
        "principal": case["caller"],
        "action": case["action"],
        "resource": {"resource": case["arn"], "accountId": ACCOUNT},
        "context": case["context"],
    }
    return {"request": request, **{name: case[name] for name in ("identity", "boundary", "session", "resource")}}


@dataclass(frozen=True)
class Difference:
    """A lasting difference: a case that shows it, the two answers, and why ours is AWS's, or stricter on purpose."""

    reason: str
    case: dict[str, Any]
    ours: str
    theirs: str


def _case(
    statement: dict[str, Any], context: dict[str, Any], version: str = "2012-10-17", **more: Any
) -> dict[str, Any]:
    made = {"Effect": "Allow", "Action": "*", **statement}
    if "NotResource" not in made:
        made.setdefault("Resource", "*")
    identity = [{"Version": version, "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}, made]}]
    if made["Effect"] == "Allow":
        identity[0]["Statement"] = [made]
    fields = {"caller": USER, "action": "s3:GetObject", "arn": ARNS[1], "boundary": None, "session": None}
    return {**fields, "resource": None, "identity": identity, "context": context, **more}


def _document(**statement: Any) -> dict[str, Any]:
    made = {"Effect": "Allow", "Action": "*", "Resource": "*", **statement}
    return {"Version": "2012-10-17", "Statement": [made]}


DIFFERENCES = (
    Difference(
        "policy variables are text under Version 2008-10-17 (AWS: reference_policies_variables)",
        _case({"Resource": "arn:aws:s3:::bucket/home/${aws:username}/*"}, {"aws:username": "bob"}, "2008-10-17"),
        "ImplicitlyDenied",
        "Allowed",
    ),
    Difference(
        "a Deny with a variable that has no value denies all that it might mean; stricter on purpose",
        _case({"Effect": "Deny", "Resource": "arn:aws:s3:::bucket/home/${aws:PrincipalTag/team}/*"}, {}),
        "ExplicitlyDenied",
        "Allowed",
    ),
    Difference(
        "dates may be written in seconds since 1970 (AWS: date condition operators)",
        _case(
            {"Condition": {"DateEquals": {"aws:CurrentTime": "1767225600"}}},
            {"aws:CurrentTime": "2026-01-01T00:00:00Z"},
        ),
        "Allowed",
        "ImplicitlyDenied",
    ),
    Difference(
        "IfExists holds for a missing key also with ForAnyValue (AWS: ...IfExists condition operators)",
        _case({"Effect": "Deny", "Condition": {"ForAnyValue:StringEqualsIfExists": {"aws:TagKeys": "a"}}}, {}),
        "ExplicitlyDenied",
        "Allowed",
    ),
    Difference(
        "an IPv4 address is not an IPv6 address (AWS: NotIpAddress, all addresses except the specified)",
        _case({"Condition": {"NotIpAddress": {"aws:SourceIp": "2001:db8::1"}}}, {"aws:SourceIp": "10.0.0.1"}),
        "Allowed",
        "ImplicitlyDenied",
    ),
    Difference(
        "NotPrincipal with the account alone spares nobody in it (AWS: NotPrincipal, specify the account as well)",
        _case({}, {}, resource=_document(Effect="Deny", NotPrincipal={"AWS": [ACCOUNT, SESSION]})),
        "ExplicitlyDenied",
        "Allowed",
    ),
    Difference(
        "NotPrincipal with a role alone spares none of its sessions (AWS: NotPrincipal, specify the session as well)",
        _case({}, {}, caller=SESSION, resource=_document(Effect="Deny", NotPrincipal={"AWS": ROLE})),
        "ExplicitlyDenied",
        "Allowed",
    ),
    Difference(
        "a resource's grant to everybody is bounded by the permissions boundary; stricter where AWS says nothing",
        _case({}, {}, identity=[], boundary=_document(Action="s3:PutObject"), resource=_document(Principal="*")),
        "ImplicitlyDenied",
        "Allowed",
    ),
    Difference(
        "a resource's grant to the very session is not bounded by the session policy (AWS: access_policies, sessions)",
        _case(
            {}, {}, caller=SESSION, session=_document(Action="s3:Put*"), resource=_document(Principal={"AWS": SESSION})
        ),
        "Allowed",
        "ImplicitlyDenied",
    ),
)  # fmt: skip


def ask(cases: list[dict[str, Any]]) -> list[str]:
    """The other's decisions."""
    text = "".join(json.dumps(simulation(case)) + "\n" for case in cases)
    command = ["node", str(FOLDER / "simulate.mjs")]
    done = subprocess.run(command, input=text, cwd=FOLDER, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    wrong = 0
    for each, other in zip(DIFFERENCES, ask([each.case for each in DIFFERENCES]), strict=True):
        found = ours(each.case), other
        if found != (each.ours, each.theirs):
            wrong += 1
            print(f"{each.reason}:\n  expected {(each.ours, each.theirs)}, found {found}", file=sys.stderr)
    maker = Maker(given.seed)
    cases = [maker.case() for _ in range(given.cases)]
    outcomes: Counter[str] = Counter()
    for case, other in zip(cases, ask(cases), strict=True):
        mine = ours(case)
        outcomes[mine] += 1
        if mine != other:
            wrong += 1
            print(f"ours: {mine}, the other: {other}\n{json.dumps(case)}", file=sys.stderr)
    print(f"{given.cases:,} random cases: {', '.join(f'{count:,} {name}' for name, count in sorted(outcomes.items()))}")
    print(f"{len(DIFFERENCES)} lasting differences; {wrong} that nobody has explained")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
