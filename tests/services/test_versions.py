"""Versions of functions beside the one at the head: what is looked up, and how often."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any, cast

import pytest

from owsgit.model.errors import InvalidError
from owsgit.model.resource import Resource
from owsgit.model.service import Site
from owsgit.runtime.logs import FunctionLog
from owsgit.services.functions import KIND, versions
from owsgit.services.functions.deployment import Deployer, Deployment
from owsgit.services.functions.spec import FunctionSpec
from owsgit.services.functions.versions import Versions

SPEC = FunctionSpec.parse(b'{"runtime": "python", "handler": "app.handler"}', "functions/f/function.json")


def commit(number: int) -> str:
    return hashlib.sha1(str(number).encode()).hexdigest()


class History:
    """The ledger: what f was at each commit; it is slow to ask, so it counts who does."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def resource_at(self, kind: str, name: str, at: str) -> Resource:
        self.asked.append(at)
        if at == commit(0):
            raise InvalidError("there was no function f")
        return Resource(KIND, name, SPEC, blob="b" * 40, tree="1" * 40)


def test_a_version_is_looked_up_once_however_often_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "RESOURCES_MAX", 3)
    history = History()
    resource = Resource(KIND, "f", SPEC, blob="b" * 40, tree="1" * 40)
    head = Deployment(resource, cast(Any, None), cast(Any, None), cast(Any, None))

    async def test() -> None:
        made = Versions(cast(Site, history), cast(Deployer, None))
        log = FunctionLog(tmp_path)
        for _ in range(5):
            assert await made.get("f", commit(1), head, log) is head, "the head's own version runs already"
        assert history.asked == [commit(1)]
        for number in (2, 3, 4):
            await made.get("f", commit(number), head, log)
        await made.get("f", commit(1), head, log)
        assert len(history.asked) == 5, (
            "of more versions than are kept, the one that was known longest is asked for anew"
        )
        for _ in range(2):
            with pytest.raises(InvalidError):
                await made.get("f", commit(0), head, log)
        assert history.asked[-2:] == [commit(0)] * 2, "what is not there is not remembered"
        await made.close()

    asyncio.run(test())
