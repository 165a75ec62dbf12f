"""Writes a ledger that this version takes, for later ones to take as well: `python -m tests.support.accepted NAME`.

What one version of owsgit accepted is history that no later one may refuse: a node that joins verifies all of it, and a
node that starts reads its head. A rule that becomes stricter has to be one for new commits alone, or of a new `format`.
Add one with each release, and whenever a kind or a field is new; never change one that is there.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.support import people, projects
from tests.support.projects import HELLO, allow

FOLDER = Path(__file__).parents[1] / "ledger/accepted"
KEY = {"attributeName": "shop", "keyType": "HASH"}
JWT = {"type": "jwt", "issuer": "https://issuer.example.com", "audience": ["shop"]}


def files(bob: people.Person) -> dict[str, Any]:
    """Something of each kind that needs no node's key."""
    ops = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "Two",
                "Effect": "Allow",
                "Action": ["lambda:*", "apigateway:*"],
                "NotResource": "arn:aws:lambda:*:*:function:secret-*",
                "Condition": {"NumericGreaterThanEquals": {"ows:ApprovalCount/ops": 1}},
            },
            {"Effect": "Deny", "Action": "iam:*", "Resource": "*", "Condition": {"Bool": {"aws:SecureTransport": "false"}}},
        ],
    }  # fmt: skip
    trust = {
        "Version": "2012-10-17",
        "Statement": {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"},
    }
    function = {
        "runtime": "python3.11",
        "handler": "app.handler",
        "timeout": 10,
        "memorySize": 256,
        "environment": {"GREETING": "hello"},
        "network": ["db.example.com:5432"],
        "role": "shop",
        "layers": ["vat"],
        "maxConcurrency": 5,
        "logging": {"applicationLogLevel": "WARN", "retentionDays": 30},
        "asyncInvoke": {"maximumRetryAttempts": 1, "maximumEventAge": 600, "onFailure": {"function": "failed"}},
    }
    gateway = {
        "description": "The shop",
        "port": 8080,
        "stages": {"$default": {}, "beta": {"variables": {"fn": "hello"}}},
        "domains": [{"name": "api.example.com", "basePath": "/v1"}, {"name": "*.example.com", "stage": "beta"}],
        "cors": {"allowOrigins": ["https://example.com"], "allowMethods": ["GET", "POST"], "maxAge": 600},
        "authorizers": {"people": JWT, "own": {"type": "request", "function": "hello", "identitySource": ["$request.header.x"]}},
        "throttle": {"rate": 1000, "burst": 2000, "perClient": {"rate": 20, "burst": 40}},
        "limits": {"bodyBytes": 1048576, "connectionsPerClient": 100},
        "compression": {},
        "accessLog": {"format": "$context.requestId $context.status", "sampleRate": 0.5},
        "models": {"Order": {"type": "object", "required": ["id"], "properties": {"id": {"type": "integer"}}}},
        "routes": {
            "GET /hello/{name}": {"function": "hello", "cache": {"ttl": 60}, "etag": True},
            "POST /orders": {"function": "hello", "auth": "people", "scopes": ["orders"], "request": {"body": {"application/json": "Order"}}},
            "PUT /later": {"function": "hello", "invocationType": "Event", "apiKeyRequired": True},
            "ANY /old/{rest+}": {"http": {"uri": "https://old.example.com"}, "timeout": 5},
            "GET /health": {"response": {"statusCode": 200, "body": "ok"}},
            "GET /away": {"redirect": {"location": "https://example.com/"}},
            "GET /site/{path+}": {"files": {"website": "site"}},
            "$default": {"function": "hello", "canary": {"function": "failed", "percentTraffic": 5}},
        },
    }  # fmt: skip
    table = {
        "attributeDefinitions": [
            {"attributeName": "shop", "attributeType": "S"},
            {"attributeName": "number", "attributeType": "N"},
            {"attributeName": "state", "attributeType": "S"},
        ],
        "keySchema": [KEY, {"attributeName": "number", "keyType": "RANGE"}],
        "globalSecondaryIndexes": [
            {
                "indexName": "by-state",
                "keySchema": [{"attributeName": "state", "keyType": "HASH"}],
                "projection": {"projectionType": "INCLUDE", "nonKeyAttributes": ["total"]},
            }
        ],
        "localSecondaryIndexes": [
            {
                "indexName": "own-state",
                "keySchema": [KEY, {"attributeName": "state", "keyType": "RANGE"}],
                "projection": {"projectionType": "KEYS_ONLY"},
            }
        ],
        "billingMode": "PAY_PER_REQUEST",
        "streamSpecification": {"streamEnabled": True, "streamViewType": "NEW_AND_OLD_IMAGES"},
        "timeToLive": {"attributeName": "ends", "enabled": True},
        "deletionProtectionEnabled": True,
    }
    return {
        "nodes/a.json": {"key": projects.node_key(), "address": "a.example.com", "ports": {"ssh": 2222}},
        "users/bob.json": {"keys": [bob.public], "fullName": "Bob", "policies": ["deploy"], "inlinePolicies": {"x": allow("logs:*")}},
        "groups/ops.json": {"members": ["bob"], "policies": ["deploy"]},
        "policies/deploy.json": ops,
        "policies/bound.json": allow("*"),
        "roles/shop.json": {"trust": trust, "policies": ["bound"], "permissionsBoundary": "bound"},
        "functions/hello/function.json": function,
        "functions/hello/app.py": HELLO,
        "functions/failed/function.json": {"runtime": "python", "handler": "app.handler"},
        "functions/failed/app.py": HELLO,
        "layers/vat/layer.json": {"description": "VAT", "compatibleRuntimes": ["python3.11"]},
        "layers/vat/python/vat.py": "RATE = 0.2\n",
        "websites/site/website.json": {"description": "The site"},
        "websites/site/index.html": "<h1>Shop</h1>",
        "gateways/shop.json": gateway,
        "gateways/chat.json": {
            "protocol": "WEBSOCKET",
            "port": 8081,
            "routeSelectionExpression": "$request.body.action",
            "routes": {"$connect": {"function": "hello"}, "$default": {"function": "hello", "routeResponse": True}},
        },
        "usageplans/partners.json": {
            "apis": [{"gateway": "shop", "stage": "$default"}],
            "throttle": {"rate": 50, "burst": 100},
            "quota": {"limit": 100000, "period": "MONTH"},
        },
        "tables/orders.json": table,
        "event-sources/paid.json": {
            "function": "hello",
            "source": {"table": "orders"},
            "startingPosition": "LATEST",
            "batchSize": 10,
            "filters": [{"eventName": ["MODIFY"]}],
            "onFailure": {"function": "failed"},
        },
        "docs/README.md": "# The shop\n",
    }  # fmt: skip


def write(name: str) -> Path:
    """A new bundle, of some commits by two people."""
    target = FOLDER / f"{name}.bundle"
    assert not target.exists(), "what was taken once is not changed"
    with tempfile.TemporaryDirectory() as folder:
        alice, bob = (people.make(Path(folder), each) for each in ("alice", "bob"))
        project = projects.create(Path(folder) / "shop", alice, files=files(bob))
        project.write("groups/ops.json", {"members": ["alice", "bob"], "policies": ["deploy"]})
        project.commit("Alice is of ops, too")
        project.write("users/bob.json", {"keys": [bob.public], "inlinePolicies": {"all": allow("lambda:*", "ows:*")}})
        project.commit("Bob may change functions")
        project.write("functions/hello/app.py", HELLO + "\n# greets\n")
        project.commit("By Bob", by=bob)
        project.git("rm", "-q", "-r", "gateways/chat.json")
        project.commit("No chat any more")
        project.git("bundle", "create", "-q", str(target), "main")
    return target


if __name__ == "__main__":
    print(write(sys.argv[1]))
