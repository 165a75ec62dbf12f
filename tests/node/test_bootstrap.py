"""A custom runtime, from a push to an answer."""

import json

import httpx

from tests.conftest import gateway_url
from tests.support import projects
from tests.support.nodes import Node, push
from tests.support.projects import Project

SCRIPT = """#!/bin/sh
HEADERS=$(mktemp)
API=http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime
while true; do
  curl -sS -o /dev/null -D "$HEADERS" "$API/invocation/next"
  ID=$(grep -i Lambda-Runtime-Aws-Request-Id "$HEADERS" | tr -d '[:space:]' | cut -d: -f2)
  curl -sS -o /dev/null -d '"hello from a shell"' "$API/invocation/$ID/response"
done
"""


def test_a_pushed_bootstrap_is_served_and_one_that_cannot_start_leaves_it_serving(served: Project, node: Node) -> None:
    api = json.loads((served.folder / "gateways/api.json").read_text())
    route = next(iter(api["routes"].values()))
    served.write("functions/own/function.json", projects.function("unused", runtime="provided.al2023"))
    served.write("functions/own/bootstrap", SCRIPT)
    (served.folder / "functions/own/bootstrap").chmod(0o755)
    served.write("gateways/api.json", {**api, "routes": {**api["routes"], "GET /own": {**route, "function": "own"}}})
    served.commit("A runtime of its own")
    done = push(served, node)
    assert done.status == 0 and "ready     function own" in done.text, done.text
    assert httpx.get(f"{gateway_url(served)}/own").text == "hello from a shell"

    served.write("functions/own/bootstrap", "#!/bin/sh\nexit 3\n")
    served.commit("Break it")
    assert "Runtime.ExitError: Runtime exited with error: exit status 3" in push(served, node).text
    assert httpx.get(f"{gateway_url(served)}/own").text == "hello from a shell"
