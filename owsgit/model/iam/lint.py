"""What a policy says and cannot mean: names that nobody has, variables without a value, sets taken for one value."""

from collections.abc import Callable, Iterable, Iterator

from owsgit.model.errors import Problem
from owsgit.model.iam import condition
from owsgit.model.iam.document import PolicyDocument, Rule, Statement
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
"""AWS's other global keys: accepted, and absent from every request as they may be on AWS."""

KEY_PREFIXES = ("aws:principaltag/", "aws:requesttag/", "aws:resourcetag/")
APPROVAL_KEYS = ("ows:ApprovalCount", "ows:Approver", "ows:ApproverGroup")
COUNT_PREFIX = "ows:ApprovalCount/"
"""`ows:ApprovalCount/<group>`: how many members of a group have approved."""

OWS_KEYS = ("ows:Path", "ows:ChangedFields", "ows:Branch", "ows:SignatureType", *APPROVAL_KEYS)

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


def problems(
    document: PolicyDocument, file: str, path: str, ows_actions: Iterable[str], is_group: Callable[[str], bool]
) -> Iterator[Problem]:
    """Everything in `document` (at JSON `path` of `file`) that cannot mean what it says."""
    known = sorted(set(ows_actions))
    listed = isinstance(document.statement, list)
    for index, rule in enumerate(document.rules):
        place = f"{path}.Statement[{index}]" if listed else f"{path}.Statement"
        yield from _actions(rule.statement, file, place, known)
        yield from _keys(rule.statement, file, place)
        yield from _approvals(rule, file, place, is_group)
        yield from _variables(rule, file, place)


def _actions(statement: Statement, file: str, place: str, known: list[str]) -> Iterator[Problem]:
    given = statement.action if statement.action is not None else statement.not_action
    for name in [given] if isinstance(given, str) else given or []:
        plain = "*" not in name and "?" not in name
        if plain and name.lower().startswith("ows:") and name.lower() not in {action.lower() for action in known}:
            field = "Action" if statement.action is not None else "NotAction"
            yield Problem(f"{name} is no action", file, f"{place}.{field}", nearest(name, known, "action", "actions"))


def _keys(statement: Statement, file: str, place: str) -> Iterator[Problem]:
    globals_ = (*SUPPLIED_KEYS, *OTHER_KEYS)
    for operator, keys in statement.condition.items():
        for key in keys:
            lower = key.lower()
            where = f"{place}.Condition.{operator}['{key}']"
            for prefix, names in (("aws:", globals_), ("ows:", OWS_KEYS)):
                ours = lower.startswith(prefix) and not lower.startswith((*KEY_PREFIXES, COUNT_PREFIX.lower()))
                if ours and lower not in {name.lower() for name in names}:
                    yield Problem(f"{key} is no condition key", file, where, nearest(key, names, "key", "keys"))
            if lower in MULTIVALUED and ":" not in operator and operator != condition.NULL:
                yield Problem(
                    f"{key} has several values, so {operator} does not say which of them is meant",
                    file,
                    where,
                    f"write ForAnyValue:{operator} or ForAllValues:{operator}",
                )


def _approvals(rule: Rule, file: str, place: str, is_group: Callable[[str], bool]) -> Iterator[Problem]:
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
            group = key[len(COUNT_PREFIX) :] if lower.startswith(COUNT_PREFIX.lower()) else None
            if group is not None and not is_group(group):
                yield Problem(f"there is no group {group!r}", file, where, f"add groups/{group}.json, or correct it")
    for variable in rule.variables():
        if variable.name.startswith(("ows:approvalcount", "ows:approver")):
            yield Problem(f"${{{variable.name}}} has no one value", file, place, "ask for approvals in a Condition")


def _variables(rule: Rule, file: str, place: str) -> Iterator[Problem]:
    """A Deny with a variable that never has a value would deny everything that it might mean."""
    supplied = {key.lower() for key in SUPPLIED_KEYS}
    for variable in rule.variables():
        service = variable.name.partition(":")[0]
        if not rule.allows and variable.default is None and service == "aws" and variable.name not in supplied:
            yield Problem(
                f"${{{variable.name}}} never has a value here, so this Deny would deny all that it might mean",
                file,
                place,
                f"give it a default: ${{{variable.name}, 'none'}}",
            )
