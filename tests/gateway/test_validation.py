"""Request validation, custom gateway responses and the docs page, through real HTTP."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from owsgit.model.errors import InvalidError
from owsgit.services.gateways.spec import GatewaySpec
from tests.support.gateways import Gateways, deployed

MODELS: dict[str, Any] = {
    "Order": {
        "type": "object",
        "required": ["items"],
        "additionalProperties": False,
        "properties": {
            "items": {"type": "array", "minItems": 1, "items": {"$ref": "#/models/Item"}},
            "note": {"type": "string", "pattern": "^(a+)+$"},
            "gift": {"$ref": "#/properties/note"},
        },
    },
    "Item": {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}, "of": {"$ref": "#"}}},
    "Modern": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": ["object", "null"],
        "properties": {"n": {"exclusiveMinimum": 5}},
        "unevaluatedProperties": False,
    },
}
ROUTES: dict[str, Any] = {
    "POST /orders": {"function": "echo", "request": {"body": {"application/json": "Order"}}},
    "POST /told": {"function": "echo", "request": {"body": {"application/json": "Order"}, "detailedErrors": True}},
    "POST /loose": {
        "function": "echo",
        "request": {
            "body": {"application/json": "Modern"},
            "bodyRequired": False,
            "passthroughBehavior": "WHEN_NO_MATCH",
        },
    },
    "POST /any": {"function": "echo", "request": {"body": {"$default": {"type": "integer"}}}},
    "POST /unchecked": {"function": "echo", "request": {"body": {"application/json": "Order"}, "validate": []}},
    "GET /search/{id}": {
        "function": "echo",
        "request": {
            "parameters": {
                "path.id": {"schema": {"type": "integer", "maximum": 99}},
                "querystring.page": {"required": True, "schema": {"type": "integer", "minimum": 1}},
                "querystring.tag": {"schema": {"type": "array", "items": {"enum": ["a", "b"]}}},
                "querystring.deep": {"schema": {"type": "boolean"}},
                "header.X-Id": {"required": True},
            },
            "detailedErrors": True,
        },
    },
    "GET /fail": {"function": "fail"},
}
RESPONSES: dict[str, Any] = {
    "BAD_REQUEST_BODY": {
        "statusCode": 422,
        "headers": {"X-Why": "$context.error.responseType", "Content-Type": "application/problem+json"},
        "body": '{"m": $context.error.messageString, "v": "$context.error.validationErrorString", "p": "$context.path"}',
    },
    "DEFAULT_5XX": {
        "body": "<p>$context.path ${context.httpMethod} $other</p>",
        "headers": {"content-type": "text/html"},
    },
}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateways]:
    made = deployed(
        tmp_path_factory.mktemp("api"),
        models=MODELS,
        routes=ROUTES,
        docs={"path": "/docs"},
        info={"title": "The <shop>"},
    )
    yield made
    made.close()


@pytest.fixture(scope="module")
def custom(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateways]:
    made = deployed(
        tmp_path_factory.mktemp("custom"),
        models=MODELS,
        routes=ROUTES,
        responses=RESPONSES,
        stages={"v1": {}},
    )
    yield made
    made.close()


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "message"),
    [
        ("/orders", '{"items": [{"id": "a"}]}', {}, 200, ""),
        ("/orders", '{"items": [{"id": "a"}], "gift": "aaa"}', {}, 200, ""),
        ("/orders", '{"items": [{"id": "a"}], "gift": "b"}', {}, 400, "Invalid request body"),
        ("/orders", '{"items": [{"id": "a", "of": {"id": 1}}]}', {}, 400, "Invalid request body"),
        ("/orders", '{"items": []}', {}, 400, "Invalid request body"),
        ("/orders", '{"items": [{"id": "a"}], "x": 1}', {}, 400, "Invalid request body"),
        ("/orders", "{", {}, 400, "Invalid request body"),
        ("/orders", "", {}, 400, "Invalid request body"),
        ("/orders", "NaN", {}, 400, "Invalid request body"),
        ("/orders", "[" * 5000, {}, 400, "Invalid request body"),
        ("/orders", '{"items": [{"id": "a", "x": ' + "[" * 500 + "]" * 500 + "}]}", {}, 400, "Invalid request body"),
        ("/orders", "x", {"content-type": "text/plain"}, 415, "Unsupported Media Type"),
        ("/orders", '{"items": []}', {"content-type": "Application/JSON; charset=utf-8"}, 400, "Invalid request body"),
        ("/orders", '{"items": []}', {"content-type": ""}, 400, "Invalid request body"),
        ("/loose", "x", {"content-type": "text/plain"}, 200, ""),
        ("/loose", "", {}, 200, ""),
        ("/loose", '{"n": 6}', {}, 200, ""),
        ("/loose", '{"n": 5}', {}, 400, "Invalid request body"),
        ("/loose", '{"m": 5}', {}, 400, "Invalid request body"),
        ("/any", "5", {"content-type": "application/vnd.x+json"}, 200, ""),
        ("/any", '"5"', {"content-type": "text/plain"}, 400, "Invalid request body"),
        ("/unchecked", "x", {}, 200, ""),
    ],
)
def test_bodies(api: Gateways, path: str, body: str, headers: dict[str, str], status: int, message: str) -> None:
    found = api.client.post(path, content=body, headers={"content-type": "application/json", **headers})
    assert found.status_code == status, found.text
    assert status == 200 or found.json() == {"message": message}


def test_patterns_take_linear_time(api: Gateways) -> None:
    body = json.dumps({"items": [{"id": "a"}], "note": "a" * 200_000 + "b"})
    assert api.client.post("/orders", content=body, timeout=20).status_code == 400


@pytest.mark.parametrize(
    ("path", "headers", "status", "message"),
    [
        ("/search/5?page=1", {"x-id": "1"}, 200, ""),
        ("/search/5?page=1&tag=a&tag=b&deep=true", {"x-id": "1"}, 200, ""),
        ("/search/5?page=1&tag=a,b", {"x-id": "1"}, 200, ""),
        ("/search/5", {"x-id": "1"}, 400, "Missing required request parameters: [page]"),
        ("/search/5?page=", {}, 400, "Missing required request parameters: [page, X-Id]"),
        ("/search/x?page=0", {"x-id": "1"}, 400, "Invalid request parameters: [id, page]"),
        ("/search/100?page=1", {"x-id": "1"}, 400, "Invalid request parameters: [id]"),
        ("/search/5?page=1&page=x", {"x-id": "1"}, 400, "Invalid request parameters: [page]"),
        ("/search/5?page=true", {"x-id": "1"}, 400, "Invalid request parameters: [page]"),
        ("/search/5?page=1&tag=c", {"x-id": "1"}, 400, "Invalid request parameters: [tag]"),
        ("/search/5?page=1&deep=yes", {"x-id": "1"}, 400, "Invalid request parameters: [deep]"),
    ],
)
def test_parameters(api: Gateways, path: str, headers: dict[str, str], status: int, message: str) -> None:
    found = api.client.get(path, headers=headers)
    assert found.status_code == status, found.text
    assert status == 200 or found.json()["message"] == message


def test_detail_is_told_where_it_is_asked_for_and_bounded(api: Gateways) -> None:
    found = api.client.post("/told", json={"items": [{"id": 5}], "x": 1}).json()
    assert {"path": "$.items[0].id", "message": '5 is not of type "string"'} in found["errors"]
    many = api.client.post("/told", json={"items": [{"id": n} for n in range(5000)]}).json()
    assert len(many["errors"]) == 20
    assert api.client.post("/told", content="{").json()["errors"][0]["path"] == "$"
    missing = api.client.get("/search/5").json()["errors"]
    assert [error["path"] for error in missing] == ["querystring.page", "header.X-Id"]
    wrong = api.client.get("/search/5?page=0", headers={"x-id": "1"}).json()["errors"]
    assert wrong == [{"path": "querystring.page", "message": "0 is less than the minimum of 1"}]


def test_gateway_responses_are_the_owners(custom: Gateways) -> None:
    found = custom.client.post("/v1/orders", json={"x": '"'})
    assert (found.status_code, found.headers["x-why"]) == (422, "BAD_REQUEST_BODY")
    assert found.headers["content-type"] == "application/problem+json"
    told = found.json()
    assert told["m"] == "Invalid request body" and "$: " in told["v"] and told["p"] == "/v1/orders"
    failed = custom.client.get("/v1/fail")
    assert (failed.status_code, failed.text) == (500, "<p>/v1/fail GET $other</p>")
    assert custom.client.get("/v1/none").json() == {"message": "Not Found"}, "what no one has described stays"


def test_an_address_that_no_route_answers_has_a_type_of_its_own(custom: Gateways) -> None:
    custom.serve(
        routes={"GET /{a}": {"function": "fail"}},
        responses={
            "RESOURCE_NOT_FOUND": {"statusCode": 410, "body": '{"type": "$context.error.responseType"}'},
            "DEFAULT_4XX": {"body": "another"},
        },
    )
    try:
        found = custom.client.get("/a/b")
        assert (found.status_code, found.json()) == (410, {"type": "RESOURCE_NOT_FOUND"})
    finally:
        custom.serve(models=MODELS, routes=ROUTES, responses=RESPONSES, stages={"v1": {}})


def test_what_a_request_says_stays_a_value(custom: Gateways) -> None:
    custom.serve(
        routes={"GET /{a}": {"function": "fail"}},
        responses={
            "DEFAULT_5XX": {
                "headers": {"X-Path": "$context.path", "Content-Type": "text/html"},
                "body": "<p>$context.path</p>",
            },
            "DEFAULT_4XX": {"body": '{"path": "$context.path", "agent": "$context.identity.userAgent"}'},
        },
    )
    try:
        found = custom.client.get("/%3Cscript%3E%E2%82%AC")
        assert found.text.startswith("<p>/&lt;script&gt;") and found.headers["x-path"] == "/<script>?"
        quoted = custom.client.get('/a"/b', headers={"user-agent": '", "admin": "'}).json()
        assert quoted == {"path": '/a"/b', "agent": '", "admin": "'}
    finally:
        custom.serve(models=MODELS, routes=ROUTES, responses=RESPONSES, stages={"v1": {}})


def test_a_page_of_docs(api: Gateways) -> None:
    page = api.client.get("/docs", follow_redirects=True)
    assert page.url.path == "/docs/" and page.status_code == 200
    assert "<title>The &lt;shop&gt;</title>" in page.text and "http" not in page.text.replace("html", "")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self';" in policy
    for name in ("swagger-ui.css", "swagger-ui-bundle.js", "start.js", "favicon-32x32.png"):
        assert name in page.text
        found = api.client.get(f"/docs/{name}")
        assert found.status_code == 200 and len(found.content) > 100 and found.headers["x-content-type-options"]
    tag = api.client.get("/docs/swagger-ui.css").headers["etag"]
    assert api.client.get("/docs/swagger-ui.css", headers={"if-none-match": tag}).status_code == 304
    assert api.client.get("/docs/../spec.py").status_code in (400, 404)
    assert api.client.get("/docs/__init__.py").status_code == 404
    document = api.client.get("/docs/openapi.json").json()
    assert document["openapi"].startswith("3.0") and document["servers"] == [{"url": "/"}]
    assert set(document["paths"]) == {key.split()[1] for key in ROUTES}
    assert "x-" not in "".join(document) and "arn:" not in json.dumps(document) and '"echo"' not in json.dumps(document)


def test_docs_follow_the_deployment_and_are_not_there_unasked(custom: Gateways, tmp_path: Path) -> None:
    assert custom.client.get("/v1/docs").status_code == 404
    custom.serve(docs={"path": "/help/api"}, stages={"v1": {}}, routes={"ANY /new": {"function": "echo"}})
    try:
        document = custom.client.get("/v1/help/api/openapi.json").json()
        assert document["servers"] == [{"url": "/v1"}] and set(document["paths"]["/new"]) >= {"get", "post", "delete"}
        assert custom.client.get("/v1/help/api").headers["location"] == "api/"
    finally:
        custom.serve(models=MODELS, routes=ROUTES, responses=RESPONSES, stages={"v1": {}})


def test_who_may_see_the_docs_is_asked_like_at_any_route(custom: Gateways) -> None:
    asked = {"function": "echo", "auth": "iam", "request": {"body": {"application/json": "Order"}}}
    custom.serve(docs={"path": "/docs", "auth": "iam"}, models=MODELS, routes={"POST /a": asked})
    try:
        for path in ("/docs", "/docs/", "/docs/openapi.json", "/docs/swagger-ui.css"):
            assert custom.client.get(path).status_code == 403
        assert custom.client.post("/a", content="{").status_code == 403, "who may not call is not told what is wrong"
    finally:
        custom.serve(models=MODELS, routes=ROUTES, responses=RESPONSES, stages={"v1": {}})


@pytest.mark.parametrize(
    ("spec", "path", "words"),
    [
        ({"models": {"A": {"type": 5}}}, "$.models.A.type", "5 is not valid"),
        ({"models": {"A": {"properties": {"x": {"type": "text"}}}}}, "$.models.A.properties.x.type", "not valid"),
        ({"models": {"A": {"$ref": "http://x.example/y"}}}, "$.models.A['$ref']", "nothing is fetched"),
        ({"models": {"A": {"items": {"$ref": "#/models/B"}}}}, "$.models.A.items['$ref']", "no model 'B'"),
        ({"models": {"A": {"$ref": "#/nowhere"}}}, "$.models.A['$ref']", "is not there"),
        ({"models": {"A": {"pattern": "(?=a)b"}}}, "$.models.A.pattern", "unbounded time"),
        ({"models": {"A": {"pattern": "((a{99}){99}){99}"}}}, "$.models.A.pattern", "too large"),
        ({"models": {"A": {"$schema": "x"}}}, "$.models.A['$schema']", "no draft"),
        ({"models": {"A": {"$id": "http://x.example/"}}}, "$.models.A['$id']", "not taken"),
        (
            {"models": {f"M{n}": {"allOf": [{"$ref": f"#/models/M{n + 1}"}] * 2} for n in range(40)} | {"M40": {}}},
            "$.models.M0",
            "it stands for",
        ),
        (
            {"models": {"A": {"$ref": "#/models/B"}, "B": {"$schema": "https://json-schema.org/draft/2020-12/schema"}}},
            "$.models.A['$ref']",
            "another draft",
        ),
        (
            {"routes": {"GET /": {"function": "f", "request": {"body": {"application/json": "Ordr"}}}}},
            "$.routes['GET /'].request.body['application/json']",
            "no model 'Ordr'",
        ),
        (
            {
                "routes": {
                    "GET /": {"function": "f", "request": {"parameters": {"querystring.a": {"schema": {"type": 1}}}}}
                }
            },
            "$.routes['GET /'].request.parameters['querystring.a'].schema.type",
            "not valid",
        ),
        (
            {"routes": {"GET /{a}": {"function": "f", "request": {"parameters": {"path.b": {}}}}}},
            "$.routes['GET /{a}'].request.parameters['path.b']",
            "has no {b}",
        ),
        ({"responses": {"THROTLED": {}}}, "$.responses.THROTLED", "THROTTLED"),
        ({"responses": {"THROTTLED": {"headers": {"X": "a\nb"}}}}, "$.responses.THROTTLED.headers.X", ""),
        ({"docs": {"path": "/"}}, "$.docs.path", ""),
        ({"docs": {"path": "/a", "auth": "nobody"}}, "$.docs.auth", "no such authorizer"),
        ({"docs": {"path": "/a"}, "routes": {"GET /a/{x}": {"function": "f"}}}, "$.docs.path", "is there already"),
    ],
)
def test_mistakes_are_told_where_they_are(spec: dict[str, Any], path: str, words: str) -> None:
    text = json.dumps({"port": 80, "routes": {}, **spec}).encode()
    with pytest.raises(InvalidError) as error:
        GatewaySpec.parse(text, "gateways/api.json")
    assert any(
        problem.path == path and words in problem.message + problem.remedy for problem in error.value.problems
    ), [(problem.path, problem.message) for problem in error.value.problems]


def test_models_may_refer_to_themselves() -> None:
    tree = {"type": "object", "properties": {"below": {"type": "array", "items": {"$ref": "#/models/Tree"}}}}
    GatewaySpec.parse(json.dumps({"port": 80, "routes": {}, "models": {"Tree": tree}}).encode(), "x")


@pytest.mark.parametrize("said", [{"body": "no $context.error.mesage"}, {"headers": {"x-a": "${context.apiID}"}}])
def test_an_answer_that_names_what_nobody_knows_is_refused(said: dict[str, Any]) -> None:
    with pytest.raises(InvalidError, match=r"is not known; did you mean the variable '(error.message|apiId)'"):
        GatewaySpec.parse(json.dumps({"port": 1, "routes": {}, "responses": {"THROTTLED": said}}).encode(), "g.json")
