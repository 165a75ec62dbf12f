"""AWS's policy language: documents, and the one evaluator for pushes and for calls.

The slice that is built: Allow and Deny, Action and NotAction, Resource and NotResource, the wildcards `*` and `?`,
users, groups, managed and inline policies. What is not built is refused at push by name (`Condition`, policy
variables), never ignored: a policy that is accepted means what it says.

Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html
and https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_pascal

from owsgit.model.spec import Document, OneOrMany, Spec

ACTION = re.compile(r"\*|[A-Za-z0-9-]+:[A-Za-z0-9*?]+")
ARN_SEGMENTS = 6  # arn:partition:service:region:account:resource


def _action(pattern: str) -> str:
    if not ACTION.fullmatch(pattern):
        raise ValueError("an action is 'service:Action', with * and ? as wildcards, or '*' alone")
    return pattern


def _resource(pattern: str) -> str:
    if "${" in pattern:
        raise ValueError("policy variables are not supported yet: write the name, or a wildcard")
    if pattern == "*":
        return pattern
    segments = pattern.split(":", ARN_SEGMENTS - 1)
    if len(segments) != ARN_SEGMENTS or segments[0] != "arn" or not segments[2] or not segments[5]:
        raise ValueError("not a whole ARN (arn:aws:service:region:account:resource) and not '*'")
    return pattern


ActionPattern = Annotated[str, AfterValidator(_action)]
ResourcePattern = Annotated[str, AfterValidator(_resource)]


def _glob(pattern: str, anything: str, one: str) -> str:
    return "".join({"*": anything, "?": one}.get(part, re.escape(part)) for part in re.split(r"([*?])", pattern))


def _resource_regex(pattern: str) -> str:
    """A wildcard stays within its segment of the ARN; only the last segment may itself have colons."""
    if pattern == "*":
        return ".*"
    *segments, last = pattern.split(":", ARN_SEGMENTS - 1)
    return ":".join([*(_glob(segment, "[^:]*", "[^:]") for segment in segments), _glob(last, ".*", ".")])


class Statement(Document):
    """One statement of a policy."""

    model_config = ConfigDict(alias_generator=to_pascal)

    sid: str | None = Field(None, max_length=128, description="A name for the statement.")
    effect: Literal["Allow", "Deny"] = Field(description="An explicit Deny wins over every Allow.")
    action: OneOrMany[ActionPattern] | None = Field(None, description="Actions it speaks of, with wildcards.")
    not_action: OneOrMany[ActionPattern] | None = Field(None, description="All actions but these.")
    resource: OneOrMany[ResourcePattern] | None = Field(None, description="ARNs it speaks of.")
    not_resource: OneOrMany[ResourcePattern] | None = Field(None, description="All ARNs but these.")

    @model_validator(mode="before")
    @classmethod
    def _not_built(cls, value: Any) -> Any:
        """A condition that was ignored would open what it closes."""
        for name in ("Condition", "Principal", "NotPrincipal"):
            if isinstance(value, dict) and name in value:
                raise ValueError(f"{name} is not supported yet, and never ignored: remove the statement or the {name}")
        return value

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        for one, other, names in (
            (self.action, self.not_action, "Action or NotAction"),
            (self.resource, self.not_resource, "Resource or NotResource"),
        ):
            if (one is None) == (other is None):
                raise ValueError(f"exactly one of {names} is needed")
            if one == [] or other == []:
                raise ValueError(f"{names} may not be empty")
        return self

    @cached_property
    def matcher(self) -> "Matcher":
        actions = _listed(self.action if self.action is not None else self.not_action)
        resources = _listed(self.resource if self.resource is not None else self.not_resource)
        return Matcher(
            re.compile("|".join(_glob(pattern, ".*", ".") for pattern in actions), re.IGNORECASE | re.DOTALL),
            self.action is not None,
            re.compile("|".join(_resource_regex(pattern) for pattern in resources), re.DOTALL),
            self.resource is not None,
        )


def _listed(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


@dataclass(frozen=True)
class Matcher:
    """A statement's patterns, compiled once for all decisions."""

    actions: re.Pattern[str]
    actions_named: bool  # False: NotAction
    resources: re.Pattern[str]
    resources_named: bool  # False: NotResource

    def matches(self, action: str, arn: str) -> bool:
        return (self.actions.fullmatch(action) is not None) == self.actions_named and (
            self.resources.fullmatch(arn) is not None
        ) == self.resources_named


class PolicyDocument(Document):
    """An IAM policy document, as AWS writes it."""

    model_config = ConfigDict(alias_generator=to_pascal)

    version: Literal["2012-10-17", "2008-10-17"] = Field("2008-10-17", description="Version of the policy language.")
    id: str | None = Field(None, max_length=128, description="A name for the policy.")
    statement: OneOrMany[Statement] = Field(description="What is allowed and denied.")

    @cached_property
    def statements(self) -> tuple[Statement, ...]:
        return (self.statement,) if isinstance(self.statement, Statement) else tuple(self.statement)


class PolicySpec(PolicyDocument, Spec):
    """A managed policy: `policies/<name>.json`, the same document as in AWS."""

    model_config = ConfigDict(alias_generator=to_pascal)


@dataclass(frozen=True)
class AttachedPolicy:
    """A policy that speaks for a principal, and where it is written."""

    file: str
    path: str  # JSON path of the document within the file
    document: PolicyDocument


@dataclass(frozen=True)
class Decision:
    """The answer, and the statement (or the lack of one) that gave it."""

    allowed: bool
    reason: str


def decide(principal: str, policies: Iterable[AttachedPolicy], action: str, arn: str) -> Decision:
    """Whether `policies` allow `action` on `arn`: an explicit Deny wins, then an Allow, else it is denied.

    Statements are matched whole: an action allowed in one and a resource in another never add up.
    """
    allowed: Decision | None = None
    for policy in policies:
        for index, statement in enumerate(policy.document.statements):
            if (allowed is not None and statement.effect == "Allow") or not statement.matcher.matches(action, arn):
                continue
            place = _place(policy, index, statement)
            if statement.effect == "Deny":
                return Decision(False, f"denied by {place}")
            allowed = Decision(True, f"allowed by {place}")
    return allowed or Decision(False, f"no policy of {principal} allows it")


def _place(policy: AttachedPolicy, index: int, statement: Statement) -> str:
    listed = isinstance(policy.document.statement, list)
    path = f"{policy.path}.Statement[{index}]" if listed else f"{policy.path}.Statement"
    return f"{policy.file} {path}" + (f" ({statement.sid})" if statement.sid else "")
