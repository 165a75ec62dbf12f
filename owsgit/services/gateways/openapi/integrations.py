"""`x-amazon-apigateway-integration`, and the integration of a route."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from owsgit.model.strictjson import join

_PART = r"(?:\$\{AWS::\w+\}|[^:/])*"
"""A part of an ARN, which CloudFormation may be asked to fill in."""

_FUNCTION = re.compile(rf"arn:{_PART}:lambda:{_PART}:{_PART}:function:(?P<name>[^/]+)/invocations$")
_SAM = re.compile(r".*(?P<name>\$\{[A-Za-z0-9]+\.Arn\}(?::[^:/]+)?)/invocations$")
_RESOURCE = re.compile(r"\$\{([A-Za-z0-9]+)(?:\.Arn)?\}")
KNOWN = frozenset(
    {"type", "uri", "httpMethod", "payloadFormatVersion", "timeoutInMillis", "passthroughBehavior", "requestTemplates",
     "responses", "connectionType", "requestParameters", "responseParameters"}
)  # fmt: skip

CHANGES = ("append:", "overwrite:", "remove:")
PATH = "overwrite:path"
ADDRESSES = ("http://", "https://", "${")

Warn = Callable[[str, str], None]
"""Takes a JSON path and what is not kept of it."""


def function_of(uri: Any) -> str | None:
    """The function, with its alias, that an address invokes; None if it invokes none.

    What a template names by its own resource is called as that resource is.
    """
    found = _FUNCTION.search(str(uri)) or _SAM.match(str(uri))
    return _RESOURCE.sub(r"\1", found["name"]) if found else None


@dataclass(frozen=True)
class Place:
    """What ARNs say of where something is."""

    account: str
    region: str

    def invocations(self, function: str) -> str:
        """The address by which API Gateway invokes a function."""
        arn = f"arn:aws:lambda:{self.region}:{self.account}:function:{function}"
        return f"arn:aws:apigateway:{self.region}:lambda:path/2015-03-31/functions/{arn}/invocations"


def written(route: dict[str, Any], place: Place) -> dict[str, Any]:
    """The integration of a route; what it says is taken out of `route`."""
    made = _written(route, place)
    if not made:
        return {}
    for field in ("requestParameters", "responseParameters") if made["type"] != "mock" else ():
        if field in route:
            made[field] = route.pop(field)
    if "timeout" in route:
        made["timeoutInMillis"] = route.pop("timeout") * 1000
    return made


def _written(route: dict[str, Any], place: Place) -> dict[str, Any]:
    if "function" in route and "@" not in route["function"]:  # API Gateway knows no commits
        return {
            "type": "aws_proxy",
            "httpMethod": "POST",
            "uri": place.invocations(route.pop("function")),
            "payloadFormatVersion": route.pop("payloadFormatVersion", "2.0"),
        }
    if isinstance(route.get("http"), dict) and "uri" in route["http"]:
        method = route["http"].pop("method", "ANY")
        made = {"type": "http_proxy", "httpMethod": method, "uri": route["http"].pop("uri")}
        if not route["http"]:
            route.pop("http")
        return made
    if isinstance(route.get("response"), dict):
        return _mock(route)
    return {}


def _mock(route: dict[str, Any]) -> dict[str, Any]:
    response = route["response"]
    status = response.pop("statusCode", 200)
    headers = response.pop("headers", {})
    plain = all(isinstance(text, str) for text in headers.values())
    if not plain:
        response["headers"] = headers
    kind = next((text for name, text in headers.items() if name.lower() == "content-type"), "application/json")
    answer: dict[str, Any] = {"statusCode": str(status)}
    if headers and plain:
        answer["responseParameters"] = {
            f"method.response.header.{name}": quoted(text) for name, text in headers.items()
        }
    if isinstance(response.get("body"), str):
        answer["responseTemplates"] = {kind: response.pop("body")}
    if not response:
        route.pop("response")
    return {
        "type": "mock",
        "requestTemplates": {"application/json": f'{{"statusCode": {status}}}'},
        "responses": {"default": answer},
    }


def quoted(text: str) -> str:
    """A static value of a mapping."""
    return f"'{text}'"


def unquoted(text: Any) -> str | None:
    """The value of a mapping that is static; None for one that is not."""
    text = str(text)
    return text[1:-1] if len(text) >= 2 and text[0] == text[-1] == "'" else None


def read(given: Mapping[str, Any], path: str, warn: Warn) -> dict[str, Any]:
    """The fields of a route that an integration stands for; {} if it cannot be kept."""
    kind = str(given.get("type", "")).lower()
    for word in sorted(given.keys() - KNOWN):
        warn(join(path, word), "has no counterpart")
    if str(given.get("connectionType", "INTERNET")).upper() != "INTERNET":
        warn(join(path, "connectionType"), "there are no VPC links: the address is called from the node")
    if kind in ("aws_proxy", "aws"):
        made = _function(given, kind, path, warn)
    elif kind in ("http_proxy", "http"):
        made = _http(given, kind, path, warn)
    elif kind == "mock":
        made = _response(given, path, warn)
    else:
        warn(join(path, "type"), f"{kind!r:.40} is no integration that is known")
        return {}
    if made and kind != "mock":
        made.update(_changes(given, path, warn))
    timeout = given.get("timeoutInMillis")
    if made and isinstance(timeout, int | float):
        made["timeout"] = max(1, math.ceil(timeout / 1000))
    return made


def _function(given: Mapping[str, Any], kind: str, path: str, warn: Warn) -> dict[str, Any]:
    uri = given.get("uri")
    function = function_of(uri)
    if function is None:
        warn(join(path, "uri"), f"{uri!r:.100} invokes no Lambda function")
        return {}
    if kind == "aws":
        warn(join(path, "type"), "templates are not applied: the function gets the event of a proxy integration")
    elif given.get("requestTemplates"):
        warn(join(path, "requestTemplates"), "is of integrations that are not proxies")
    made = {"function": function}
    version = str(given.get("payloadFormatVersion", "1.0"))
    if version != "2.0":
        made["payloadFormatVersion"] = "1.0"
    return made


def _http(given: Mapping[str, Any], kind: str, path: str, warn: Warn) -> dict[str, Any]:
    uri = given.get("uri")
    if not isinstance(uri, str) or not uri.startswith(ADDRESSES):
        warn(join(path, "uri"), f"{uri!r:.100} is no address: of a private integration, write the one of its service")
        return {}
    if kind == "http" and given.get("requestTemplates"):
        warn(join(path, "requestTemplates"), "mapping templates are not applied: requests go through as they are")
    method = str(given.get("httpMethod", "ANY")).upper()
    made: dict[str, Any] = {"http": {"uri": uri, **({"method": method} if method != "ANY" else {})}}
    requests = given.get("requestParameters")
    if isinstance(requests, dict) and PATH in requests:
        rewrite = _rewrite(str(requests[PATH]))
        if rewrite is None:
            warn(join(join(path, "requestParameters"), PATH), f"{requests[PATH]!r:.100} has no counterpart in rewrite")
        else:
            address = urlsplit(uri)
            made["http"]["uri"], made["rewrite"] = f"{address.scheme}://{address.netloc}", rewrite
    return made


def _rewrite(path: str) -> str | None:
    """`overwrite:path` of an HTTP API in the words of `rewrite`; None if it asks for more than parameters of the path
    and stage variables."""
    made = re.sub(
        r"\$request\.path\.(\w+)|\$\{request\.path\.(\w+)\}", lambda found: f"{{{found[1] or found[2]}}}", path
    )
    made = re.sub(r"\$stageVariables\.(\w+)", r"${stageVariables.\1}", made)
    if "$" in made.replace("${stageVariables.", ""):
        return None
    return made if made.startswith("/") else f"/{made}"


def _response(given: Mapping[str, Any], path: str, warn: Warn) -> dict[str, Any]:
    answers = given.get("responses")
    answers = answers if isinstance(answers, dict) and answers else {"default": {}}
    templates = given.get("requestTemplates")
    template = str(templates.get("application/json", "")) if isinstance(templates, dict) else ""
    chosen = re.search(r'"statusCode"\s*:\s*"?(\d{3})', template)
    wanted = chosen[1] if chosen else "200"
    name = next((each for each in answers if each == wanted or str(answers[each].get("statusCode")) == wanted), None)
    name = name or ("default" if "default" in answers else next(iter(answers)))
    below = join(join(path, "responses"), name)
    for other in answers.keys() - {name}:
        warn(join(join(path, "responses"), other), "a fixed response is one response")
    return {"response": _fixed(answers[name], int(wanted), below, warn)}


def _fixed(answer: Mapping[str, Any], status: int, path: str, warn: Warn) -> dict[str, Any]:
    made: dict[str, Any] = {"statusCode": int(answer.get("statusCode", status))}
    headers: dict[str, str] = {}
    parameters = answer.get("responseParameters")
    for name, value in parameters.items() if isinstance(parameters, dict) else ():
        text = unquoted(value)
        if text is None or not name.startswith("method.response.header."):
            warn(join(join(path, "responseParameters"), name), "only fixed values of headers are kept")
        else:
            headers[name.removeprefix("method.response.header.")] = text
    kinds = answer.get("responseTemplates")
    if isinstance(kinds, dict) and kinds:
        kind = "application/json" if "application/json" in kinds else next(iter(kinds))
        body = kinds[kind]
        for other in kinds.keys() - {kind}:
            warn(join(join(path, "responseTemplates"), other), "a fixed response has one body")
        if isinstance(body, str) and body:
            made["body"] = body
            if kind != "application/json" and not any(name.lower() == "content-type" for name in headers):
                headers["Content-Type"] = kind
            if "$input" in body or "#set" in body:
                warn(join(join(path, "responseTemplates"), kind), "templates are not evaluated: it is sent as it is")
    if headers:
        made["headers"] = headers
    return made


def _changes(given: Mapping[str, Any], path: str, warn: Warn) -> dict[str, Any]:
    """`requestParameters` and `responseParameters`, in the words of HTTP APIs."""
    made: dict[str, Any] = {}
    requests = given.get("requestParameters")
    found: dict[str, str] = {}
    for name, value in requests.items() if isinstance(requests, dict) else ():
        if name == PATH:
            continue  # it is the route's rewrite
        change = (name, str(value)) if name.startswith(CHANGES) else _change(name, str(value))
        if change is None:
            warn(join(join(path, "requestParameters"), name), f"{value!r:.100} has no counterpart")
        elif change[0]:
            found[change[0]] = change[1]
    if found:
        made["requestParameters"] = found
    responses = given.get("responseParameters")
    if isinstance(responses, dict) and responses:
        made["responseParameters"] = responses
    return made


def _change(name: str, value: str) -> tuple[str, str] | None:
    """A mapping of a REST API; its name is empty if it says what is so anyway."""
    target = re.fullmatch(r"integration\.request\.(header|querystring|path)\.(.+)", name)
    source = re.fullmatch(r"method\.request\.(header|querystring|path)\.(.+)", value)
    if target is None:
        return None
    if target[1] == "path":
        return ("", "") if source and source.groups() == target.groups() else None
    text = unquoted(value)
    if source:
        text = f"$request.{source[1]}.{source[2]}"
    elif value.startswith("context."):
        text = f"${value}"
    elif value.startswith("stageVariables."):
        text = f"${{{value}}}"
    return None if text is None else (f"overwrite:{target[1]}.{target[2]}", text)
