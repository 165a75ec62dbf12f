"""Functions written for a test, run as they would be on a node."""

import asyncio
import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from owsgit.model.service import Answer, Invocation
from owsgit.runtime.bubblewrap import Bubblewrap
from owsgit.runtime.budget import Budget
from owsgit.runtime.config import NO_NETWORK, FunctionConfig
from owsgit.runtime.log_lines import message
from owsgit.runtime.log_reader import last_lines
from owsgit.runtime.logs import FunctionLog
from owsgit.runtime.pool import Pool, Size
from owsgit.runtime.runtimes import Runtimes
from tests.support.loops import end_tasks


class Lab:
    """Runs one function's code in a real sandbox. Everything happens in one event loop of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.loop = asyncio.new_event_loop()
        self.sandbox = Bubblewrap(f"owsgit-test-{uuid.uuid4().hex[:8]}")
        self.runtimes = Runtimes(self.sandbox)
        self.budget = Budget()
        self.pools: list[Pool] = []

    def function(
        self,
        code: str,
        *,
        workers: int = 4,
        size: Size | None = None,
        runtime: str = "python",
        file: str = "app.py",
        others: dict[str, str] | None = None,
        opt: Path | None = None,
        packages: Path | None = None,
        **fields: Any,
    ) -> "Function":
        folder = self.folder / uuid.uuid4().hex[:8]
        (folder / "code").mkdir(parents=True)
        for path, text in {file: code, **(others or {})}.items():
            (folder / "code" / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / "code" / path).write_text(text)
            (folder / "code" / path).chmod(0o755)
        config = FunctionConfig(
            name="f", arn="arn:aws:lambda:us-east-1:1:function:f", runtime=runtime, handler=fields.pop("handler", "app.handler"),
            code=folder / "code", timeout=fields.pop("timeout", 5.0), memory_size=fields.pop("memory_size", 128),
            network=fields.pop("network", NO_NETWORK), opt=opt, packages=packages,
            tmp_size=fields.pop("tmp_size", 512), environment=fields, region="us-east-1", version="$LATEST",
        )  # fmt: skip
        log = FunctionLog(folder / "log")

        async def pool() -> Pool:
            return Pool(lambda: self.runtimes.start(config, log), size or Size(workers), self.budget)

        made = self.loop.run_until_complete(pool())
        self.pools.append(made)
        return Function(self, made, folder)

    def close(self) -> None:
        async def end() -> None:
            for pool in self.pools:
                pool.close()
            await asyncio.sleep(0.1)

        self.loop.run_until_complete(end())
        self.loop.run_until_complete(self.runtimes.close())
        self.loop.run_until_complete(self.sandbox.close())
        self.loop.run_until_complete(end_tasks())
        self.loop.close()


class Function:
    def __init__(self, lab: Lab, pool: Pool, folder: Path) -> None:
        self.lab, self.pool, self.folder = lab, pool, folder

    def run(self, *events: Any, **invocation: Any) -> list[Answer]:
        """Call with all events at once; the answers in order."""

        async def all_of_them() -> list[Answer]:
            calls = [
                self.pool.invoke(
                    Invocation(
                        json.dumps(event).encode(),
                        invocation.get("request_id") or f"request-{index}",
                        **{k: v for k, v in invocation.items() if k != "request_id"},
                    )
                )
                for index, event in enumerate(events)
            ]
            return list(await asyncio.gather(*calls))

        return self.lab.loop.run_until_complete(all_of_them())

    def __call__(self, event: Any = None, **invocation: Any) -> Any:
        """The decoded answer of one call, which has to succeed."""
        (answer,) = self.run(event, **invocation)
        assert answer.error is None, answer.payload
        return json.loads(answer.payload)

    def error(self, event: Any = None) -> dict[str, Any]:
        """The error object of one call, which has to fail."""
        (answer,) = self.run(event)
        assert answer.error == "Unhandled", answer.payload
        found: dict[str, Any] = json.loads(answer.payload)
        return found

    def warm(self) -> None:
        self.lab.loop.run_until_complete(self.pool.warm())

    def log(self) -> list[str]:
        return [message(line) for line in last_lines(self.folder / "log", 100_000)]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = Lab(tmp_path_factory.mktemp("functions"))
    yield made
    made.close()


@pytest.fixture
def function(lab: Lab) -> Callable[..., Function]:
    return lab.function
