"""Policy documents as AWS writes them, checked when they are read: an accepted policy means what it says."""

import re
from collections.abc import Iterator
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_pascal

from owsgit.model.iam import condition, pattern
from owsgit.model.iam.condition import OPERATORS, SETS, Test
from owsgit.model.iam.context import Context, all_of, any_of, negation
from owsgit.model.iam.pattern import Pattern
from owsgit.model.spec import Document, OneOrMany, Spec, nearest

ACTION = re.compile(r"\*|[A-Za-z0-9-]+:[A-Za-z0-9*?]+")
KEY = re.compile(r"[A-Za-z0-9-]+:[A-Za-z0-9/._:${}*-]+")
CURRENT_VERSION = "2012-10-17"


def _action(text: str) -> str:
    if not ACTION.fullmatch(text):
        raise ValueError("an action is 'service:Action', with * and ? as wildcards, or '*' alone")
    return text


def _resource(text: str) -> str:
    pattern.arn(text, True)
    return text


def _operator(name: str) -> str:
    over, _, plain = name.rpartition(":")
    known = {text + ending for text in OPERATORS for ending in ("", condition.IF_EXISTS)} - {"NullIfExists"}
    if (over and over not in SETS) or plain not in known or (over and plain == condition.NULL):
        raise ValueError(f"not a condition operator: {nearest(plain, OPERATORS, 'operator', 'operators')}")
    return name


def _key(text: str) -> str:
    if not KEY.fullmatch(text):
        raise ValueError("a condition key is 'service:Name'")
    return text


def _texts(value: Any) -> Any:
    """AWS takes true and numbers for their text."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    return [_texts(each) for each in value] if isinstance(value, list) else value


ActionPattern = Annotated[str, AfterValidator(_action)]
ResourcePattern = Annotated[str, AfterValidator(_resource)]
ConditionValues = Annotated[OneOrMany[str], BeforeValidator(_texts)]
Conditions = dict[
    Annotated[str, AfterValidator(_operator)], dict[Annotated[str, AfterValidator(_key)], ConditionValues]
]


def _listed(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


class Statement(Document):
    """One statement of a policy."""

    model_config = ConfigDict(alias_generator=to_pascal)

    sid: str | None = Field(None, max_length=128, description="A name for the statement.")
    effect: Literal["Allow", "Deny"] = Field(description="An explicit Deny wins over every Allow.")
    action: OneOrMany[ActionPattern] | None = Field(None, description="Actions it speaks of, with wildcards.")
    not_action: OneOrMany[ActionPattern] | None = Field(None, description="All actions but these.")
    resource: OneOrMany[ResourcePattern] | None = Field(None, description="ARNs it speaks of.")
    not_resource: OneOrMany[ResourcePattern] | None = Field(None, description="All ARNs but these.")
    condition: Conditions = Field({}, description="When it speaks: operator, condition key, values.")

    @model_validator(mode="before")
    @classmethod
    def _no_principal(cls, value: Any) -> Any:
        for name in ("Principal", "NotPrincipal"):
            if isinstance(value, dict) and name in value:
                raise ValueError(
                    f"{name} stands in policies of resources and roles; this one speaks for whom it is attached to"
                )
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
        if self.condition:
            Rule(self, False)  # what cannot be compiled is told here, where the statement's place is known
        return self


def _test(operator: str, key: str, texts: list[str], variables: bool) -> Test:
    try:
        return condition.compile_test(operator, key, texts, variables)
    except ValueError as error:
        raise ValueError(f"Condition.{operator}['{key}']: {error}") from None


class Rule:
    """A statement, compiled once for all decisions."""

    def __init__(self, statement: Statement, variables: bool) -> None:
        """`variables`: whether the policy's Version knows them. Raises ValueError."""
        self.statement = statement
        self.allows = statement.effect == "Allow"
        self._named = statement.action is not None
        actions = _listed(statement.action if self._named else statement.not_action)
        self._actions = pattern.actions(tuple(actions))
        self.resource_named = statement.resource is not None
        resources = _listed(statement.resource if self.resource_named else statement.not_resource)
        self.resources: list[Pattern] = [pattern.arn(text, variables) for text in resources]
        self.tests: list[Test] = [
            _test(operator, key, _listed(texts), variables)
            for operator, keys in statement.condition.items()
            for key, texts in keys.items()
        ]

    @property
    def fixed(self) -> str | None:
        """One regular expression for its resources, if nothing but the ARN decides whether it speaks."""
        if self.tests or not self.resource_named or any(each.variables for each in self.resources):
            return None
        return "|".join(f"(?:{each.expression})" for each in self.resources)

    def names_action(self, action: str) -> bool:
        return (self._actions.fullmatch(action) is not None) == self._named

    def speaks(self, arn: str, context: Context) -> bool | None:
        """Whether the statement, whose action matches, speaks of this request; None if it cannot be told."""
        found = any_of(each.match(arn, context) for each in self.resources)
        if not self.resource_named:
            found = negation(found)
        if found is False:
            return False
        return all_of([found, *(test.answer(context) for test in self.tests)])

    def variables(self) -> Iterator[pattern.Variable]:
        for each in self.resources:
            yield from each.variables
        for test in self.tests:
            yield from condition.variables_of(test)


class PolicyDocument(Document):
    """An IAM policy document, as AWS writes it."""

    model_config = ConfigDict(alias_generator=to_pascal)

    version: Literal["2012-10-17", "2008-10-17"] = Field(
        "2008-10-17", description="Version of the policy language; policy variables need 2012-10-17."
    )
    id: str | None = Field(None, max_length=128, description="A name for the policy.")
    statement: OneOrMany[Statement] = Field(description="What is allowed and denied.")

    @cached_property
    def rules(self) -> tuple[Rule, ...]:
        """The statements, compiled."""
        statements = [self.statement] if isinstance(self.statement, Statement) else self.statement
        return tuple(Rule(statement, self.version == CURRENT_VERSION) for statement in statements)

    @model_validator(mode="after")
    def _compiles(self) -> Self:
        _ = self.rules
        return self


class PolicySpec(PolicyDocument, Spec):
    """A managed policy: `policies/<name>.json`, the same document as in AWS."""

    model_config = ConfigDict(alias_generator=to_pascal)
