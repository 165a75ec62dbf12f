"""Decisions: may somebody do something, and why."""

import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from threading import Lock

from owsgit.model.iam.context import EMPTY, Context
from owsgit.model.iam.document import PolicyDocument, Rule

ACTIONS_MAX = 4096
"""Actions that one set of policies keeps an index for: more than all of a project's services have."""

COMPILED_MAX = 512
"""Sets of policies that are kept compiled: about one a user and role that is active."""


@dataclass(frozen=True)
class AttachedPolicy:
    """A policy that speaks for a principal, and where it is written."""

    file: str
    path: str  # JSON path of the document within the file
    document: PolicyDocument


@dataclass(frozen=True)
class Decision:
    """The answer, and the statement (or the lack of one) that gave it."""

    allowed: bool
    reason: str
    explicit: bool = True  # False: only for want of a statement


@dataclass(frozen=True)
class Place:
    """A rule, and where its statement is written."""

    rule: Rule
    policy: AttachedPolicy
    index: int

    def __str__(self) -> str:
        listed = isinstance(self.policy.document.statement, list)
        path = f"{self.policy.path}.Statement[{self.index}]" if listed else f"{self.policy.path}.Statement"
        sid = self.rule.statement.sid
        return f"{self.policy.file} {path}" + (f" ({sid})" if sid else "")


@dataclass(frozen=True)
class _Effect:
    """The rules of one effect for one action: in one expression those that only the ARN decides, else one by one."""

    fixed: re.Pattern[str] | None
    fixed_places: tuple[Place, ...]
    others: tuple[Place, ...]

    @classmethod
    def of(cls, places: list[Place]) -> "_Effect":
        fixed = [(place, source) for place in places if (source := place.rule.fixed) is not None]
        known = {id(place) for place, _ in fixed}
        return cls(
            re.compile("|".join(source for _, source in fixed), re.DOTALL) if fixed else None,
            tuple(place for place, _ in fixed),
            tuple(place for place in places if id(place) not in known),
        )

    def first(self, arn: str, context: Context, *, unknown_counts: bool) -> Place | None:
        """A rule that speaks of the request."""
        if self.fixed is not None and self.fixed.fullmatch(arn) is not None:
            return next(place for place in self.fixed_places if place.rule.speaks(arn, context))
        for place in self.others:
            answer = place.rule.speaks(arn, context)
            if answer or (answer is None and unknown_counts):
                return place
        return None


@dataclass
class Policies:
    """The policies of one principal, compiled: an index by action, made as actions are asked for."""

    attached: tuple[AttachedPolicy, ...]
    _by_action: dict[str, tuple[_Effect, _Effect]] = field(default_factory=dict)

    def places(self) -> Iterator[Place]:
        for policy in self.attached:
            for index, rule in enumerate(policy.document.rules):
                yield Place(rule, policy, index)

    def _effects(self, action: str) -> tuple[_Effect, _Effect]:
        found = self._by_action.get(action)
        if found is None:
            named = [place for place in self.places() if place.rule.names_action(action)]
            found = (
                _Effect.of([place for place in named if not place.rule.allows]),
                _Effect.of([place for place in named if place.rule.allows]),
            )
            if len(self._by_action) < ACTIONS_MAX:
                self._by_action[action] = found
        return found

    def explain(self, action: str, arn: str, context: Context) -> Iterator[tuple[Place, bool | None]]:
        """Every statement that names `action`, and whether it speaks of this request (None: it cannot be told)."""
        for place in self.places():
            if place.rule.names_action(action):
                yield place, place.rule.speaks(arn, context)

    def denies(self, action: str, arn: str, context: Context) -> Place | None:
        """The statement that denies it: what cannot be told counts against it."""
        return self._effects(action)[0].first(arn, context, unknown_counts=True)

    def allows(self, action: str, arn: str, context: Context) -> Place | None:
        """A statement that allows it for certain."""
        return self._effects(action)[1].first(arn, context, unknown_counts=False)


_lock = Lock()  # pushes are verified in another thread than calls are decided in
_compiled: "OrderedDict[tuple[tuple[str, str, int], ...], Policies]" = OrderedDict()


def compile_policies(attached: Iterable[AttachedPolicy]) -> Policies:
    """The compiled form of `attached`, shared between states that have the same documents."""
    policies = tuple(attached)
    key = tuple((policy.file, policy.path, id(policy.document)) for policy in policies)
    with _lock:
        found = _compiled.get(key)
        if found is None:
            found = _compiled[key] = Policies(policies)  # keeps the documents alive, so that their ids stay theirs
            while len(_compiled) > COMPILED_MAX:
                _compiled.popitem(last=False)
        else:
            _compiled.move_to_end(key)
        return found


def decide(
    principal: str,
    policies: Policies,
    action: str,
    arn: str,
    context: Context = EMPTY,
    *,
    boundary: Policies | None = None,
) -> Decision:
    """Whether `policies`, within `boundary` if there is one, allow `action` on `arn`.

    An explicit Deny in either wins; then both have to allow it; else it is denied. Statements are matched whole: an
    action allowed in one and a resource in another never add up.
    """
    for each in (policies, boundary):
        if each is not None and (place := each.denies(action, arn, context)) is not None:
            return Decision(False, f"denied by {place}")
    allowed = policies.allows(action, arn, context)
    if allowed is None:
        return Decision(False, f"no policy of {principal} allows it", explicit=False)
    if boundary is not None and boundary.allows(action, arn, context) is None:
        outside = f"allowed by {allowed}, but not by the permissions boundary {boundary.attached[0].file}"
        return Decision(False, outside, explicit=False)
    return Decision(True, f"allowed by {allowed}")
