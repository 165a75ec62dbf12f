"""A change of one resource between two commits, and the permissions that it needs."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from owsgit.model.names import Scope
from owsgit.model.resource import FILE_ACTION, FILE_ARN, HISTORY_ACTION, Kind, Kinds, Resource


class Verb(StrEnum):
    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"

    @property
    def sign(self) -> str:
        """As plans show it."""
        return {"create": "+", "update": "~", "delete": "-"}[self.value]


Keys = Mapping[str, str | tuple[str, ...]]


@dataclass(frozen=True)
class Need:
    """A permission that a change needs, the file that needs it, and what policies can ask of it (condition keys)."""

    action: str
    arn: str
    file: str
    keys: Keys
    former_keys: Keys | None = None  # what the same keys were before the change, where they differ


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
        shared, offered = self._keys(), self._offered(self.resource, scope)
        former = self._offered(self.before, scope) if self.before is not None else offered
        seen: list[tuple[str, str, Keys]] = []
        for action, arn, keys in self._all_needs(scope, kinds):
            if (action, arn, keys) not in seen:
                seen.append((action, arn, keys))
                file = self._changed_files if action == code and self.files else self.resource.file
                before = None if former == offered else {**shared, **former, **keys}
                yield Need(action, arn, file, {**shared, **offered, **keys}, before)

    def _all_needs(self, scope: Scope, kinds: Kinds) -> Iterator[tuple[str, str, Keys]]:
        """As `_needs`; an update that no field accounts for (another spelling, an empty list) needs its action too."""
        found = list(self._needs(scope, kinds))
        yield from found
        if not found:
            yield self.resource.kind.actions.update, self.resource.arn(scope), {}

    @property
    def _changed_files(self) -> str:
        """The files beside the JSON file that changed, in short."""
        more = len(self.files) - 1
        return self.files[0] + (f" and {more} more" if more else "")

    def _keys(self) -> dict[str, str | tuple[str, ...]]:
        """The condition keys that every change has."""
        before, after = self._documents()
        resource = self.resource
        changed = tuple(sorted(name for name in {*before, *after} if _differ(before.get(name), after.get(name))))
        paths = (*((resource.file,) if changed else ()), *self.files) or (resource.file,)
        return {"ows:Path": paths, "ows:ChangedFields": changed}

    @staticmethod
    def _offered(resource: Resource, scope: Scope) -> dict[str, str | tuple[str, ...]]:
        """The condition keys that the kind offers, with the values of `resource`."""
        kind, spec = resource.kind, resource.spec
        values = {key: tuple(values(spec)) for key, values in kind.condition_keys.items()}
        return {**values, **{key: scope.arn(arn, name(spec)) for key, (arn, name) in kind.condition_arns.items()}}

    def _documents(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return self.before.document() if self.before else {}, self.after.document() if self.after else {}

    def _needs(self, scope: Scope, kinds: Kinds) -> Iterator[tuple[str, str, Keys]]:
        kind, arn = self.resource.kind, self.resource.arn(scope)
        if self.verb is Verb.CREATE:
            yield kind.actions.create, arn, {}
        elif self.verb is Verb.DELETE:
            yield kind.actions.delete, arn, {}
        elif self.files and kind.actions.code:
            yield kind.actions.code, arn, {}
            if self.before is not None and self.after is not None and self.before.blob != self.after.blob:
                yield kind.actions.update, arn, {}  # the document is written anew as well
        before, after = self._documents()
        for name in sorted({*before, *after}):
            old, new = before.get(name), after.get(name)
            guard = kind.actions.fields.get(name)
            unless = guard.unless if guard is not None else None
            if unless is not None and _differ(before.get(unless), after.get(unless)):
                continue
            if _differ(old, new):
                yield from (
                    (action, arn, keys) for action, keys in _field_needs(kind, self.verb, name, old, new, scope)
                )
        if self.after is not None:
            yield from self._passes(scope, kinds)

    def _passes(self, scope: Scope, kinds: Kinds) -> Iterator[tuple[str, str, Keys]]:
        """iam:PassRole and the like, for each reference that was not there before."""
        assert self.after is not None
        resource = self.after
        former = self.before.references if self.before else ()
        old = {(ref.kind, ref.name) for ref in former if ref.passes}
        for ref in (ref for ref in resource.references if ref.passes and ref.kind in kinds.by_name):
            target = kinds[ref.kind]
            passing = target.passes
            if passing is not None and resource.kind.principal and (ref.kind, ref.name) not in old:
                given = {
                    passing.service_key: resource.kind.principal,
                    passing.resource_key: resource.arn(scope),
                }
                keys = {key: value for key, value in given.items() if key is not None}
                yield passing.action, scope.arn(passing.arn or target.arn, ref.name), keys


def _field_needs(kind: Kind, verb: Verb, name: str, old: Any, new: Any, scope: Scope) -> Iterator[tuple[str, Keys]]:
    actions = kind.actions.fields.get(name)
    if actions is None:
        if verb is Verb.UPDATE:
            yield kind.actions.update, {}
        return
    before, after = _elements(old), _elements(new)
    known, wanted = [set(map(_exact, elements)) for elements in (before, after)]
    added = [element for element in after if _exact(element) not in known]
    removed = [element for element in before if _exact(element) not in wanted]
    if not added and not removed:  # only the order changed: still a change that somebody has to be allowed
        added = after[:1]
    for action, elements in ((actions.added, added), (actions.removed, removed)):
        for element in elements:
            if action is None:
                continue
            yield action, {actions.key: scope.arn(actions.arn, element)} if actions.key else {}


def _exact(value: Any) -> str:
    """A value's one text: to Python 1, 1.0 and true are equal, and to a policy they are not."""
    return json.dumps(value, sort_keys=True)


def _differ(old: Any, new: Any) -> bool:
    """Whether two values have different texts; quicker than to make them."""
    if old is new:
        return False
    if type(old) is not type(new):
        return True
    if isinstance(old, dict):
        return old.keys() != new.keys() or any(_differ(old[name], new[name]) for name in old)
    if isinstance(old, list):
        return len(old) != len(new) or any(map(_differ, old, new))
    return bool(old != new)


def _elements(value: Any) -> list[Any]:
    """What a field consists of: members, elements, or its one value."""
    if isinstance(value, dict):
        return list(value.items())
    return list(value) if isinstance(value, list) else [] if value is None else [value]


def project_arn(scope: Scope) -> str:
    """The ARN on which ows:AddHistory, ows:Propose and ows:Approve are decided."""
    return scope.arn("arn:aws:ows:{region}:{account}:project", "")


def history_need(scope: Scope) -> Need:
    """The permission for a merge, or for a commit that changes nothing."""
    return Need(HISTORY_ACTION, project_arn(scope), "(history)", {})


def file_need(scope: Scope, path: str) -> Need:
    """The permission for a file that is no resource."""
    return Need(FILE_ACTION, scope.arn(FILE_ARN, path), path, {"ows:Path": path})
