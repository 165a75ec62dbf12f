"""Gateway responses: what a gateway answers where a request goes no further.

https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-gatewayResponse-definition.html
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field, StringConstraints

from owsgit.model.spec import Document, nearest

if TYPE_CHECKING:
    from owsgit.gateway.refusals import Refuse

HEADERS_MAX = 50
BODY_CHARACTERS_MAX = 16 * 1024
KINDS: Mapping[str, int] = {
    "ACCESS_DENIED": 403,
    "API_CONFIGURATION_ERROR": 500,
    "AUTHORIZER_CONFIGURATION_ERROR": 500,
    "AUTHORIZER_FAILURE": 500,
    "BAD_REQUEST_BODY": 400,
    "BAD_REQUEST_PARAMETERS": 400,
    "DEFAULT_4XX": 0,
    "DEFAULT_5XX": 0,
    "EXPIRED_TOKEN": 403,
    "INTEGRATION_FAILURE": 504,
    "INTEGRATION_TIMEOUT": 504,
    "INVALID_API_KEY": 403,
    "INVALID_SIGNATURE": 403,
    "MISSING_AUTHENTICATION_TOKEN": 403,
    "QUOTA_EXCEEDED": 429,
    "REQUEST_TOO_LARGE": 413,
    "RESOURCE_NOT_FOUND": 404,
    "THROTTLED": 429,
    "UNAUTHORIZED": 401,
    "UNSUPPORTED_MEDIA_TYPE": 415,
    "WAF_FILTERED": 403,
}
"""API Gateway's gateway response types, with the status that it gives to each (0: the error's own).

https://docs.aws.amazon.com/apigateway/latest/developerguide/supported-gateway-response-types.html
"""

FRAMING = ("content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer")


def _kind(text: str) -> str:
    if text not in KINDS:
        raise ValueError(f"{text!r:.60} is no type of gateway response: {nearest(text, KINDS, 'type', 'types')}")
    return text


def _header(name: str) -> str:
    if name.lower() in FRAMING:
        raise ValueError(f"{name!r} belongs to the connection: leave it out")
    return name


def _variables(text: str) -> str:
    if "$" in text:
        from owsgit.gateway import refusals  # noqa: PLC0415 - not where no response has variables

        refusals.check(text)
    return text


ResponseKind = Annotated[str, AfterValidator(_kind)]
HeaderName = Annotated[str, StringConstraints(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$"), AfterValidator(_header)]
HeaderText = Annotated[str, StringConstraints(pattern=r"^[\t\x20-\x7e]*$", max_length=4096), AfterValidator(_variables)]


class GatewayResponse(Document):
    """How one type of refusal is answered."""

    status_code: int | None = Field(None, ge=200, le=599, description="By default the status of the refusal.")
    headers: dict[HeaderName, HeaderText] = Field(
        default_factory=dict, max_length=HEADERS_MAX, description="Headers to add; values may hold $context variables."
    )
    body: Annotated[str, StringConstraints(max_length=BODY_CHARACTERS_MAX), AfterValidator(_variables)] | None = Field(
        None,
        description="Body, with variables such as $context.error.messageString (a JSON string), $context.error.message,"
        " $context.error.responseType, $context.error.validationErrorString, $context.requestId, $context.path; "
        'by default {"message": ...}. JSON, if no content-type is among the headers.',
    )


def refuse_of(responses: Mapping[str, GatewayResponse]) -> "Refuse":
    """What answers refusals as the spec says."""
    from owsgit.gateway.refusals import Custom, CustomRefusals, refuse  # noqa: PLC0415 - not where specs are only read

    if not responses:
        return refuse
    return CustomRefusals(
        {kind: Custom(each.status_code, dict(each.headers), each.body) for kind, each in responses.items()}
    )
