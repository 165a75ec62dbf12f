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
from owsgit.model.iam.principal import Caller, Match, PrincipalElement, Principals
from owsgit.model.spec import Document, OneOrMany, Reference, Spec, nearest

ACTION = re.compile(r"\*|[A-Za-z0-9-]+:[A-Za-z0-9*?-]+")
KEY = re.compile(r"[A-Za-z0-9./_-]+:[\w/.:${}*@=+ -]+")
"""The service may be an identity provider (token.actions.githubusercontent.com:sub), and a tag's key have spaces."""

CURRENT_VERSION = "2012-10-17"
COUNT_PREFIX = "ows:approvalcount/"
"""`ows:ApprovalCount/<group>`, in lower case: how many members of a group have approved."""

POLICY_CHARACTERS_MAX = 65_536
"""Three times what AWS takes for any kind of policy. To compile that many wildcards takes half a second."""


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


class AnyStatement(Document):
    """What every statement has."""

    model_config = ConfigDict(alias_generator=to_pascal)

    sid: str | None = Field(None, max_length=128, description="A name for the statement.")
    effect: Literal["Allow", "Deny"] = Field(description="An explicit Deny wins over every Allow.")
    action: OneOrMany[ActionPattern] | None = Field(None, description="Actions it speaks of, with wildcards.")
    not_action: OneOrMany[ActionPattern] | None = Field(None, description="All actions but these.")
    condition: Conditions = Field({}, description="When it speaks: operator, condition key, values.")

    @property
    def resources(self) -> tuple[list[str], bool]:
        """The ARN patterns, and whether it speaks of those (and not of all but those)."""
        return ["*"], True

    @property
    def principals(self) -> tuple[Principals, bool] | None:
        """Whom it names, and whether it speaks of those (and not of all but those); None: of whom it is attached to."""
        return None

    @model_validator(mode="after")
    def _one_action(self) -> Self:
        _exactly_one(self.action, self.not_action, "Action or NotAction")
        if self.condition:
            Rule(self, False)  # what cannot be compiled is told here, where the statement's place is known
        return self


def _exactly_one(one: Any, other: Any, names: str) -> None:
    if (one is None) == (other is None):
        raise ValueError(f"exactly one of {names} is needed")
    if one == [] or other == []:
        raise ValueError(f"{names} may not be empty")


class Statement(AnyStatement):
    """One statement of a policy."""

    resource: OneOrMany[ResourcePattern] | None = Field(None, description="ARNs it speaks of.")
    not_resource: OneOrMany[ResourcePattern] | None = Field(None, description="All ARNs but these.")

    @property
    def resources(self) -> tuple[list[str], bool]:
        named = self.resource is not None
        return _listed(self.resource if named else self.not_resource), named

    @model_validator(mode="before")
    @classmethod
    def _no_principal(cls, value: Any) -> Any:
        for name in ("Principal", "NotPrincipal"):
            if isinstance(value, dict) and name in value and name not in _aliases(cls):
                raise ValueError(
                    f"{name} stands in policies of resources and roles; this one speaks for whom it is attached to"
                )
        return value

    @model_validator(mode="after")
    def _one_resource(self) -> Self:
        _exactly_one(self.resource, self.not_resource, "Resource or NotResource")
        return self


def _aliases(model: type[Document]) -> set[str]:
    return {str(field.alias) for field in model.model_fields.values()}


class ResourceStatement(Statement):
    """One statement of a resource's policy: it names whom it speaks of."""

    principal: PrincipalElement | None = Field(
        None,
        description='For instance {"AWS": "arn:aws:iam::*:user/bob"}, {"Service": "events.amazonaws.com"}, or "*".',
    )
    not_principal: PrincipalElement | None = Field(None, description="Everybody but these; only with Deny.")

    @property
    def principals(self) -> tuple[Principals, bool]:
        named = self.principal is not None
        element = self.principal if named else self.not_principal
        assert element is not None
        return Principals(element), named

    @model_validator(mode="after")
    def _one_principal(self) -> Self:
        _exactly_one(self.principal, self.not_principal, "Principal or NotPrincipal")
        if self.not_principal is not None and self.effect == "Allow":
            raise ValueError("an Allow for everybody but some would be for the whole world: name whom it is for")
        return self


class TrustStatement(AnyStatement):
    """Who may take on a role."""

    principal: PrincipalElement = Field(
        description='For instance {"Service": "lambda.amazonaws.com"}, or {"AWS": "arn:aws:iam::*:user/bob"}.'
    )

    @property
    def principals(self) -> tuple[Principals, bool]:
        return Principals(self.principal), True

    @model_validator(mode="after")
    def _about_the_role(self) -> Self:
        for action in _listed(self.action if self.action is not None else self.not_action):
            if action != "*" and not action.lower().startswith("sts:"):
                raise ValueError(f"a trust policy is about taking on the role: {action} is no action of sts")
        return self


def _test(operator: str, key: str, texts: list[str], variables: bool) -> Test:
    try:
        return condition.compile_test(operator, key, texts, variables)
    except ValueError as error:
        raise ValueError(f"Condition.{operator}['{key}']: {error}") from None


class Rule:
    """A statement, compiled once for all decisions."""

    def __init__(self, statement: AnyStatement, variables: bool) -> None:
        """`variables`: whether the policy's Version knows them. Raises ValueError."""
        self.statement = statement
        self.allows = statement.effect == "Allow"
        self._named = statement.action is not None
        actions = _listed(statement.action if self._named else statement.not_action)
        self._actions = pattern.actions(tuple(actions))
        resources, self.resource_named = statement.resources
        self.resources: list[Pattern] = [pattern.arn(text, variables) for text in resources]
        self.tests: list[Test] = [
            _test(operator, key, _listed(texts), variables)
            for operator, keys in statement.condition.items()
            for key, texts in keys.items()
        ]
        principals = statement.principals
        self.principals: Principals | None = principals[0] if principals is not None else None
        self._principals_named = principals is None or principals[1]

    @property
    def fixed(self) -> str | None:
        """One regular expression for its resources, if nothing but the ARN decides whether it speaks."""
        if self.tests or not self.resource_named or any(each.variables for each in self.resources):
            return None
        return "|".join(f"(?:{each.expression})" for each in self.resources)

    def names_action(self, action: str) -> bool:
        return (self._actions.fullmatch(action) is not None) == self._named

    def names(self, caller: Caller, *, bounded: bool = False) -> Match:
        """How closely it names somebody; for the policy of a resource or a role.

        `bounded`: the caller has a permissions boundary. As on AWS, NotPrincipal spares nobody who has one:
        https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_notprincipal.html
        """
        if self.principals is None:
            return Match.NONE
        if self._principals_named:
            return self.principals.match(caller)
        return Match.EXACT if bounded or not self.principals.spares(caller) else Match.NONE

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


def _texts_of(statement: AnyStatement) -> Iterator[str]:
    """Everything that is compiled to match with."""
    yield from _listed(statement.action if statement.action is not None else statement.not_action)
    yield from statement.resources[0]
    for keys in statement.condition.values():
        for texts in keys.values():
            yield from _listed(texts)


class _Policy(Document):
    """What every policy document has."""

    model_config = ConfigDict(alias_generator=to_pascal)

    version: Literal["2012-10-17", "2008-10-17"] = Field(
        "2008-10-17", description="Version of the policy language; policy variables need 2012-10-17."
    )
    id: str | None = Field(None, max_length=128, description="A name for the policy.")

    @property
    def statements(self) -> list[Any]:
        """The statements, of whatever kind."""
        given: Any = self.__dict__["statement"]
        return given if isinstance(given, list) else [given]

    @property
    def listed(self) -> bool:
        """Whether Statement is written as a list."""
        return isinstance(self.__dict__["statement"], list)

    def place(self, path: str, index: int) -> str:
        """The JSON path of a statement of the policy at `path`."""
        return f"{path}.Statement[{index}]" if self.listed else f"{path}.Statement"

    @cached_property
    def rules(self) -> tuple[Rule, ...]:
        """The statements, compiled."""
        return tuple(Rule(statement, self.version == CURRENT_VERSION) for statement in self.statements)

    @model_validator(mode="after")
    def _compiles(self) -> Self:
        size = sum(len(text) for statement in self.statements for text in _texts_of(statement))
        if size > POLICY_CHARACTERS_MAX:
            raise ValueError(
                f"its actions, resources and conditions have {size:,} characters; at most "
                f"{POLICY_CHARACTERS_MAX:,} are taken"
            )
        _ = self.rules
        return self

    def approvals(self, path: str) -> Iterator[Reference]:
        """The users and groups whose approvals it asks for; `path` is where it is written. They have to stay there."""
        for index, statement in enumerate(self.statements):
            for operator, keys in statement.condition.items():
                where = f"{self.place(path, index)}.Condition.{operator}"
                for key, texts in keys.items():
                    for kind, name in _asked_for(key, _listed(texts)):
                        yield Reference(kind, name, f"{where}['{key}']", passes=False)


def _asked_for(key: str, texts: list[str]) -> Iterator[tuple[str, str]]:
    lower = key.lower()
    if lower.startswith(COUNT_PREFIX):
        yield "group", key[len(COUNT_PREFIX) :]
    kind = {"ows:approver": "user", "ows:approvergroup": "group"}.get(lower)
    for name in texts if kind is not None else ():
        if not any(sign in name for sign in "*?$"):
            yield kind or "", name


class _NamingPolicy(_Policy):
    """A policy that names whom it speaks of."""

    def references(self, path: str) -> Iterator[Reference]:
        """The users and roles that it names, and whose approvals it asks for; `path` is where it is written."""
        yield from self.approvals(path)
        for index, rule in enumerate(self.rules):
            for named in rule.principals.named() if rule.principals is not None else ():
                yield Reference(named.kind, named.name, self.place(path, index), passes=False)


class PolicyDocument(_Policy):
    """An IAM policy document, as AWS writes it."""

    statement: OneOrMany[Statement] = Field(description="What is allowed and denied.")


class ResourcePolicyDocument(_NamingPolicy):
    """The policy of a resource, as AWS writes it: who may do what with it, whatever their own policies say."""

    statement: OneOrMany[ResourceStatement] = Field(description="Who is allowed and denied what.")


class Guarded(Spec):
    """A spec whose resource may have a policy of its own."""

    policy: ResourcePolicyDocument | None = Field(
        None, description="The resource's own policy: whom it allows and denies what, beside their own policies."
    )

    def references(self) -> Iterator[Reference]:
        yield from super().references()
        if self.policy is not None:
            yield from self.policy.references("$.policy")


class TrustPolicyDocument(_NamingPolicy):
    """A role's trust policy (AssumeRolePolicyDocument), as AWS writes it."""

    statement: OneOrMany[TrustStatement] = Field(description="Who may take on the role, and who may not.")


class PolicySpec(PolicyDocument, Spec):
    """A managed policy: `policies/<name>.json`, the same document as in AWS."""

    model_config = ConfigDict(alias_generator=to_pascal)

    def references(self) -> Iterator[Reference]:
        yield from super().references()
        yield from self.approvals("$")
