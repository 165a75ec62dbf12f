"""Stages of a gateway: the same routes, served with other variables.

https://docs.aws.amazon.com/apigateway/latest/developerguide/stage-variables.html
"""

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, StringConstraints

from owsgit.model.names import ALIAS_NEED, COMMIT
from owsgit.model.spec import Document, PlacedError, Reference

VARIABLES_MAX = 100
StageName = Annotated[str, StringConstraints(pattern=r"^(\$default|[A-Za-z0-9_-]{1,128})$")]
FunctionName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9._${}-]+([:@][A-Za-z0-9._${}-]+)?$", max_length=256)
]
"""Of a function or one of its versions; stage variables may stand in it."""

_VARIABLE = re.compile(r"\$\{stageVariables\.([A-Za-z0-9_]+)\}")


class StageSpec(Document):
    """One stage."""

    variables: dict[
        Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]+$", max_length=64)],
        Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._~:/?#&=,-]*$", max_length=512)],
    ] = Field(
        default_factory=dict,
        max_length=VARIABLES_MAX,
        description="Stage variables: ${stageVariables.name} in integrations; functions see them in the event.",
    )


def resolved(text: str, variables: Mapping[str, str]) -> str:
    """`text` with the variables of a stage in it; what names none stays."""
    return _VARIABLE.sub(lambda match: variables.get(match[1], match[0]), text)


def check_version(who: str, function: str, *at: str) -> None:
    """Raises PlacedError if what stands behind the @ of a function's name is no commit."""
    _, mark, commit = function.partition("@")
    if mark and not COMMIT.fullmatch(commit):
        raise PlacedError(f"{who}: a commit is named by all 40 digits of its id: git rev-parse {commit}", *at)


def version_reference(function: str, path: str) -> Reference:
    """The reference to a version of a function: f, f:alias or f@commit."""
    name, mark, version = next((parts for each in ":@" if (parts := function.partition(each))[1]), (function, "", ""))
    if mark == ":":
        return Reference("function", name, path, need=ALIAS_NEED + version)
    return Reference("function", name, path, commit=version)
