"""The policy of a gateway: who may call it, and from where, as resource policies of REST APIs are written.

https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-resource-policies.html
"""

from typing import Any

from pydantic import Field, model_validator

from owsgit.model.iam.document import ResourcePolicyDocument, ResourceStatement
from owsgit.model.spec import OneOrMany

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


class GatewayPolicy(ResourcePolicyDocument):
    """A gateway's own policy. Resources may be written as execute-api:/STAGE/METHOD/PATH."""

    statement: OneOrMany[GatewayStatement] = Field(  # type: ignore[assignment]
        description="Who is allowed and denied to call what."
    )
