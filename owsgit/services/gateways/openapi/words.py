"""Names of OpenAPI and of API Gateway's extensions, and what both directions share."""

from typing import Any

AMAZON = "x-amazon-apigateway-"
INTEGRATION = f"{AMAZON}integration"
INTEGRATIONS = f"{AMAZON}integrations"
ANY_METHOD = f"{AMAZON}any-method"
AUTHORIZER = f"{AMAZON}authorizer"
AUTHTYPE = f"{AMAZON}authtype"
CORS = f"{AMAZON}cors"
VALIDATOR = f"{AMAZON}request-validator"
VALIDATORS = f"{AMAZON}request-validators"
RESPONSES = f"{AMAZON}gateway-responses"
BINARY = f"{AMAZON}binary-media-types"
COMPRESSION = f"{AMAZON}minimum-compression-size"
POLICY = f"{AMAZON}policy"
KEY_SOURCE = f"{AMAZON}api-key-source"
EXPORT_VERSION = f"{AMAZON}importexport-version"

GATEWAY = "x-owsgit-gateway"
ROUTE = "x-owsgit-route"

DEFAULT_PATH = "/$default"
ANY_TYPE = "*/*"
"""What `$default` is called among content types."""

SIGV4 = "sigv4"
API_KEY = "api_key"

MODELS = "#/models/"
SCHEMAS = "#/components/schemas/"
PLACES = {"querystring": "query", "header": "header", "path": "path"}
"""What OpenAPI calls the places of parameters."""

VALIDATES: dict[str, list[str]] = {
    "all": ["body", "parameters"],
    "body": ["body"],
    "parameters": ["parameters"],
    "none": [],
}
"""Request validators by name, in exported documents."""

ANY_ANSWER = {"default": {"description": "Any answer."}}
"""OpenAPI wants responses; this is said of a route that says nothing of them."""

OPENAPI_METHODS = ("get", "put", "post", "delete", "options", "head", "patch")


def merged(base: Any, over: Any) -> Any:
    """`over` on top of `base`, objects member by member."""
    if isinstance(base, dict) and isinstance(over, dict):
        return {**base, **{name: merged(base.get(name), value) for name, value in over.items()}}
    return over
