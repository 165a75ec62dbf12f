"""Decisions a second on one core, for a principal with 20 policies of 10 statements each."""

import random
import time

from bench import report
from owsgit.model.iam.context import Context
from owsgit.model.iam.decision import AttachedPolicy, compile_policies, decide
from owsgit.model.iam.document import PolicyDocument

POLICIES, STATEMENTS = 20, 10
WANTED_PER_SECOND = 20_000
SERVICES = {
    "s3": ("GetObject", "PutObject", "DeleteObject", "ListBucket"),
    "lambda": ("InvokeFunction", "UpdateFunctionCode", "GetFunction"),
    "dynamodb": ("GetItem", "PutItem", "Query", "UpdateItem"),
    "sqs": ("SendMessage", "ReceiveMessage"),
}


def statement(chance: random.Random, number: int) -> dict[str, object]:
    service = chance.choice(list(SERVICES))
    actions = chance.sample(SERVICES[service], 2)
    made: dict[str, object] = {
        "Effect": "Deny" if number % 7 == 0 else "Allow",
        "Action": [f"{service}:{action}" for action in actions] if number % 3 else f"{service}:{actions[0][:3]}*",
        "Resource": [f"arn:aws:{service}:*:*:thing-{chance.randrange(40)}*", f"arn:aws:{service}:*:*:other/{number}/*"],
    }
    if number % 4 == 0:
        made["Condition"] = {"StringEquals": {"aws:username": f"user-{chance.randrange(5)}"}}
    if number % 9 == 0:
        made["Condition"] = {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}, "Bool": {"aws:SecureTransport": "true"}}
    if number % 11 == 0:
        made["Resource"] = f"arn:aws:{service}:*:*:home/${{aws:username}}/*"
    return made


def main() -> None:
    chance = random.Random(1)
    attached = []
    for policy in range(POLICIES):
        statements = [statement(chance, policy * STATEMENTS + number) for number in range(STATEMENTS)]
        document = PolicyDocument.model_validate({"Version": "2012-10-17", "Statement": statements})
        attached.append(AttachedPolicy(f"policies/p{policy}.json", "$", document))
    policies = compile_policies(attached)
    context = Context.of({"aws:username": "user-1", "aws:SourceIp": "10.1.2.3", "aws:SecureTransport": "true"})
    calls = []
    for _ in range(2_000):
        service = chance.choice(list(SERVICES))
        name = chance.choice(("thing-", "home/user-1/", "other/7/"))
        arn = f"arn:aws:{service}:us-east-1:123456789012:{name}{chance.randrange(60)}"
        calls.append((f"{service}:{chance.choice(SERVICES[service])}", arn))
    rounds = 10 if report.quick() else 50
    allowed = sum(decide("u", policies, action, arn, context).allowed for action, arn in calls)
    assert 0 < allowed < len(calls)
    began = time.perf_counter()
    for _ in range(rounds):
        for action, arn in calls:
            decide("u", policies, action, arn, context)
    rate = rounds * len(calls) / (time.perf_counter() - began)
    report.line("decisions_per_second_of_20000", rate, "decisions/s", WANTED_PER_SECOND, digits=0)


if __name__ == "__main__":
    main()
