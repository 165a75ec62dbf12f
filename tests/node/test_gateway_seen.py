"""A node's gateway: what it caches and compresses, its access log, its metrics and its status, after real pushes."""

import gzip
import http.server
import json
import subprocess
import threading
from pathlib import Path
from typing import Any

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.conftest import gateway_url
from tests.support import nodes, projects
from tests.support.nodes import Node, free_port, owsgit
from tests.support.people import Person

COUNTS = """
import os
count = 0

def handler(event, context):
    global count
    count += 1
    headers = {"content-type": "text/plain", "x-count": str(count), "x-trace": os.environ.get("_X_AMZN_TRACE_ID", "")}
    return {"statusCode": 200, "headers": headers, "body": "equal nodes " * 200}
"""


def test_a_gateway_that_is_seen(tmp_path: Path, alice: Person, node: Node) -> None:
    spans: list[str] = []
    arrived = threading.Event()

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            for resource in ExportTraceServiceRequest.FromString(gzip.decompress(body)).resource_spans:
                spans.extend(span.name for scope in resource.scope_spans for span in scope.spans)
            if "GET /items/{id}" in spans:
                arrived.set()
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    collector = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    spec = node.init()
    settings = json.loads((node.home / "node.json").read_text())
    settings["tracing"] = {"otlp": f"http://127.0.0.1:{collector.server_port}", "sampleRatio": 1}
    (node.home / "node.json").write_text(json.dumps(settings))
    gateway: dict[str, Any] = {
        "port": free_port(),
        "compression": {"minimumSize": 100},
        "accessLog": {},
        "routes": {
            "GET /items/{id}": {"function": "hello", "cache": {"ttl": 300}, "etag": True},
            "GET /plain": {"function": "hello"},
        },
    }
    files = {
        "nodes/a.json": spec,
        "functions/hello/function.json": projects.function(),
        "functions/hello/app.py": COUNTS,
        "gateways/api.json": gateway,
        "gateways/silent.json": {"port": free_port(), "routes": {"GET /plain": {"function": "hello"}}},
    }
    project = projects.create(tmp_path / "shop", alice, files=files)
    node.start()
    assert nodes.push(project, node).status == 0
    url = gateway_url(project)
    first = httpx.get(f"{url}/items/7?token=secret", headers={"accept-encoding": "br"})
    assert first.headers["content-encoding"] == "br" and first.text == "equal nodes " * 200
    assert first.headers["x-cache"] == "MISS" and first.headers["x-trace"].endswith(";Sampled=1")
    again = httpx.get(f"{url}/items/7?token=secret", headers={"if-none-match": first.headers["etag"]})
    assert again.status_code == 304 and again.headers["x-cache"] == "HIT"
    assert httpx.get(f"{url}/none").status_code == 404

    project.git("remote", "add", "origin", node.url())

    def logged(*options: str) -> list[dict[str, Any]]:
        done = owsgit("logs", "--gateway", "api", "-o", "json", *options, by=alice, cwd=project.folder)
        assert done.status == 0, done.text
        found: list[dict[str, Any]] = json.loads(done.text)
        return found

    entries: list[dict[str, Any]] = []

    def all_are_logged() -> bool:
        entries[:] = logged()
        return len(entries) == 3

    nodes.until(all_are_logged)
    assert [entry["record"]["status"] for entry in entries] == [200, 304, 404]
    assert entries[0]["gateway"] == "api" and entries[0]["requestId"] == first.headers["x-amzn-requestid"]
    assert entries[0]["record"]["path"] == "/items/7" and "secret" not in str(entries)
    assert [entry["record"]["status"] for entry in logged("--level", "WARN")] == [404]
    missing = owsgit("logs", "--gateway", "other", by=alice, cwd=project.folder)
    assert missing.status == 1 and "there is no gateway 'other'" in missing.text
    command = [*nodes.OWSGIT, "logs", "--gateway", "silent"]
    silent = subprocess.run(
        command, cwd=project.folder, env=alice.environment, capture_output=True, text=True, timeout=120
    )
    assert silent.returncode == 0 and silent.stdout == ""
    assert 'add "accessLog": {} to gateways/silent.json' in silent.stderr

    metrics = owsgit("metrics", by=alice, cwd=project.folder).text
    labels = 'gateway="api",route="GET /items/{id}",stage="$default"'
    assert f"owsgit_gateway_cache_hits_total{{{labels}}} 1.0" in metrics
    status = json.loads(owsgit("status", "-o", "json", by=alice, cwd=project.folder).text)
    live = next(row["live"] for row in status["resources"] if row["kind"] == "gateway")
    assert live["requests"] == 3 and live["4xx"] == 1 and live["recent"]["latencyMs"]["p99"] > 0
    assert "3 requests, 1 4xx" in owsgit("status", by=alice, cwd=project.folder).text

    gateway["routes"]["GET /plain"]["timeout"] = 5
    project.write("gateways/api.json", gateway)
    project.commit("Another route changes")
    assert nodes.push(project, node).status == 0
    assert httpx.get(f"{url}/items/7?token=secret").headers["x-cache"] == "HIT"
    gateway["routes"]["GET /items/{id}"]["timeout"] = 5
    project.write("gateways/api.json", gateway)
    project.commit("This one changes")
    assert nodes.push(project, node).status == 0
    assert httpx.get(f"{url}/items/7?token=secret").headers["x-cache"] == "MISS"
    assert arrived.wait(20)
    collector.shutdown()
    collector.server_close()
