"""Authorizers that ask a function: `type` request and token.

https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-lambda-authorizer.html
"""

from collections.abc import Callable
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, TypeAdapter, ValidationError, model_validator
from pydantic_core import SchemaError

from owsgit.gateway.identity import CONTEXT, source
from owsgit.model.spec import Document
from owsgit.services.gateways.stages import FunctionName

SOURCES_MAX = 20
TTL_MAX = 3600
AUTHORIZATION = "$request.header.Authorization"
EXPRESSION_CHARACTERS_MAX = 512


def _source(text: str) -> str:
    source(text)
    return text


def _token_source(text: str) -> str:
    source(text)
    if ".header." not in text:
        raise ValueError(f"{text!r} is not taken: a token is in a header, such as {AUTHORIZATION}")
    return text


def _expression(text: str) -> str:
    matcher(text)
    return text


def matcher(expression: str) -> Callable[[str], bool]:
    """Whether a whole text is what a regular expression says, in time that only grows with its length (RE2's syntax).

    Raises ValueError for what is none.
    """
    try:
        adapter = TypeAdapter(Annotated[str, StringConstraints(pattern=f"^(?:{expression})$")])
    except SchemaError:
        raise ValueError(
            f"{expression!r} is no regular expression; look-around and references back are not taken"
        ) from None

    def matches(text: str) -> bool:
        try:
            adapter.validate_python(text)
        except ValidationError:
            return False
        return True

    return matches


Source = Annotated[str, StringConstraints(max_length=256), AfterValidator(_source)]


class _Asks(Document):
    """What both have."""

    function: FunctionName = Field(description="The function that decides: f, f:alias or f@commit.")
    result_ttl: int = Field(
        300,
        ge=0,
        le=TTL_MAX,
        description="Seconds for which an answer is good for who shows the same identity "
        "(authorizerResultTtlInSeconds); 0: the function is asked each time.",
    )
    timeout: int = Field(10, ge=1, le=29, description="Seconds that the function has; beyond them, 500.")


class RequestAuthorizer(_Asks):
    """Asks a function that sees the whole request but its body."""

    type: Literal["request"] = Field(description="A function that sees the request.")
    payload_format_version: Literal["1.0", "2.0"] = Field(
        "2.0",
        description="Format of what it is asked: 1.0 as of REST APIs, 2.0 as of HTTP APIs; WebSocket APIs have one.",
    )
    enable_simple_responses: bool = Field(
        False, description='Whether it answers {"isAuthorized": true, "context": {}}, and not a policy; for format 2.0.'
    )
    identity_source: list[Source] = Field(
        default_factory=lambda: [AUTHORIZATION],
        max_length=SOURCES_MAX,
        description="Who is asking: $request.header.NAME, $request.querystring.NAME, $stageVariables.NAME, or "
        f"$context. and one of {', '.join(CONTEXT)}. Without one of them the client gets 401, and nobody is asked.",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.enable_simple_responses and self.payload_format_version == "1.0":
            raise ValueError("enableSimpleResponses needs payloadFormatVersion 2.0: change one of them")
        if not self.identity_source and self.result_ttl:
            raise ValueError("without identitySource nobody could be known again: name one, or set resultTtl to 0")
        return self


class TokenAuthorizer(_Asks):
    """Asks a function that sees nothing but a token."""

    type: Literal["token"] = Field(description="A function that sees a token.")
    identity_source: Annotated[str, StringConstraints(max_length=256), AfterValidator(_token_source)] = Field(
        AUTHORIZATION, description="The header with the token: $request.header.NAME."
    )
    identity_validation_expression: (
        Annotated[str, StringConstraints(max_length=EXPRESSION_CHARACTERS_MAX), AfterValidator(_expression)] | None
    ) = Field(
        None,
        description="A regular expression (RE2) for the whole token; what is different gets 401, and nobody is asked.",
    )
