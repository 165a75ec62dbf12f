"""What a document says of whom an API refuses, and how: its resource policy, and its gateway responses."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from owsgit.gateway.table import DEFAULT
from owsgit.model.strictjson import join
from owsgit.services.gateways.openapi import integrations, words
from owsgit.services.gateways.openapi.integrations import Warn
from owsgit.services.gateways.responses import KINDS

INVOKED = re.compile(r"arn:[a-z-]+:execute-api:[^:]*:[^:]*:[^:/]+/")
"""What the ARNs of an API's own policy begin with."""


def policy(given: Any, warn: Warn) -> Any:
    """A resource policy whose ARNs, which name the API, its region and account on AWS, mean the gateway."""
    statements = given.get("Statement") if isinstance(given, dict) else None
    if statements is None:
        return given
    several = isinstance(statements, list)
    made = [_statement(each, warn) for each in (statements if several else [statements])]
    return {**given, "Statement": made if several else made[0]}


def _statement(statement: Any, warn: Warn) -> Any:
    if not isinstance(statement, dict):
        return statement
    made = dict(statement)
    for word in made.keys() & {"Resource", "NotResource"}:
        several = isinstance(made[word], list)
        names = [_invoked(each, warn) for each in (made[word] if several else [made[word]])]
        made[word] = names if several else names[0]
    return made


def _invoked(resource: Any, warn: Warn) -> Any:
    found = INVOKED.match(resource) if isinstance(resource, str) else None
    if found is None:
        return resource
    rest = resource[found.end() :]
    stage = rest.partition("/")[0]
    if not stage.startswith(("*", DEFAULT)):
        told = f"{resource!r:.100} speaks of the stage {stage!r:.60}, and so of no other, not of {DEFAULT} either"
        warn(join("$", words.POLICY), told)
    return f"execute-api:/{rest}"


def responses(given: Mapping[str, Any], warn: Warn, *, is_own: bool) -> dict[str, Any]:
    """The gateway responses of a document, which may be one of `owsgit gateway export` (`is_own`)."""
    made = dict(_responses(given, warn))
    missing = made.get("MISSING_AUTHENTICATION_TOKEN")
    if missing is not None and not is_own:  # a REST API answers so what no route is for
        made.setdefault("RESOURCE_NOT_FOUND", missing)
    return made


def _responses(given: Mapping[str, Any], warn: Warn) -> Iterator[tuple[str, Any]]:
    for kind, about in given.items():
        path = join(join("$", words.RESPONSES), kind)
        if kind not in KINDS or not isinstance(about, dict):
            warn(path, "is no type of gateway response")
            continue
        made: dict[str, Any] = {"statusCode": int(about["statusCode"])} if about.get("statusCode") else {}
        headers: dict[str, str] = {}
        for name, value in about.get("responseParameters", {}).items():
            text = integrations.unquoted(value)
            if text is None and str(value).startswith(("context.", "stageVariables.")):
                text = f"${value}"
            if text is None or not name.startswith("gatewayresponse.header."):
                warn(join(join(path, "responseParameters"), name), "only texts and $context are kept")
            else:
                headers[name.removeprefix("gatewayresponse.header.")] = text
        templates = about.get("responseTemplates", {})
        if templates:
            kind_of_body = "application/json" if "application/json" in templates else next(iter(templates))
            made["body"] = str(templates[kind_of_body])
            if kind_of_body != "application/json":
                headers["Content-Type"] = kind_of_body
            for other in templates.keys() - {kind_of_body}:
                warn(join(join(path, "responseTemplates"), other), "a gateway response has one body")
        if headers:
            made["headers"] = headers
        yield kind, made
