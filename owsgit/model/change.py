"""A change of one resource between two commits, and the permissions that it needs."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from owsgit.model import core
from owsgit.model.names import Scope
from owsgit.model.resource import FieldActions, Kind, Kinds, Resource


class Verb(StrEnum):
    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


@dataclass(frozen=True)
class Need:
    """A permission that a change needs, and the file that needs it."""

    action: str
    arn: str
    file: str


@dataclass(frozen=True)
class Change:
    """One resource before and after; None where it is not there. `files` are the changed files beside its JSON."""

    before: Resource | None
    after: Resource | None
    files: tuple[str, ...] = ()

    @property
    def resource(self) -> Resource:
        resource = self.after or self.before
        assert resource is not None
        return resource

    @property
    def key(self) -> str:
        return self.resource.key

    @property
    def verb(self) -> Verb:
        if self.before is None:
            return Verb.CREATE
        return Verb.DELETE if self.after is None else Verb.UPDATE

    def needs(self, scope: Scope, kinds: Kinds) -> Iterator[Need]:
        """Every permission that this change needs: that of its verb, of the fields it touches, of what it passes."""
        code = self.resource.kind.actions.code
        seen: set[tuple[str, str]] = set()
        for action, arn in self._needs(scope, kinds):
            if (action, arn) not in seen:
                seen.add((action, arn))
                yield Need(action, arn, self._changed_files if action == code else self.resource.file)

    @property
    def _changed_files(self) -> str:
        """The files beside the JSON file that changed, in short."""
        more = len(self.files) - 1
        return self.files[0] + (f" and {more} more" if more else "")

    def _needs(self, scope: Scope, kinds: Kinds) -> Iterator[tuple[str, str]]:
        kind, arn = self.resource.kind, self.resource.arn(scope)
        if self.verb is Verb.CREATE:
            yield kind.actions.create, arn
        elif self.verb is Verb.DELETE:
            yield kind.actions.delete, arn
            return
        elif self.files and kind.actions.code:
            yield kind.actions.code, arn
        before = self.before.document() if self.before else {}
        after = self.after.document() if self.after else {}
        for name in sorted({*before, *after}):
            old, new = before.get(name), after.get(name)
            if old != new:
                yield from ((action, arn) for action in _field_actions(kind, self.verb, name, old, new))
        yield from self._passes(scope, kinds)

    def _passes(self, scope: Scope, kinds: Kinds) -> Iterator[tuple[str, str]]:
        """iam:PassRole and the like, for each reference that was not there before."""
        assert self.after is not None
        old = {(ref.kind, ref.name) for ref in self.before.spec.references()} if self.before else set()
        for ref in self.after.spec.references():
            target = kinds[ref.kind]
            if target.passes and (ref.kind, ref.name) not in old:
                yield target.passes, scope.arn(target.arn, ref.name)


def _field_actions(kind: Kind, verb: Verb, name: str, old: Any, new: Any) -> Iterator[str]:
    actions = kind.actions.fields.get(name)
    if actions is None:
        if verb is Verb.UPDATE:
            yield kind.actions.update
        return
    yield from _element_actions(actions, old, new)


def _element_actions(actions: FieldActions, old: Any, new: Any) -> Iterator[str]:
    if isinstance(old, list | dict) or isinstance(new, list | dict):
        before, after = _elements(old), _elements(new)
        if any(element not in before for element in after):
            yield actions.added
        if any(element not in after for element in before):
            yield actions.removed
        if before != after and sorted(map(repr, before)) == sorted(map(repr, after)):
            yield actions.added  # only the order changed: still a change that somebody has to be allowed
    else:
        yield actions.added if new is not None else actions.removed


def _elements(value: Any) -> list[Any]:
    return list(value.items()) if isinstance(value, dict) else list(value or ())


def file_need(scope: Scope, path: str) -> Need:
    """The permission for a file that is no resource."""
    return Need(core.FILE_ACTION, scope.arn(core.FILE_ARN, path), path)
