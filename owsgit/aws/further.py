"""The contract of APIs that further processes of a node answer as well: what they are told, and what they ask."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from owsgit.aws.api import Api
from owsgit.model.names import Scope

NODE = ""
"""The home of what only the node's own process can answer."""

Ask = Callable[[bytes], Awaitable[bytes]]
"""Asks the service in the node's own process. Raises UnavailableError."""


class FurtherApi(Api, Protocol):
    """An API in a further process: of `further`, the operations that are answered there, as X-Amz-Target names them.
    All else is passed on to the node's own process, as is what `home` says is at NODE."""

    @property
    def further(self) -> Collection[bytes]: ...

    def learn(self, name: str, told: bytes) -> None:
        """A fact, by its name, in place of what was told of it before."""
        ...

    async def close(self) -> None: ...


Make = Callable[[Path, Callable[[], Scope], Ask], FurtherApi]
"""From the node's home, the project's scope, and how to ask."""


@dataclass(frozen=True)
class Shared:
    """What a service in the node's own process has for further ones. `make` is 'module:name' of a Make.

    `operations`, of its `further`, are those by which it is seen that processes would help. `helps`: whether any of
    them would be answered there now.
    """

    make: str
    operations: Collection[bytes]
    facts: Callable[[], Mapping[str, bytes]]
    answer: Ask
    helps: Callable[[], bool]
