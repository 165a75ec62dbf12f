"""schemathesis, from the OpenAPI document that a gateway serves, against that gateway."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode

from tests.support.gateways import Gateways, deployed

EXAMPLES = 400 if os.environ.get("OWSGIT_SOAK") else 12
"""Of each operation, of what its schema allows and of what it does not."""

SPEC: dict[str, Any] = {
    "models": {
        "Order": {
            "type": "object",
            "required": ["items"],
            "additionalProperties": False,
            "properties": {
                "items": {"type": "array", "minItems": 1, "items": {"$ref": "#/models/Item"}},
                "note": {"type": "string", "pattern": "^[a-z]{0,9}$"},
            },
        },
        "Item": {"type": "object", "required": ["id"], "properties": {"id": {"type": "integer", "minimum": 1}}},
    },
    "docs": {"path": "/docs"},
    "routes": {
        "POST /orders/{id}": {
            "function": "echo",
            "request": {
                "body": {"application/json": "Order"},
                "parameters": {
                    "path.id": {"schema": {"type": "integer", "maximum": 1000}},
                    "querystring.page": {"required": True, "schema": {"type": "integer", "minimum": 1}},
                    "querystring.tag": {"schema": {"type": "array", "items": {"enum": ["a", "b"]}}},
                    "header.X-Trace": {"schema": {"type": "string", "pattern": "^[0-9a-f]+$"}},
                },
                "detailedErrors": True,
            },
        },
        "GET /files/{proxy+}": {"function": "echo", "payloadFormatVersion": "1.0"},
        "PUT /any/{name}/x": {"function": "echo"},
    },
}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateways]:
    made = deployed(tmp_path_factory.mktemp("api"), **SPEC)
    yield made
    made.close()


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_request_makes_it_fail(api: Gateways, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_dict(api.client.get("/docs/openapi.json").json())
    statuses: list[int] = []
    for found in schema.get_all_operations():
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and operation.path != "/orders/{id}":
            continue  # everything is allowed there

        @settings(
            max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(operation.as_strategy(generation_mode=mode))
        def ask(case: Any) -> None:
            response = case.call(base_url=str(api.client.base_url), timeout=20)
            statuses.append(response.status_code)
            assert response.status_code < 500, (response.status_code, case)
            assert int(response.headers["content-length"][0]) == len(response.content)
            if response.headers.get("content-type") == ["application/json"]:
                response.json()

        ask()
    assert len(statuses) > EXAMPLES / 2
    assert (400 if mode is GenerationMode.NEGATIVE else 200) in statuses
    assert api.client.put("/any/still/x").status_code == 200
