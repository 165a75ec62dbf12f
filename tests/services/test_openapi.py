"""OpenAPI documents: what is exported is imported the same, and others' documents become gateways."""

import json
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openapi_spec_validator import OpenAPIV30SpecValidator, OpenAPIV31SpecValidator

from owsgit.model.errors import InvalidError
from owsgit.services.gateways.openapi import loading
from owsgit.services.gateways.openapi.reading import Options, read
from owsgit.services.gateways.openapi.writing import document
from owsgit.services.gateways.spec import GatewaySpec, RouteSpec

FULL: dict[str, Any] = {
    "description": "The shop.",
    "port": 8080,
    "info": {"title": "Shop", "version": "2.1"},
    "domains": [{"name": "api.example.com", "basePath": "/v1", "stage": "live"}],
    "stages": {"live": {"variables": {"fn": "orders"}}},
    "docs": {"path": "/docs"},
    "cors": {"allowOrigins": ["https://example.com"], "allowMethods": ["GET"], "maxAge": 60},
    "models": {
        "Order": {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}, "of": {"$ref": "#/models/Item"}}},
        "Item": {"type": "integer", "minimum": 1, "exclusiveMinimum": True},
    },
    "responses": {
        "THROTTLED": {"statusCode": 429, "headers": {"Retry-After": "1"}, "body": '{"m": $context.error.messageString}'},
        "DEFAULT_5XX": {"headers": {"Content-Type": "text/plain"}, "body": "sorry"},
    },
    "routes": {
        "POST /orders/{id}": {
            "function": "${stageVariables.fn}:live",
            "timeout": 5,
            "payloadFormatVersion": "1.0",
            "request": {
                "body": {"application/json": "Order", "$default": {"type": "object"}},
                "parameters": {
                    "querystring.page": {"required": True, "schema": {"type": "integer"}, "description": "Which."},
                    "header.X-Id": {"required": True},
                    "path.id": {"schema": {"type": "string", "maxLength": 9}},
                },
                "validate": ["body"],
                "detailedErrors": True,
                "passthroughBehavior": "WHEN_NO_MATCH",
            },
            "documentation": {
                "operationId": "order",
                "summary": "Orders",
                "tags": ["shop"],
                "responses": {"200": {"description": "Done.", "body": {"application/json": "Order"}}, "4XX": {}},
            },
        },
        "ANY /files/{proxy+}": {"function": "files@0123456789abcdef0123456789abcdef01234567"},
        "GET /there/{proxy+}": {
            "http": {"uri": "http://10.0.0.5:9000/{proxy}", "method": "GET", "retries": 2},
            "timeout": 7,
            "requestParameters": {"overwrite:header.x-a": "$request.path.proxy"},
            "responseParameters": {"200": {"remove:header.server": ""}},
        },
        "GET /plain": {"http": {"uri": "http://10.0.0.5:9000/"}},
        "GET /text": {"response": {"statusCode": 201, "headers": {"Content-Type": "text/plain", "X-A": "b"}, "body": "hi"}},
        "GET /json": {"response": {"body": {"id": "${context.requestId}"}}},
        "GET /old": {"redirect": {"location": "/new", "statusCode": 301}},
        "POST /later": {"function": "f", "invocationType": "Event", "rewrite": "/now"},
        "$default": {"function": "rest"},
    },
}  # fmt: skip


def parsed(gateway: dict[str, Any]) -> GatewaySpec:
    return GatewaySpec.parse(json.dumps(gateway).encode(), "gateways/api.json")


def there_and_back(gateway: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    exported = document("api", parsed(gateway), extensions=True)
    imported = read(json.dumps(exported).encode(), "openapi.json")
    assert not imported.warnings, [str(each) for each in imported.warnings]
    return exported, imported.gateway


def values(gateway: dict[str, Any], name: str = "api") -> dict[str, Any]:
    """What a gateway's file means: with defaults, and without the title that it has anyway."""
    spec = parsed(gateway).model_dump(mode="json", by_alias=True)
    empty = RouteSpec.model_validate({"function": "f", "documentation": {}}).model_dump(mode="json", by_alias=True)
    for route in spec["routes"].values():
        if route["documentation"] == empty["documentation"]:
            route["documentation"] = None
    info = spec["info"] or {"title": None, "version": "1.0"}
    return {**spec, "info": {**info, "title": info["title"] or name}}


def test_everything_comes_back() -> None:
    exported, imported = there_and_back(FULL)
    assert values(imported) == values(FULL)
    assert exported["openapi"] == "3.0.3"
    operation = exported["paths"]["/orders/{id}"]["post"]
    integration = operation["x-amazon-apigateway-integration"]
    assert integration["uri"].endswith(":function:${stageVariables.fn}:live/invocations")
    assert (integration["timeoutInMillis"], integration["passthroughBehavior"]) == (5000, "when_no_match")
    assert operation["x-amazon-apigateway-request-validator"] == "body"
    assert exported["paths"]["/$default"]["x-amazon-apigateway-any-method"]["isDefaultRoute"]
    assert exported["x-amazon-apigateway-gateway-responses"]["THROTTLED"]["responseParameters"] == {
        "gatewayresponse.header.Retry-After": "'1'"
    }
    assert exported["x-owsgit-gateway"]["port"] == 8080 and "routes" not in exported["x-owsgit-gateway"]


def test_what_clients_get_is_valid_openapi_and_says_nothing_of_the_inside() -> None:
    made = document("api", parsed(FULL), "/v1")
    assert not list(OpenAPIV30SpecValidator(made).iter_errors())  # type: ignore[arg-type]
    text = json.dumps(made)
    assert not any(word in text for word in ("arn:", "amazon", "owsgit", "stageVariables", "8080", "10.0.0.5"))
    assert set(made["paths"]) >= {"/orders/{id}", "/files/{proxy}", "/there/{proxy}"}


def test_schemas_of_other_drafts_are_openapi_3_1() -> None:
    modern = {"$schema": "https://json-schema.org/draft/2020-12/schema", "type": ["string", "null"], "const": "a"}
    gateway = {
        "port": 1,
        "models": {"New": modern, "Old": {"type": "string", "definitions": {"x": {}}, "allOf": [{"$ref": "#/definitions/x"}]}},
        "routes": {"POST /a": {"function": "f", "request": {"body": {"application/json": {"$ref": "#/models/New", "$schema": modern["$schema"]}}}}},
    }  # fmt: skip
    exported, imported = there_and_back(gateway)
    assert exported["openapi"] == "3.1.0"
    assert not list(OpenAPIV31SpecValidator(exported).iter_errors())  # type: ignore[arg-type]
    assert imported["models"]["New"] == modern
    assert imported["models"]["Old"]["allOf"] == [{"$ref": "#/models/Old/definitions/x"}]
    shown = document("api", parsed(gateway))
    assert shown["openapi"] == "3.0.3"
    assert shown["components"]["schemas"]["New"] == {"type": "string", "nullable": True, "enum": ["a"]}


NAMES = st.from_regex(r"\A[A-Za-z][A-Za-z0-9]{0,5}\Z")
SCHEMAS = st.recursive(
    st.sampled_from([{"type": "string"}, {"type": "integer", "minimum": 1}, {"enum": ["a", 1]}, {}, {"$ref": "#/models/M"}]),
    lambda inner: st.one_of(
        inner.map(lambda each: {"type": "array", "items": each}),
        st.dictionaries(NAMES, inner, max_size=2).map(lambda each: {"type": "object", "properties": each}),
        st.lists(inner, min_size=1, max_size=2).map(lambda each: {"anyOf": each}),
    ),
    max_leaves=4,
)  # fmt: skip
INLINE = SCHEMAS.filter(lambda schema: "$ref" not in schema)
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=12)
PARAMETERS = st.dictionaries(
    st.builds("{}.{}".format, st.sampled_from(["querystring", "header"]), NAMES),
    st.fixed_dictionaries({}, optional={"required": st.booleans(), "schema": INLINE, "description": TEXTS}),
    max_size=2,
)
REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "body": st.dictionaries(
            st.sampled_from(["application/json", "application/x+json", "$default"]), st.one_of(st.just("M"), INLINE), max_size=2
        ),
        "bodyRequired": st.booleans(),
        "passthroughBehavior": st.sampled_from(["NEVER", "WHEN_NO_MATCH"]),
        "parameters": PARAMETERS,
        "validate": st.sampled_from([["body"], ["parameters"], [], ["body", "parameters"]]),
        "detailedErrors": st.booleans(),
    },
)  # fmt: skip
ROUTES = st.fixed_dictionaries(
    {"function": st.sampled_from(["f", "f:live", "f@" + "0" * 40, "${stageVariables.x}"])},
    optional={
        "timeout": st.integers(1, 900),
        "payloadFormatVersion": st.sampled_from(["1.0", "2.0"]),
        "request": REQUESTS,
        "documentation": st.fixed_dictionaries(
            {},
            optional={
                "summary": TEXTS,
                "description": TEXTS,
                "tags": st.lists(TEXTS, min_size=1, max_size=2),
                "deprecated": st.booleans(),
                "responses": st.dictionaries(st.sampled_from(["200", "4XX", "default"]), st.fixed_dictionaries({}, optional={"description": TEXTS, "body": st.just({"application/json": "M"})}), max_size=2),
            },
        ),
    },
)  # fmt: skip
GATEWAYS = st.fixed_dictionaries(
    {
        "port": st.just(8080),
        "models": st.fixed_dictionaries({"M": SCHEMAS.filter(lambda schema: "M" not in json.dumps(schema))}),
        "stages": st.just({"$default": {"variables": {"x": "g"}}}),
        "routes": st.dictionaries(
            st.sampled_from(["GET /", "ANY /a/{id}", "POST /a/{id}/b", "PUT /x/{proxy+}", "HEAD /h", "OPTIONS /h", "$default"]),
            ROUTES,
            min_size=1,
            max_size=3,
        ),
    },
    optional={
        "description": TEXTS,
        "info": st.fixed_dictionaries({}, optional={"title": TEXTS, "version": TEXTS}),
        "suspend": st.booleans(),
        "responses": st.dictionaries(
            st.sampled_from(["THROTTLED", "DEFAULT_4XX"]),
            st.fixed_dictionaries(
                {},
                optional={
                    "statusCode": st.integers(200, 599),
                    "headers": st.dictionaries(st.sampled_from(["X-A", "X-B"]), st.sampled_from(["a", "'", "$context.path", ""])),
                    "body": TEXTS,
                },
            ),
        ),
        "docs": st.just({"path": "/docs"}),
    },
)  # fmt: skip


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(GATEWAYS)
def test_what_is_exported_is_imported_the_same(gateway: dict[str, Any]) -> None:
    loading_validate, loading.validate = loading.validate, lambda document, file: None  # slow, and tested elsewhere
    try:
        _, imported = there_and_back(gateway)
    finally:
        loading.validate = loading_validate
    assert values(imported) == values(gateway)


AWS = """
openapi: "3.0.1"
info: {title: petstore, version: "2024-01-01", contact: {name: me}}
servers: [{url: "https://x.execute-api.eu-west-1.amazonaws.com/{basePath}", variables: {basePath: {default: prod}}}]
x-amazon-apigateway-request-validators:
  full: {validateRequestBody: true, validateRequestParameters: true}
  params-only: {validateRequestBody: false, validateRequestParameters: true}
x-amazon-apigateway-request-validator: params-only
x-amazon-apigateway-importexport-version: "1.0"
x-amazon-apigateway-endpoint-configuration: {vpcEndpointIds: []}
x-amazon-apigateway-gateway-responses:
  MISSING_AUTHENTICATION_TOKEN: {statusCode: 404}
  ACCESS_DENIED:
    statusCode: 403
    responseParameters:
      gatewayresponse.header.Access-Control-Allow-Origin: "'*'"
      gatewayresponse.header.X-Id: context.requestId
      gatewayresponse.header.X-Bad: method.request.header.Origin
    responseTemplates: {application/json: '{"message":$context.error.messageString}'}
paths:
  /pets/{id}/:
    parameters: [{name: id, in: path, required: true, schema: {type: string}}]
    get:
      parameters:
        - {name: page, in: query, required: true, schema: {type: string}}
        - {name: session, in: cookie, schema: {type: string}}
      responses: {"200": {description: ok, headers: {X: {schema: {type: string}}}}}
      x-amazon-apigateway-integration:
        type: aws_proxy
        httpMethod: POST
        uri: arn:aws:apigateway:eu-west-1:lambda:path/2015-03-31/functions/arn:aws:lambda:eu-west-1:123456789012:function:pets:${stageVariables.alias}/invocations
        credentials: arn:aws:iam::123456789012:role/x
        timeoutInMillis: 2500
    post:
      x-amazon-apigateway-request-validator: full
      requestBody:
        required: true
        content: {application/json: {schema: {$ref: "https://apigateway.amazonaws.com/restapis/abc/models/Pet"}}}
      responses: {"201": {description: made}}
      x-amazon-apigateway-integration:
        type: AWS_PROXY
        payloadFormatVersion: "2.0"
        uri: {"Fn::Sub": "arn:aws:apigateway:${AWS::Region}:lambda:path/2015-03-31/functions/${MakePet.Arn}/invocations"}
        passthroughBehavior: never
  /proxied/{id}:
    x-amazon-apigateway-any-method:
      responses: {default: {description: x}}
      x-amazon-apigateway-integration:
        type: http_proxy
        httpMethod: ANY
        uri: https://inner.example.com/{id}
        requestParameters:
          integration.request.path.id: method.request.path.id
          integration.request.header.X-Who: method.request.header.Who
          integration.request.querystring.fixed: "'1'"
          integration.request.header.X-Body: method.request.body.a
    options:
      responses: {"200": {description: x}}
      x-amazon-apigateway-integration:
        type: mock
        requestTemplates: {application/json: '{"statusCode": 200}'}
        responses:
          default:
            statusCode: "200"
            responseParameters:
              method.response.header.Access-Control-Allow-Origin: "'*'"
              method.response.header.X-Id: context.requestId
            responseTemplates: {application/json: "{}"}
  /sqs:
    post:
      responses: {default: {description: x}}
      x-amazon-apigateway-integration: {type: aws, uri: "arn:aws:apigateway:eu-west-1:sqs:path/123/q"}
components:
  schemas:
    Pet: {type: object, properties: {name: {type: string, nullable: true}, at: {type: string, format: date}}}
"""


def test_a_document_of_api_gateway_becomes_a_gateway() -> None:
    found = read(AWS.encode(), "api.yaml")
    gateway = found.gateway
    routes = gateway["routes"]
    get, post = routes["GET /pets/{id}"], routes["POST /pets/{id}"]
    assert (get["function"], get["payloadFormatVersion"], get["timeout"]) == ("pets:${stageVariables.alias}", "1.0", 3)
    assert get["request"] == {
        "parameters": {"querystring.page": {"required": True, "schema": {"type": "string"}}},
        "validate": ["parameters"],
    }
    assert post["function"] == "MakePet" and "payloadFormatVersion" not in post
    assert post["request"] == {"body": {"application/json": "Pet"}}
    assert gateway["models"]["Pet"]["properties"]["name"] == {"type": ["string", "null"]}
    assert gateway["responses"]["ACCESS_DENIED"]["headers"] == {
        "Access-Control-Allow-Origin": "*",
        "X-Id": "$context.requestId",
    }
    assert gateway["responses"]["RESOURCE_NOT_FOUND"] == gateway["responses"]["MISSING_AUTHENTICATION_TOKEN"]
    assert routes["ANY /proxied/{id}"]["http"] == {"uri": "https://inner.example.com/{id}"}
    assert routes["ANY /proxied/{id}"]["requestParameters"] == {
        "overwrite:header.X-Who": "$request.header.Who",
        "overwrite:querystring.fixed": "1",
    }
    assert routes["OPTIONS /proxied/{id}"]["response"] == {
        "statusCode": 200,
        "headers": {"Access-Control-Allow-Origin": "*", "Content-Type": "application/json"},
        "body": "{}",
    }
    told = {warning.path for warning in found.warnings}
    mock = "$.paths['/proxied/{id}'].options['x-amazon-apigateway-integration'].responses.default"
    assert f"{mock}.responseParameters['method.response.header.X-Id']" in told
    assert told >= {
        "$.info.contact",
        "$['x-amazon-apigateway-endpoint-configuration']",
        "$.paths['/pets/{id}/'].get",
        "$.paths['/pets/{id}/'].get.parameters[1]",
        "$.paths['/pets/{id}/'].get.responses['200'].headers",
        "$.paths['/pets/{id}/'].get['x-amazon-apigateway-integration'].credentials",
        "$.paths['/sqs'].post['x-amazon-apigateway-integration'].uri",
        "$.routes['POST /sqs']",
    }
    assert any("X-Bad" in path for path in told) and "POST /sqs" not in routes
    parsed({"port": 1, "stages": {"$default": {"variables": {"alias": "live"}}}, **gateway})


HTTP_API = """
openapi: "3.0.1"
info: {title: http-api, version: "2024-05-01 10:11:12UTC"}
paths:
  /users/{id}:
    get:
      responses: {default: {description: "Default response for GET /users/{id}"}}
      x-amazon-apigateway-integration: {$ref: "#/components/x-amazon-apigateway-integrations/shared"}
  /moved/{proxy+}:
    x-amazon-apigateway-any-method:
      responses: {default: {description: x}}
      x-amazon-apigateway-integration:
        type: http_proxy
        httpMethod: ANY
        uri: https://inner.example.com/base/{proxy}
        payloadFormatVersion: "1.0"
        requestParameters:
          overwrite:path: /v2/${request.path.proxy}/of/$stageVariables.tenant
          append:header.x-id: $context.requestId
  /all:
    get:
      responses: {default: {description: x}}
      x-amazon-apigateway-integration:
        type: http_proxy
        httpMethod: GET
        uri: https://inner.example.com/
        requestParameters: {overwrite:path: $request.header.where}
  /private:
    get:
      responses: {default: {description: x}}
      x-amazon-apigateway-integration:
        type: http_proxy
        httpMethod: GET
        uri: arn:aws:elasticloadbalancing:eu-central-1:123456789012:listener/app/my/1/2
        connectionType: VPC_LINK
        connectionId: abc123
components:
  x-amazon-apigateway-integrations:
    shared:
      type: aws_proxy
      httpMethod: POST
      uri: arn:aws:apigateway:eu-west-1:lambda:path/2015-03-31/functions/arn:aws:lambda:eu-west-1:123456789012:function:users/invocations
      payloadFormatVersion: "2.0"
"""


def test_a_document_of_an_http_api_becomes_a_gateway() -> None:
    found = read(HTTP_API.encode(), "api.yaml")
    routes = found.gateway["routes"]
    assert routes["GET /users/{id}"]["function"] == "users"
    moved = routes["ANY /moved/{proxy+}"]
    assert moved["http"] == {"uri": "https://inner.example.com"}
    assert moved["rewrite"] == "/v2/{proxy}/of/${stageVariables.tenant}"
    assert moved["requestParameters"] == {"append:header.x-id": "$context.requestId"}
    assert "rewrite" not in routes["GET /all"] and "GET /private" not in routes
    integration = "x-amazon-apigateway-integration"
    assert {warning.path for warning in found.warnings} == {
        f"$.paths['/all'].get['{integration}'].requestParameters['overwrite:path']",
        f"$.paths['/private'].get['{integration}'].connectionId",
        f"$.paths['/private'].get['{integration}'].connectionType",
        f"$.paths['/private'].get['{integration}'].uri",
        "$.routes['GET /private']",
    }
    parsed({"port": 1, "stages": {"$default": {"variables": {"tenant": "t"}}}, **found.gateway})


SAM_TEMPLATE = """
openapi: 3.0.1
info: {title: !Sub "${AWS::StackName}-api", version: "1.0"}
paths:
  /sub:
    get:
      responses: {}
      x-amazon-apigateway-integration:
        type: aws_proxy
        httpMethod: POST
        uri: !Sub arn:${AWS::Partition}:apigateway:${AWS::Region}:lambda:path/2015-03-31/functions/${Echo.Arn}/invocations
  /alias:
    get:
      responses: {}
      x-amazon-apigateway-integration:
        type: aws_proxy
        httpMethod: POST
        uri: !Sub arn:aws:apigateway:${AWS::Region}:lambda:path/2015-03-31/functions/${Echo.Arn}:live/invocations
  /named:
    get:
      responses: {}
      x-amazon-apigateway-integration:
        type: aws_proxy
        httpMethod: POST
        uri: !Sub "arn:aws:apigateway:${AWS::Region}:lambda:path/2015-03-31/functions/arn:aws:lambda:${AWS::Region}:${AWS::AccountId}:function:${Echo}/invocations"
  /variables:
    get:
      responses: {}
      x-amazon-apigateway-integration:
        type: aws_proxy
        httpMethod: POST
        uri: !Sub
          - arn:aws:apigateway:${AWS::Region}:lambda:path/2015-03-31/functions/${Fn}/invocations
          - Fn: !GetAtt Echo.Arn
  /join:
    get:
      responses: {}
      x-amazon-apigateway-integration:
        type: aws_proxy
        httpMethod: POST
        uri:
          Fn::Join:
            - ""
            - ["arn:", {Ref: "AWS::Partition"}, ":apigateway:", !Ref "AWS::Region",
               ":lambda:path/2015-03-31/functions/", {"Fn::GetAtt": [Echo, Arn]}, /invocations]
"""


def test_functions_of_cloudformation_stand_for_what_they_name() -> None:
    found = read(SAM_TEMPLATE.encode(), "template.yaml")
    assert {key: route["function"] for key, route in found.gateway["routes"].items()} == {
        "GET /sub": "Echo",
        "GET /alias": "Echo:live",
        "GET /named": "Echo",
        "GET /variables": "Echo",
        "GET /join": "Echo",
    }
    assert found.gateway["info"]["title"] == "${AWS::StackName}-api" and not found.warnings


def test_a_policy_of_aws_speaks_of_the_gateway() -> None:
    api = "arn:aws:execute-api:eu-west-1:123456789012:a1b2c3d4e5"
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": "*", "Action": "execute-api:Invoke", "Resource": f"{api}/*"},
            {"Effect": "Deny", "Principal": "*", "Action": "execute-api:Invoke", "Resource": [f"{api}/prod/GET/admin"]},
        ],
    }
    written = {**yaml.safe_load(AWS), "x-amazon-apigateway-policy": policy}
    found = read(json.dumps(written).encode(), "api.json")
    allowed, denied = found.gateway["policy"]["Statement"]
    assert (allowed["Resource"], denied["Resource"]) == ("execute-api:/*", ["execute-api:/prod/GET/admin"])
    told = [warning.message for warning in found.warnings if warning.path == "$['x-amazon-apigateway-policy']"]
    assert len(told) == 1 and "'prod'" in told[0]


def test_what_api_gateway_leaves_out_of_its_exports_is_not_asked_for() -> None:
    integration = {"type": "http_proxy", "httpMethod": "GET", "uri": "https://inner.example.com/"}
    operation: dict[str, Any] = {"responses": {}, "x-amazon-apigateway-integration": integration}
    paths: dict[str, Any] = {"/a": {"get": operation}, "/b": {"post": {**operation, "responses": {"200": {}}}}}
    export: dict[str, Any] = {"openapi": "3.0.1", "info": {"title": "t", "version": "1"}, "paths": {"/a": paths["/a"]}}
    url = "https://a1b2c3.execute-api.us-east-1.amazonaws.com/{basePath}"
    export["servers"] = [{"url": url, "variables": {"basePath": {"default": "/prod"}}}]
    [warning] = read(json.dumps(export).encode(), "x").warnings
    assert warning.path == "$.servers[0].url" and "without /prod: " in warning.message
    assert read(json.dumps(export).encode(), "x").gateway["routes"] == {
        "GET /a": {"http": {"uri": "https://inner.example.com/", "method": "GET"}}
    }
    with pytest.raises(InvalidError, match=r"is not valid under any|is a required property") as error:
        read(json.dumps(export | {"paths": paths}).encode(), "x")
    assert error.value.problems[0].path.startswith("$.paths['/b'].post.responses")
    assert all("\n" not in problem.message for problem in error.value.problems)


def test_plain_openapi_needs_to_be_told_which_function() -> None:
    plain = {
        "openapi": "3.1.0",
        "info": {"title": "t", "version": "1"},
        "paths": {
            "/a": {
                "post": {
                    "requestBody": {"content": {"application/json": {"schema": {"type": ["object", "null"]}}}},
                    "responses": {"200": {"description": "ok"}},
                }
            }
        },
    }
    data = json.dumps(plain).encode()
    assert read(data, "x").gateway["routes"] == {}
    route = read(data, "x", Options(function="f")).gateway["routes"]["POST /a"]
    assert route["function"] == "f" and "validate" not in route["request"], (
        "without API Gateway's words, all is checked"
    )
    assert route["request"]["bodyRequired"] is False
    assert route["request"]["body"]["application/json"]["$schema"].endswith("2020-12/schema")


def test_swagger_2() -> None:
    swagger = """
swagger: "2.0"
info: {title: old, version: 1.0.0}
basePath: /v2
schemes: [https]
consumes: [application/json]
definitions: {Pet: {type: object, required: [name], properties: {name: {type: string}}}}
parameters: {Limit: {name: limit, in: query, type: integer, maximum: 5, required: true}}
paths:
  /pets/{id}:
    get:
      parameters: [{$ref: "#/parameters/Limit"}, {name: id, in: path, type: integer, required: true}]
      responses: {200: {description: ok, schema: {type: array, items: {$ref: "#/definitions/Pet"}}}}
    post:
      parameters: [{name: body, in: body, required: true, schema: {$ref: "#/definitions/Pet"}}, {name: id, in: path, type: string, required: true}]
      responses: {default: {description: ok}}
"""
    found = read(swagger.encode(), "old.yaml", Options(function="pets"))
    routes = found.gateway["routes"]
    assert routes["GET /pets/{id}"]["request"]["parameters"] == {
        "querystring.limit": {"required": True, "schema": {"type": "integer", "maximum": 5}},
        "path.id": {"schema": {"type": "integer"}},
    }
    assert routes["POST /pets/{id}"]["request"]["body"] == {"application/json": "Pet"}
    assert found.gateway["models"] == {
        "Pet": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}
    }
    assert {warning.path for warning in found.warnings} == {"$.basePath"}
    parsed({"port": 1, **found.gateway})


SECURED: dict[str, Any] = {
    "openapi": "3.0.1",
    "info": {"title": "t", "version": "1"},
    "paths": {
        "/a": {"get": {"security": [{"basic": []}], "responses": {"200": {"description": "x"}}}},
    },
    "components": {"securitySchemes": {"basic": {"type": "http", "scheme": "basic"}}},
}


def test_what_is_protected_does_not_become_open_unasked() -> None:
    data = json.dumps(SECURED).encode()
    with pytest.raises(InvalidError, match="would be open") as error:
        read(data, "x", Options(function="f"))
    assert error.value.problems[0].path == "$.paths['/a'].get.security"
    assert "--without-security" in error.value.problems[0].remedy
    cognito = json.loads(data)
    pool = {"type": "cognito_user_pools", "providerARNs": ["arn:aws:cognito-idp:eu-west-1:123456789012:userpool/eu_1a"]}
    cognito["components"]["securitySchemes"]["basic"]["x-amazon-apigateway-authorizer"] = pool
    with pytest.raises(InvalidError, match=r'"issuer": "https://cognito-idp\.eu-west-1\.amazonaws\.com/eu_1a"'):
        read(json.dumps(cognito).encode(), "x", Options(function="f"))
    open_ = read(data, "x", Options(function="f", without_security=True))
    assert open_.gateway["routes"]["GET /a"] == {
        "function": "f",
        "documentation": {"responses": {"200": {"description": "x"}}},
    }
    assert open_.warnings[0].path == "$.paths['/a'].get.security"


GUARDED: dict[str, Any] = {
    "port": 1,
    "authorizers": {
        "people": {"type": "jwt", "issuer": "https://login.example.com", "audience": ["shop"], "clockSkew": 5},
    },
    "auth": "people",
    "routes": {
        "GET /own": {"function": "f"},
        "GET /some": {"function": "f", "auth": "people", "scopes": ["read", "write"]},
        "GET /open": {"function": "f", "auth": "none"},
        "GET /signed": {"function": "f", "auth": "iam"},
    },
}


def test_what_is_protected_stays_so_or_is_refused() -> None:
    amazons = json.loads(json.dumps(SECURED))
    amazons["components"]["securitySchemes"]["basic"] = {
        "type": "oauth2",
        "x-amazon-apigateway-authorizer": {
            "type": "jwt",
            "identitySource": "$request.header.Authorization",
            "jwtConfiguration": {"issuer": "https://login.example.com", "audience": ["shop"]},
        },
    }
    data = json.dumps(amazons).encode()
    exported, imported = there_and_back(GUARDED)
    assert values(imported) == values(GUARDED)
    assert exported["security"] == [{"people": []}] and "security" not in exported["paths"]["/own"]["get"]
    assert exported["paths"]["/open"]["get"]["security"] == []
    assert exported["paths"]["/some"]["get"]["security"] == [{"people": ["read", "write"]}]
    clients = document("api", parsed(GUARDED))
    assert clients["components"]["securitySchemes"]["people"]["type"] == "openIdConnect"
    assert not list(OpenAPIV30SpecValidator(clients).iter_errors())  # type: ignore[arg-type]
    gateway = read(data, "x", Options(function="f")).gateway
    assert gateway["routes"]["GET /a"]["auth"] == "basic"
    assert gateway["authorizers"]["basic"]["issuer"] == "https://login.example.com"
    parsed({"port": 1, **gateway})


BOMB = "openapi: 3.0.0\ninfo: {title: t, version: '1'}\npaths: {}\nx-a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "\n".join(
    f"x-{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 10)}]" for n in range(9)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1]", "no OpenAPI document"),
        ("openapi: [", "neither JSON nor YAML"),
        ("{", "neither JSON nor YAML"),
        ("openapi: !!python/object/apply:os.system [ls]", "neither JSON nor YAML"),
        ("openapi: '9.0'\ninfo: {}\npaths: {}", "is not read"),
        ("openapi: 3.0.0\ninfo: {title: t, version: '1'}", "paths"),
        ("openapi: 3.0.0\ninfo: {title: t, version: '1'}\npaths: {/a: {$ref: 'http://x.example/'}}", "nothing is fetched"),
        ("openapi: 3.0.0\ninfo: {title: t, version: '1'}\npaths: {'/a{b}': {get: {responses: {'200': {description: x}}}}}", "is no path of a route"),
        (BOMB, "more than 500,000 values"),
        ("openapi: &a [*a]", "neither JSON nor YAML|more than 100 levels"),
        ("x: " + "[" * 1200, "neither JSON nor YAML"),
        (b"\xff", "not UTF-8"),
    ],
)  # fmt: skip
def test_what_is_no_document_is_refused(text: str | bytes, words: str) -> None:
    with pytest.raises(InvalidError, match=words):
        read(text if isinstance(text, bytes) else text.encode(), "x.yaml")


def test_yaml_is_read_as_json_is() -> None:
    found = loading.load(b"openapi: 3.0.0\non: yes\nat: 2024-01-01\n200: {a: true}\n", "x")
    assert found == {"openapi": "3.0.0", "on": "yes", "at": "2024-01-01", "200": {"a": True}}
    assert yaml.safe_load("at: yes") == {"at": True}, "other readers are as they were"


def test_fields_that_this_version_does_not_know_are_told() -> None:
    exported = document("api", parsed({"port": 1, "routes": {"GET /": {"function": "f"}}}), extensions=True)
    exported["paths"]["/"]["get"]["x-owsgit-route"] = {"shine": 5}
    exported["x-owsgit-gateway"]["glow"] = {"a": 1}
    found = read(json.dumps(exported).encode(), "x")
    assert {(warning.path, "not supported by this version" in warning.message) for warning in found.warnings} == {
        ("$.routes['GET /'].shine", True),
        ("$.glow", True),
    }
    assert "glow" not in found.gateway and set(RouteSpec.model_fields) >= {"function", "request", "documentation"}
