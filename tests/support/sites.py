"""Services without a node around them: resources and their files as a test writes them, handlers as they are."""

import asyncio
import hashlib
import json
import uuid
from collections.abc import Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from owsgit.model.names import Scope
from owsgit.model.resource import Resource
from owsgit.model.service import Applied, CodeFile, Invocation, Site
from owsgit.node.node import handlers_of
from owsgit.services import KINDS
from tests.support.loops import end_tasks

Result = TypeVar("Result")


class Services:
    """The handlers of all services, in an event loop of their own."""

    def __init__(self, home: Path, given: Mapping[str, Any] | None = None, **settings: Any) -> None:
        """`given` is more of the site."""
        self.files: dict[str, list[CodeFile]] = {}
        self.told: list[tuple[str, str]] = []
        self.loop = asyncio.new_event_loop()
        targets: dict[str, Any] = {}
        self.site = Site(
            home=home,
            listen="127.0.0.1",
            scope=lambda: Scope("us-east-1", "1" * 12),
            read_files=self._read,
            targets=targets,
            settings={"sandbox": "bubblewrap", "instance": uuid.uuid4().hex[:12], **settings},
            unseal=lambda resource: None,  # type: ignore[arg-type,return-value]
            report=lambda key, text: self.told.append((key, text)),
            **(given or {}),
        )
        self.handlers: dict[str, Any] = self.run(self._made())
        targets.update({name: handler for name, handler in self.handlers.items() if hasattr(handler, "invoke")})

    async def _made(self) -> Any:
        return handlers_of(self.site)

    def _read(self, tree: str) -> Iterable[CodeFile]:
        return self.files[tree]

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self.loop.run_until_complete(work)

    def resource(self, kind: str, name: str, document: dict[str, Any], **files: str | bytes) -> Resource:
        """A resource with files beside it; an underscored keyword cannot be a path, so they are given by **{path: }."""
        found = KINDS[kind]
        data = json.dumps(document).encode()
        beside = [
            CodeFile(path, False, content if isinstance(content, bytes) else content.encode())
            for path, content in sorted(files.items())
        ]
        code = hashlib.sha1(repr(beside).encode()).hexdigest()
        tree = hashlib.sha1(data + code.encode()).hexdigest()
        self.files[tree] = [CodeFile(f"{kind}.json", False, data), *beside]
        return Resource(found, name, found.spec.parse(data, found.file(name)), tree, tree, code)

    def apply(self, resource: Resource) -> Applied:
        applied: Applied = self.run(self.handlers[resource.kind.name].apply(resource, "0" * 40))
        return applied

    def call(self, name: str, event: Any = None) -> Any:
        """The decoded answer of a function, which has to succeed."""
        answer = self.run(self.handlers["function"].invoke(name, Invocation(json.dumps(event).encode(), "r")))
        assert answer.error is None, answer.payload
        return json.loads(answer.payload)

    def close(self) -> None:
        async def end() -> None:
            for handler in reversed(self.handlers.values()):
                await handler.close()
            await end_tasks()

        self.run(end())
        self.loop.close()
