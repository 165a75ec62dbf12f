"""A WebAssembly module, from a push to an answer."""

import json

import httpx
import wasmtime

from tests.conftest import gateway_url
from tests.support import projects
from tests.support.nodes import Node, push
from tests.support.projects import Project

HELLO = """(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 100) "\\"hello from wasm\\"")
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 100)) (i32.store (i32.const 4) (i32.const 17))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12)))))"""


def test_a_pushed_module_is_served_and_a_broken_one_leaves_it_serving(served: Project, node: Node) -> None:
    api = json.loads((served.folder / "gateways/api.json").read_text())
    route = next(iter(api["routes"].values()))
    served.write("functions/fast/function.json", projects.function("app.wasm", runtime="wasm"))
    served.write("functions/fast/app.wasm", bytes(wasmtime.wat2wasm(HELLO)))
    served.write("gateways/api.json", {**api, "routes": {**api["routes"], "GET /fast": {**route, "function": "fast"}}})
    served.commit("A module")
    done = push(served, node)
    assert done.status == 0 and "ready     function fast" in done.text
    assert httpx.get(f"{gateway_url(served)}/fast").text == "hello from wasm"

    served.write("functions/fast/app.wasm", b"not a module")
    served.commit("Break it")
    assert "not a WebAssembly module" in push(served, node).text
    assert httpx.get(f"{gateway_url(served)}/fast").text == "hello from wasm"
