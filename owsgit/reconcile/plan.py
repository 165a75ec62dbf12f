"""What has to be done to come from what is to what is wanted. Pure."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any

from owsgit.model.change import Verb
from owsgit.model.diff import ABSENT, Difference, differences
from owsgit.model.resource import Resource

VALUE_CHARACTERS_MAX = 60


@dataclass(frozen=True)
class Step:
    """One resource to create, update or delete. `resource` is the wanted one, or the one to delete."""

    verb: Verb
    resource: Resource
    differences: tuple[Difference, ...] = ()
    code_changed: bool = False
    because: str = ""  # why it is applied again although it is as it was

    @property
    def key(self) -> str:
        return self.resource.key

    def lines(self) -> Iterator[str]:
        """The step for people: the resource, then a line for each field that changes."""
        yield f"{self.verb.sign} {self.resource.kind.name} {self.resource.name or ''}".rstrip()
        if self.verb is Verb.UPDATE:
            for difference in self.differences:
                if self._is_opaque(difference):
                    yield f"    {difference.path}: (changed)"
                else:
                    yield f"    {difference.path}: {_shown(difference.before)} -> {_shown(difference.after)}"
            if self.code_changed:
                yield "    code"
            if self.because:
                yield f"    {self.because}"

    def _is_opaque(self, difference: Difference) -> bool:
        return any(difference.path.startswith(f"$.{name}") for name in self.resource.kind.opaque)

    def document(self) -> dict[str, Any]:
        """The step for machines."""
        changes = [
            {
                "path": difference.path,
                **({} if difference.before is ABSENT else {"before": difference.before}),
                **({} if difference.after is ABSENT else {"after": difference.after}),
            }
            for difference in self.differences
            if not self._is_opaque(difference)
        ]
        return {
            "verb": str(self.verb),
            "resource": self.key,
            "kind": self.resource.kind.name,
            "name": self.resource.name,
            "changes": changes,
            "code": self.code_changed,
        }


@dataclass(frozen=True)
class Plan:
    """The steps in the order in which they are applied; those of one level do not depend on each other."""

    levels: tuple[tuple[Step, ...], ...]

    @property
    def steps(self) -> list[Step]:
        return [step for level in self.levels for step in level]

    def summary(self) -> str:
        counts = {verb: sum(step.verb is verb for step in self.steps) for verb in Verb}
        if not any(counts.values()):
            return "nothing to do"
        return f"{counts[Verb.CREATE]} to create, {counts[Verb.UPDATE]} to update, {counts[Verb.DELETE]} to delete"

    def lines(self) -> Iterator[str]:
        for step in self.steps:
            yield from step.lines()


def make(before: Mapping[str, Resource], after: Mapping[str, Resource]) -> Plan:
    """The plan from the resources `before` to those `after`, both by key."""
    wanted = [step for key in sorted(after) if (step := _step(before.get(key), after[key])) is not None]
    wanted += holders_of_copies(after, {step.key for step in wanted})
    unwanted = [Step(Verb.DELETE, before[key]) for key in sorted(before) if key not in after]
    return Plan((*_levels(wanted), *reversed(list(_levels(unwanted)))))


def _step(before: Resource | None, after: Resource) -> Step | None:
    if before is None:
        return Step(Verb.CREATE, after)
    if before.version == after.version:
        return None
    found = tuple(differences(before.document(), after.document()))
    return Step(Verb.UPDATE, after, found, before.code != after.code)


def holders_of_copies(after: Mapping[str, Resource], changed: Set[str]) -> list[Step]:
    """Steps for what is as it was, and holds a copy of something that changes, as a function does of a secret."""
    copied = {(each.kind.name, each.name): each for key, each in after.items() if each.kind.copied and key in changed}
    found = []
    for key in sorted(after) if copied else ():
        resource = after[key]
        names = [(ref.kind, ref.name) for ref in resource.references]
        used = sorted({f"{kind} {name}" for kind, name in names if (kind, name) in copied})
        if used and key not in changed:
            found.append(Step(Verb.UPDATE, resource, because=f"uses {', '.join(used)}, which changes"))
    return found


def _levels(steps: list[Step]) -> Iterator[tuple[Step, ...]]:
    """What is referred to comes before what refers to it."""
    by_name = {(step.resource.kind.name, step.resource.name): step for step in steps}
    order: TopologicalSorter[tuple[str, str]] = TopologicalSorter(
        {
            name: [
                (ref.kind, ref.name)
                for ref in step.resource.references
                if ref.passes and ref.orders and (ref.kind, ref.name) in by_name  # others may go in circles
            ]
            for name, step in by_name.items()
        }
    )
    order.prepare()
    while order.is_active():
        ready = sorted(order.get_ready())
        yield tuple(by_name[name] for name in ready)
        order.done(*ready)


def of_kinds(resources: Iterable[Resource], wanted: Callable[[str], bool]) -> dict[str, Resource]:
    """The resources whose kind is wanted, by key."""
    return {resource.key: resource for resource in resources if wanted(resource.kind.name)}


def _shown(value: Any) -> str:
    text = repr(value) if value is ABSENT else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= VALUE_CHARACTERS_MAX else text[: VALUE_CHARACTERS_MAX - 3] + "..."
