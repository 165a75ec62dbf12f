"""What `owsgit dev` is to run: a function of the working tree, with what the command line says otherwise."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from owsgit.model.errors import InvalidError, UnavailableError
from owsgit.model.resource import Resource
from owsgit.node.dev_events import Event, Events
from owsgit.node.working_tree import WorkingTree
from owsgit.runtime import debugger
from owsgit.services import KINDS
from owsgit.services.functions.spec import FunctionSpec

KIND = "function"
DEBUG_SECONDS_MAX = 24 * 3600
"""What a debugged function is told of its time: a person thinks while it waits."""


@dataclass(frozen=True)
class Options:
    """What `owsgit dev` was asked for. `debug` is where editors connect to."""

    name: str
    sandbox: str
    secrets: Path | None
    environment: dict[str, str]
    once: bool
    typed: bool  # whether lines of standard input are events
    debug: tuple[str, int] | None
    wait: bool


@dataclass(frozen=True)
class Wanted:
    """The function as it is now, with what it holds copies of, and the events that it is to answer."""

    resource: Resource
    needs: tuple[Resource, ...]
    events: tuple[Event, ...]

    def same(self, other: "Wanted | None") -> bool:
        return other is not None and self.events == other.events and self.code == other.code

    @property
    def code(self) -> list[str]:
        return [each.version for each in (self.resource, *self.needs)]


class Wishes:
    """Reads it, as often as something is saved."""

    def __init__(self, working: WorkingTree, folder: Path, options: Options, events: Events) -> None:
        """`folder` is the working tree's."""
        self._working = working
        self._folder = folder
        self._options = options
        self._events = events

    def read(self) -> Wanted:
        """As it is saved now. Raises OwsgitError."""
        state = self._working.read_for(f"{KINDS.by_name[KIND].folder}/{self._options.name}")
        resource = state.get(KIND, self._options.name)
        if resource is None:
            known = ", ".join(each.name for each in state.of_kind(KIND)) or "none"
            raise InvalidError(f"the working tree has no function {self._options.name!r}; it has: {known}")
        resource = replace(resource, spec=self._spec(resource))
        needs = [state.get(each.kind, each.name) for each in resource.references if KINDS.by_name[each.kind].copied]
        events = self._events.read(self._folder / resource.kind.folder / resource.name)
        return Wanted(resource, tuple(each for each in needs if each is not None), events)

    def _spec(self, resource: Resource) -> FunctionSpec:
        """The function's spec with what the command line says instead, and one worker."""
        document = dict(resource.document())
        for name in ("reservedConcurrency", "provisionedConcurrency", "aliases"):
            document.pop(name, None)
        own = self._options.environment
        secrets = {name: use for name, use in document.get("secrets", {}).items() if name not in own}
        environment = {**document.get("environment", {}), **own}
        document |= {"maxConcurrency": 1, "environment": environment, "secrets": secrets}
        spec = FunctionSpec.parse(json.dumps(document).encode(), resource.file)
        if self._options.debug is None:
            return spec
        if spec.family not in ("python", "nodejs"):
            raise UnavailableError(
                f"functions with the runtime {spec.runtime} have no debugger here", remedy="leave --debug out"
            )
        if spec.family == "python":
            debugger.debugpy_folder()
        return spec.model_copy(update={"timeout": DEBUG_SECONDS_MAX})
