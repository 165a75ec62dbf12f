"""What a function.json may say of a WebAssembly module."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wasmtime

from owsgit.model.errors import InvalidError
from owsgit.model.service import Invocation
from owsgit.node import reports
from owsgit.services.functions.spec import FUEL_MAX, FunctionSpec
from tests.support import projects
from tests.support.sites import Services

LOOP = bytes(wasmtime.wat2wasm('(module (func (export "_start") (loop $on (br $on))))'))


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    made = Services(tmp_path / "home")
    yield made
    made.close()


def parse(**fields: Any) -> FunctionSpec:
    return FunctionSpec.parse(json.dumps(fields).encode(), "functions/f/function.json")


@pytest.mark.parametrize(
    ("runtime", "handler", "more"),
    [
        ("python", "app.handler", {}),
        ("nodejs20.x", "app.handler", {}),
        ("provided.al2023", "", {}),
        ("container", "", {"image": {"uri": "sha256:" + "0" * 64}}),
    ],
)
def test_only_modules_use_fuel(runtime: str, handler: str, more: dict[str, Any]) -> None:
    parse(runtime=runtime, handler=handler, fuel=None, **more)
    with pytest.raises(InvalidError, match=f"only functions with the runtime wasm use fuel.*{runtime}") as error:
        parse(runtime=runtime, handler=handler, fuel=1000, **more)
    assert [problem.path for problem in error.value.problems] == ["$.fuel"]


@pytest.mark.parametrize("fuel", [0, -1, FUEL_MAX + 1, 1.5, "1000", True])
def test_fuel_is_a_whole_number_in_bounds(fuel: object) -> None:
    assert parse(runtime="wasm", handler="app.wasm", fuel=FUEL_MAX).fuel == FUEL_MAX
    with pytest.raises(InvalidError) as error:
        parse(runtime="wasm", handler="app.wasm", fuel=fuel)
    assert [problem.path for problem in error.value.problems] == ["$.fuel"]


def test_the_fuel_of_a_function_is_what_its_requests_get(services: Services) -> None:
    document = projects.function("app.wasm", runtime="wasm", fuel=5000)
    services.apply(services.resource("function", "f", document, **{"app.wasm": LOOP}))
    answer = services.run(services.handlers["function"].invoke("f", Invocation(b"1", "r", wants_log=True)))
    assert json.loads(answer.payload)["errorType"] == "Runtime.FuelExhausted"
    report = reports.parse(answer.log_tail.decode().splitlines()[-1])
    assert report is not None and report.request_id == "r"
