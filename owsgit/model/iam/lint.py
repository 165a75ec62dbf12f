"""What a policy says and cannot mean: names that nobody has, variables without a value, sets taken for one value."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass

from owsgit.model.errors import Problem
from owsgit.model.iam import condition
from owsgit.model.iam.document import AnyStatement, PolicyDocument, ResourcePolicyDocument, Rule, TrustPolicyDocument
from owsgit.model.iam.vocabulary import Vocabulary
from owsgit.model.spec import nearest

SUPPLIED_KEYS = (
    "aws:PrincipalArn", "aws:PrincipalAccount", "aws:PrincipalType", "aws:PrincipalIsAWSService", "aws:ViaAWSService",
    "aws:SecureTransport", "aws:username", "aws:userid", "aws:RequestedRegion", "aws:ResourceAccount",
    "aws:CurrentTime", "aws:EpochTime", "aws:SourceIp",
)  # fmt: skip
"""Global keys that requests have here."""

OTHER_KEYS = (
    "aws:AssumedRoot", "aws:CalledVia", "aws:CalledViaFirst", "aws:CalledViaLast",
    "aws:Ec2InstanceSourcePrivateIPv4", "aws:Ec2InstanceSourceVpc", "aws:FederatedProvider", "aws:MultiFactorAuthAge",
    "aws:MultiFactorAuthPresent", "aws:PrincipalOrgID", "aws:PrincipalOrgPaths", "aws:PrincipalServiceName",
    "aws:PrincipalServiceNamesList", "aws:referer", "aws:ResourceOrgID", "aws:ResourceOrgPaths", "aws:SourceAccount",
    "aws:SourceArn", "aws:SourceIdentity", "aws:SourceOrgID", "aws:SourceOrgPaths", "aws:SourceVpc",
    "aws:SourceVpcArn", "aws:SourceVpce", "aws:TagKeys", "aws:TokenIssueTime", "aws:UserAgent", "aws:VpcSourceIp",
)  # fmt: skip
"""AWS's other global keys: accepted, and absent from requests as they may be on AWS (some have them at gateways)."""

KEY_PREFIXES = ("aws:principaltag/", "aws:requesttag/", "aws:resourcetag/")
APPROVAL_KEYS = ("ows:ApprovalCount", "ows:Approver", "ows:ApproverGroup")
COUNT_PREFIX = "ows:ApprovalCount/"
"""`ows:ApprovalCount/<group>`: how many members of a group have approved."""

OWS_KEYS = ("ows:Path", "ows:ChangedFields", "ows:Branch", "ows:SignatureType", *APPROVAL_KEYS)

SIMILAR = 0.9
"""How alike two names of services are that are taken for one and a slip of it."""

MULTIVALUED = frozenset(
    key.lower()
    for key in (
        "aws:CalledVia", "aws:PrincipalOrgPaths", "aws:PrincipalServiceNamesList", "aws:ResourceOrgPaths",
        "aws:SourceOrgPaths", "aws:TagKeys", "ows:Path", "ows:ChangedFields", "ows:Approver", "ows:ApproverGroup",
        "apigateway:Request/RouteKey",
    )
)  # fmt: skip


_MONOTONE = {
    "Allow": {
        "count": ("NumericGreaterThan", "NumericGreaterThanEquals"),
        "who": ("ForAnyValue:StringEquals", "ForAnyValue:StringEqualsIgnoreCase", "ForAnyValue:StringLike"),
    },
    "Deny": {
        "count": ("NumericLessThan", "NumericLessThanEquals"),
        "who": (
            "ForAllValues:StringNotEquals", "ForAllValues:StringNotEqualsIgnoreCase", "ForAllValues:StringNotLike",
        ),
    },
}  # fmt: skip
"""With these, one approval more never takes a right away: so a commit that was allowed stays allowed for ever, whoever
approves of it later, and every node that knows enough approvals comes to the same decision."""


AnyDocument = PolicyDocument | ResourcePolicyDocument | TrustPolicyDocument

ROLES_LACK = frozenset({"aws:username"})
"""Global keys that a session of a role does not have."""


@dataclass(frozen=True)
class Lint:
    """What policies are held against: the names there are, this project's account number (if it is known), its ARNs.

    `of_role`: the policies speak for a role alone.
    """

    vocabulary: Vocabulary
    account: str | None = None
    of_role: bool = False
    region: str = ""
    arns: tuple[str, ...] = ()  # the templates of this project's kinds
    principals: tuple[str, ...] = ()  # the services that act for resources here: lambda.amazonaws.com

    def problems(self, document: AnyDocument, file: str, path: str) -> Iterator[Problem]:
        """Everything in `document` (at JSON `path` of `file`) that cannot mean what it says."""
        if not document.rules:
            yield Problem("a policy without a statement says nothing", file, f"{path}.Statement", "add one")
        for index, rule in enumerate(document.rules):
            place = document.place(path, index)
            yield from _actions(rule.statement, file, place, self.vocabulary)
            yield from _keys(rule.statement, file, place, self.vocabulary)
            yield from _approvals(rule, file, place)
            yield from self._elsewhere(rule, file, place)
            yield from self._services(rule, file, place)
            yield from _variables(rule, file, place, self.vocabulary, self.of_role)
            yield from _accounts(rule, file, place, self.account)

    def _elsewhere(self, rule: Rule, file: str, place: str) -> Iterator[Problem]:
        """ARNs that no resource of this project can have: a Deny of them would guard nothing."""
        given, named = rule.statement.resources
        for text in given:
            parts = text.split(":", 5)
            templates = (
                [template.split(":", 5) for template in self.arns if template.split(":")[2] == parts[2]]
                if len(parts) == 6
                else []
            )
            if not templates or self.account is None or parts[4] == "aws":  # arn:aws:iam::aws:policy/...: AWS's own
                continue
            own = {"{account}": self.account, "{region}": self.region}
            for what, index in (("partition", 1), ("region", 3), ("account", 4)):
                possible = sorted({own.get(template[index], template[index]) for template in templates})
                plain = not any(sign in parts[index] for sign in "*?$")
                if plain and parts[index] not in possible:
                    right = ":".join([*parts[:index], possible[0], *parts[index + 1 :]])
                    yield Problem(
                        f"{text} has the {what} {parts[index]!r}, and no resource of this project has: it is "
                        f"{' or '.join(map(repr, possible))} there",
                        file,
                        f"{place}.{'Resource' if named else 'NotResource'}",
                        f"write {right}" + (f", or * for the {what}" if possible[0] else ""),
                    )

    def _services(self, rule: Rule, file: str, place: str) -> Iterator[Problem]:
        """Services that are named almost as one of those that there are."""
        for name in rule.principals.services() if rule.principals is not None else ():
            close = difflib.get_close_matches(name, self.principals, n=1, cutoff=SIMILAR)
            if close and close[0] != name:
                yield Problem(f"{name} is no service that acts here", file, place, f"did you mean {close[0]!r}?")


def _actions(statement: AnyStatement, file: str, place: str, vocabulary: Vocabulary) -> Iterator[Problem]:
    field = "Action" if statement.action is not None else "NotAction"
    given = statement.action if statement.action is not None else statement.not_action
    for index, name in enumerate([given] if isinstance(given, str) else given or []):
        problem = vocabulary.action_problem(name)
        if problem is not None:
            where = f"{place}.{field}" if isinstance(given, str) else f"{place}.{field}[{index}]"
            yield Problem(problem[0], file, where, problem[1])


def _keys(statement: AnyStatement, file: str, place: str, vocabulary: Vocabulary) -> Iterator[Problem]:
    for operator, keys in statement.condition.items():
        for key in keys:
            where = f"{place}.Condition.{operator}['{key}']"
            problem = key_problem(key, vocabulary)
            if problem is not None:
                yield Problem(problem[0], file, where, problem[1])
            if key.lower() in MULTIVALUED and ":" not in operator and operator != condition.NULL:
                yield Problem(
                    f"{key} has several values, so {operator} does not say which of them is meant",
                    file,
                    where,
                    f"write ForAnyValue:{operator} or ForAllValues:{operator}",
                )


def key_problem(key: str, vocabulary: Vocabulary) -> tuple[str, str] | None:
    """What is wrong with a condition key, and the remedy; None if nothing is."""
    lower = key.lower()
    for prefix, names in (("aws:", (*SUPPLIED_KEYS, *OTHER_KEYS)), ("ows:", OWS_KEYS)):
        if lower.startswith(prefix):
            if lower.startswith((*KEY_PREFIXES, COUNT_PREFIX.lower())) or lower in {name.lower() for name in names}:
                return None
            return f"{key} is no condition key", nearest(key, names, "key", "keys")
    return vocabulary.key_problem(key)


def _approvals(rule: Rule, file: str, place: str) -> Iterator[Problem]:
    statement = rule.statement
    for operator, keys in statement.condition.items():
        for key in keys:
            lower = key.lower()
            if not lower.startswith(("ows:approvalcount", "ows:approver")):
                continue
            where = f"{place}.Condition.{operator}['{key}']"
            kind = "count" if lower.startswith("ows:approvalcount") else "who"
            wanted = _MONOTONE[statement.effect][kind]
            if operator not in wanted:
                yield Problem(
                    f"{operator} on {key} in {'an Allow' if statement.effect == 'Allow' else 'a Deny'} would have an "
                    "approval take a right away",
                    file,
                    where,
                    f"use {' or '.join(wanted)}",
                )
    for variable in rule.variables():
        if variable.name.startswith(("ows:approvalcount", "ows:approver")):
            yield Problem(f"${{{variable.name}}} has no one value", file, place, "ask for approvals in a Condition")


def _variables(rule: Rule, file: str, place: str, vocabulary: Vocabulary, of_role: bool) -> Iterator[Problem]:
    """A variable that no key has; and a Deny with one that never has a value, which would deny all it might mean."""
    supplied = {key.lower() for key in SUPPLIED_KEYS} - (ROLES_LACK if of_role else frozenset())
    for variable in rule.variables():
        problem = key_problem(variable.name, vocabulary)
        if problem is not None:
            yield Problem(f"${{{variable.name}}}: {problem[0]}", file, place, problem[1])
            continue
        service = variable.name.partition(":")[0]
        if not rule.allows and variable.default is None and service == "aws" and variable.name not in supplied:
            yield Problem(
                f"${{{variable.name}}} never has a value here, so this Deny would deny all that it might mean",
                file,
                place,
                f"give it a default: ${{{variable.name}, 'none'}}",
            )


def _accounts(rule: Rule, file: str, place: str, account: str | None) -> Iterator[Problem]:
    """A project is one account: nobody of another one ever asks."""
    for given, text in rule.principals.accounts() if rule.principals is not None else ():
        if account is not None and given != account:
            yield Problem(
                f"{text} is of another account than this project's, {account}",
                file,
                place,
                f"write {text.replace(given, account)}" + (f", or {text.replace(given, '*')}" if ":" in text else ""),
            )
