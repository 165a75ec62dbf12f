"""The policy of a gateway: who may call it, and from where, as resource policies of REST APIs are written.

https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-resource-policies.html
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import Field, model_validator

from owsgit.model.iam.document import ResourcePolicyDocument, ResourceStatement
from owsgit.model.spec import OneOrMany

_STARS = re.compile(r"\*{2,}")

SERVICE = "execute-api:"
OWN = "arn:aws:execute-api:*:*:*"
"""What the short form of a resource stands for: only its own gateway asks a policy."""


def _whole(resource: Any) -> Any:
    """execute-api:/stage/GET/path is short for the ARN."""
    if isinstance(resource, list):
        return [_whole(each) for each in resource]
    short = isinstance(resource, str) and resource.startswith(f"{SERVICE}/")
    return OWN + resource.removeprefix(SERVICE) if short else resource


class GatewayStatement(ResourceStatement):
    """One statement of a gateway's policy."""

    @model_validator(mode="before")
    @classmethod
    def _in_full(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: _whole(each) if name in ("Resource", "NotResource") else each for name, each in value.items()}

    @model_validator(mode="after")
    def _about_calls(self) -> "GatewayStatement":
        named = [self.action] if isinstance(self.action, str) else self.action
        if named is None:
            raise ValueError("a gateway's policy names the actions that it speaks of: Action, not NotAction")
        for action in named:
            if not action.lower().startswith(SERVICE):
                raise ValueError(f"a gateway's policy is about calls: {action} is no action of execute-api")
        return self


def unmatched(policy: "GatewayPolicy", name: str, stages: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The resources of a policy that match no call of a gateway of that name, whatever its path: the JSON path below
    the policy, and the resource."""
    own = [f"{name}/{stage}/" for stage in stages]
    for index, statement in enumerate(policy.statements):
        listed, named = statement.resources
        for pattern in listed:
            written = f"{SERVICE}{pattern.removeprefix(OWN)}" if pattern.startswith(f"{OWN}/") else pattern
            resource = f"{name}{pattern.removeprefix(OWN)}" if written != pattern else pattern.split(":", 5)[-1]
            if resource != "*" and not any(_may_begin(resource, text) for text in own):
                yield f"Statement[{index}].{'Resource' if named else 'NotResource'}", written


def _may_begin(pattern: str, text: str) -> bool:
    """Whether a pattern with * and ? matches something that begins with `text`."""
    pattern = _STARS.sub("*", pattern)  # which stand for the same, and a thousand of them would take a minute
    reached = _past_stars(pattern, {0})
    for letter in text:
        stays = {at for at in reached if at < len(pattern) and pattern[at] == "*"}
        goes_on = {at + 1 for at in reached if at < len(pattern) and pattern[at] in (letter, "?")}
        reached = _past_stars(pattern, stays | goes_on)
    return bool(reached)


def _past_stars(pattern: str, reached: set[int]) -> set[int]:
    """With the places behind stars, which may stand for nothing; no two stars are neighbours."""
    return reached | {at + 1 for at in reached if at < len(pattern) and pattern[at] == "*"}


class GatewayPolicy(ResourcePolicyDocument):
    """A gateway's own policy. Resources may be written as execute-api:/STAGE/METHOD/PATH."""

    statement: OneOrMany[GatewayStatement] = Field(  # type: ignore[assignment]
        description="Who is allowed and denied to call what."
    )
