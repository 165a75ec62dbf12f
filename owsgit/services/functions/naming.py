"""How callers of Lambda's API name functions: by name, partial ARN or ARN, each with a qualifier or without.

https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html (FunctionName, Qualifier)
"""

import re
from dataclasses import dataclass

from owsgit.aws.api import ServiceError
from owsgit.model.names import Scope

PATTERN = (
    r"(arn:(aws[a-zA-Z-]*)?:lambda:)?((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:)?(\d{12}:)?(function:)?"
    r"([a-zA-Z0-9-_\.]+)(:(\$LATEST(\.PUBLISHED)?|[a-zA-Z0-9-_]+))?"
)
"""Of a function's name, in AWS's words: errors say it."""

QUALIFIER_PATTERN = r"\$(LATEST(\.PUBLISHED)?)|[a-zA-Z0-9-_$]+"
NAME_CHARACTERS_MAX = 256
QUALIFIER_CHARACTERS_MAX = 128

_NAME = re.compile(
    r"(arn:(aws[a-zA-Z-]*)?:lambda:)?((?P<region>(eusc-)?[a-z]{2}(-gov|-iso[a-z]?)?-[a-z]+-[0-9]):)?"
    r"((?P<account>[0-9]{12}):)?(function:)?"
    r"(?P<name>[a-zA-Z0-9_.-]+)(:(?P<qualifier>\$LATEST(\.PUBLISHED)?|[a-zA-Z0-9_-]+))?"
)
_QUALIFIER = re.compile(r"\$LATEST(\.PUBLISHED)?|[a-zA-Z0-9_$-]+")


@dataclass(frozen=True)
class Named:
    """A function as a caller of the API names it; `qualifier` is empty where none is given."""

    name: str
    qualifier: str
    scope: Scope  # where the caller says that it lies

    @property
    def arn(self) -> str:
        """Of the function itself."""
        return self.scope.arn("arn:aws:lambda:{region}:{account}:function:{name}", self.name)

    @property
    def qualified_arn(self) -> str:
        return f"{self.arn}:{self.qualifier}" if self.qualifier else self.arn

    @classmethod
    def parse(cls, function: str, qualifier: str | None, own: Scope) -> "Named":
        """`own` is what is meant where nothing is said. Raises ServiceError."""
        found = _NAME.fullmatch(function)
        if found is None:
            raise _pattern(function, "functionName", PATTERN)
        if len(function) > NAME_CHARACTERS_MAX:
            raise _length(function, "functionName", NAME_CHARACTERS_MAX)
        if qualifier is not None and not _QUALIFIER.fullmatch(qualifier):
            raise _pattern(qualifier, "qualifier", QUALIFIER_PATTERN)
        if qualifier is not None and len(qualifier) > QUALIFIER_CHARACTERS_MAX:
            raise _length(qualifier, "qualifier", QUALIFIER_CHARACTERS_MAX)
        if qualifier is not None and found["qualifier"] not in (None, qualifier):
            raise invalid("The derived qualifier from the function name does not match the specified qualifier.")
        region = found["region"] or own.region
        if region != own.region:
            raise not_found(f"Functions from '{region}' are not reachable in this region ('{own.region}')")
        return cls(found["name"], qualifier or found["qualifier"] or "", Scope(region, found["account"] or own.account))


def not_found(message: str) -> ServiceError:
    return ServiceError("ResourceNotFoundException", message, status=404, fields={"Type": "User"})


def invalid(message: str) -> ServiceError:
    return ServiceError("InvalidParameterValueException", message, fields={"Type": "User"})


def _pattern(value: str, member: str, pattern: str) -> ServiceError:
    return _constraint(value, member, f"satisfy regular expression pattern: {pattern}")


def _length(value: str, member: str, most: int) -> ServiceError:
    return _constraint(value, member, f"have length less than or equal to {most}")


def _constraint(value: str, member: str, constraint: str) -> ServiceError:
    """What every service of AWS says of a member that breaks its model."""
    return ServiceError(
        "ValidationException",
        f"1 validation error detected: Value '{value[:NAME_CHARACTERS_MAX]}' at '{member}' failed to satisfy "
        f"constraint: Member must {constraint}",
    )
