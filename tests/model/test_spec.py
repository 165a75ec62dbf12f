"""Specs refuse what they do not know, by name and place."""

import json
import re
from typing import Any

import pytest

from owsgit.model.diff import ABSENT, differences
from owsgit.model.errors import InvalidError
from owsgit.services import KINDS


def problems(kind: str, document: Any) -> list[tuple[str, str, str]]:
    with pytest.raises(InvalidError) as caught:
        KINDS[kind].spec.parse(json.dumps(document).encode(), "x.json")
    return [(problem.path, problem.message, problem.remedy) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("kind", "document", "path", "told"),
    [
        (
            "function",
            {"runtime": "python", "handler": "a.b", "memroySize": 1},
            "$.memroySize",
            "did you mean the field 'memorySize'?",
        ),
        ("function", {"runtime": "python", "handler": "a.b", "memory_size": 128}, "$.memory_size", "memorySize"),
        ("function", {"runtime": "java21", "handler": "a.b"}, "$.runtime", ""),
        ("function", {"runtime": "python", "handler": "../x.y"}, "$.handler", ""),
        ("function", {"runtime": "python", "handler": "nodot"}, "$.handler", ""),
        ("function", {"runtime": "python", "handler": "a.b", "network": ["127.0.0.1:22"]}, "$.network[0]", ""),
        ("function", {"runtime": "python", "handler": "a.b", "network": ["169.254.169.254:80"]}, "$.network[0]", ""),
        ("function", {"runtime": "wasm", "handler": "a.wasm", "network": "internet"}, "$", ""),
        ("function", {"runtime": "python", "handler": "a.b", "timeout": "3"}, "$.timeout", ""),
        ("function", {"runtime": "python", "handler": "a.b", "timeout": 3.0}, "$.timeout", ""),
        ("function", {"runtime": "python", "handler": "a.b", "timeout": True}, "$.timeout", ""),
        ("function", {"runtime": "python", "handler": "a.b", "timeout": 901}, "$.timeout", ""),
        (
            "function",
            {"runtime": "python", "handler": "a.b", "environment": {"AWS_REGION": "x"}},
            "$.environment.AWS_REGION",
            "",
        ),
        ("function", {"runtime": "python", "handler": "a.b", "environment": {"AB": "x" * 5000}}, "$", ""),
        (
            "gateway",
            {"port": 80, "routes": {"GET /": {"function": "f", "payloadFormat": "1.0"}}},
            "$.routes['GET /'].payloadFormat",
            "payloadFormatVersion",
        ),
        ("gateway", {"port": 80, "routes": {"FETCH /": {"function": "f"}}}, "$.routes['FETCH /']", ""),
        ("gateway", {"port": 80, "routes": {"GET /{a+}/b": {"function": "f"}}}, "$.routes['GET /{a+}/b']", ""),
        (
            "gateway",
            {"port": 80, "routes": {"GET /{a}": {"function": "f"}, "GET /{b}": {"function": "f"}}},
            "$.routes['GET /{b}']",
            "",
        ),
        ("gateway", {"port": 0, "routes": {}}, "$.port", ""),
        ("gateway", {"routes": {}}, "$.port", "add it"),
        ("node", {"key": "ssh-rsa AAAA", "address": "a"}, "$.key", ""),
        ("node", {"key": "x", "address": "a b"}, "$.address", ""),
        ("user", {"policies": ["../x"]}, "$.policies[0]", ""),
        ("project", [], "$", "start the file with '{'"),
        ("project", {"name": "shop", "roots": []}, "$.roots", ""),
        ("project", {"name": "shop", "roots": ["a"], "format": 2}, "$.format", ""),
    ],
)
def test_bad_fields_are_refused_with_their_place(kind: str, document: Any, path: str, told: str) -> None:
    found = problems(kind, document)
    assert any(place == path and told in remedy for place, _, remedy in found), found


def test_all_problems_of_a_file_are_told_at_once() -> None:
    assert len(problems("gateway", {"prt": 1, "routes": {"x": {}}, "y": 2})) >= 4


@pytest.mark.parametrize("kind", sorted(KINDS.by_name))
def test_every_field_of_every_kind_is_described_and_the_schema_address_is_taken(kind: str) -> None:
    schema = KINDS[kind].spec.model_json_schema(by_alias=True)
    for definition in (schema, *schema.get("$defs", {}).values()):
        for name, field in definition.get("properties", {}).items():
            assert field.get("description"), f"{kind} {name}"
    assert "$schema" in schema["properties"]


def test_differences_are_the_smallest_fields() -> None:
    before = {"a": {"b": 1, "c": [1, 2]}, "x": 1, "same": {"y": 1}}
    after = {"a": {"b": 2, "c": [2, 1]}, "z": True, "same": {"y": 1}}
    assert [(d.path, d.before, d.after) for d in differences(before, after)] == [
        ("$.a.b", 1, 2),
        ("$.a.c", [1, 2], [2, 1]),
        ("$.x", 1, ABSENT),
        ("$.z", ABSENT, True),
    ]
    assert list(differences({"a": 1}, {"a": True}))


@pytest.mark.parametrize(
    ("fields", "place", "told", "remedy"),
    [
        ({"network": ["db.example.com"]}, "$.network[0]", "'db.example.com' is not host:port", ""),
        ({"network": "all"}, "$.network", "Input should be 'none' or 'internet'", ""),
        ({"layers": list("abcdef")}, "$.layers", "at most 5 are taken, not 6", ""),
        ({"environment": {"Variables": {"AB": "c"}}}, "$.environment", "leave out what AWS calls Variables", ""),
        ({"environment": {"variables": {"AB": "c"}}}, "$.environment", "leave out what AWS calls Variables", ""),
        ({"role": "arn:aws:iam::123456789012:role/orders"}, "$.role", "without its ARN: write 'orders'", ""),
        ({"functionName": "f"}, "$.functionName", "not a known field", "the function is called as its folder"),
        ({"FunctionName": "f"}, "$.FunctionName", "not a known field", "the function is called as its folder"),
        ({"ephemeralStorage": {"Size": 512}}, "$.ephemeralStorage", "a whole number", "not an object"),
        ({"provisionedConcurrency": 20}, "$", "provisionedConcurrency is 20, .*: maxConcurrency is 10", ""),
        (
            {"provisionedConcurrency": 5, "reservedConcurrency": 3},
            "$",
            "provisionedConcurrency is 5, .*: reservedConcurrency is 3",
            "",
        ),
    ],
)
def test_a_mistake_is_told_once_and_in_words(fields: dict[str, Any], place: str, told: str, remedy: str) -> None:
    [(path, message, advice)] = problems("function", {"runtime": "python", "handler": "a.b", **fields})
    assert path == place and re.search(told, message) and remedy in advice, (path, message, advice)


LOGIN = {"type": "jwt", "issuer": "https://login.example.com", "audience": ["shop"]}


def gateway(**fields: Any) -> dict[str, Any]:
    return {"port": 80, "routes": {"GET /": {"function": "f"}}, **fields}


@pytest.mark.parametrize(
    ("document", "place", "told", "remedy"),
    [
        (gateway(auth="logn"), "$.auth", "there is no such authorizer", ""),
        (gateway(authorizers={"a": {**LOGIN, "isuer": "x"}}), "$.authorizers.a.isuer", "not a known", "the field 'issuer'"),
        (gateway(authorizers={"a": {**LOGIN, "function": "f"}}), "$.authorizers.a.function", "not a known", "jwksUri"),
        (gateway(authorizers={"a": {**LOGIN, "type": "JWT"}}), "$.authorizers.a.type", "'JWT' is none of 'jwt', ", "write one"),
        (gateway(authorizers={"a": {}}), "$.authorizers.a", "the field 'type' is missing", "add it"),
        (gateway(authorizers={"a": {**LOGIN, "clockSkew": 301}}), "$.authorizers.a.clockSkew", "less than or equal to 300", "300 or less"),
        (gateway(authorizers={"a": {**LOGIN, "identitySource": "x"}}), "$.authorizers.a.identitySource", "the form", "$request.header.NAME"),
        (gateway(accessLog={"format": "$context.nope"}), "$.accessLog.format", "is not known", ""),
        (gateway(routes={"GET /": {"http": {"uri": "http://x/{id}"}}}), "$.routes['GET /'].http.uri", "{id} is no parameter", ""),
        (gateway(routes={"GET /": {"function": "f:${stageVariables.a}"}}), "$.routes['GET /'].function", "names a variable", ""),
        (gateway(domains=[{"name": "a.test", "stage": "x"}]), "$.domains[0].stage", "names the stage 'x'", ""),
        (gateway(tls={"certificate": {"secret": "c"}, "redirectPort": 80}), "$.tls.redirectPort", "port of the gateway itself", ""),
        (gateway(tls={"certificate": {"secret": "c"}, "mutualTls": {"truststore": "-----BEGIN x"}}), "$.tls.mutualTls.truststore", "no certificate in PEM", ""),
    ],
)  # fmt: skip
def test_a_mistake_of_a_gateway_is_told_once_at_its_place(
    document: dict[str, Any], place: str, told: str, remedy: str
) -> None:
    [(path, message, advice)] = problems("gateway", document)
    assert path == place and told in message and remedy in advice, (path, message, advice)
