"""Decisions: may somebody do something, and why."""

import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from threading import Lock

from owsgit.model.iam.context import EMPTY, Context
from owsgit.model.iam.document import PolicyDocument, ResourcePolicyDocument, Rule, TrustPolicyDocument
from owsgit.model.iam.principal import Caller, Match

ACTIONS_MAX = 4096
"""Actions that one set of policies keeps an index for: more than all of a project's services have."""

COMPILED_MAX = 512
"""Sets of policies that are kept compiled: about one a user and role that is active."""


@dataclass(frozen=True)
class AttachedPolicy:
    """A policy that speaks for a principal, and where it is written."""

    file: str
    path: str  # JSON path of the document within the file
    document: PolicyDocument | ResourcePolicyDocument | TrustPolicyDocument


@dataclass(frozen=True)
class Decision:
    """The answer, and the statement (or the lack of one) that gave it."""

    allowed: bool
    reason: str
    explicit: bool = True  # False: only for want of a statement
    wanted: str = "identity-based policy"  # then: which kind of policies would have to have it, as AWS calls them


@dataclass(frozen=True)
class Place:
    """A rule, and where its statement is written."""

    rule: Rule
    policy: AttachedPolicy
    index: int

    def __str__(self) -> str:
        path = self.policy.document.place(self.policy.path, self.index)
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


@dataclass(frozen=True)
class ResourcePolicy:
    """The policy of a resource, or the trust policy of a role: it names whom it speaks of."""

    policy: AttachedPolicy

    def _speaking(
        self, caller: Caller, action: str, arn: str, context: Context, *, bounded: bool = False
    ) -> Iterator[tuple[Place, Match, bool | None]]:
        for index, rule in enumerate(self.policy.document.rules):
            match = rule.names(caller, bounded=bounded)
            if match is not Match.NONE and rule.names_action(action):
                yield Place(rule, self.policy, index), match, rule.speaks(arn, context)

    def denies(self, caller: Caller, action: str, arn: str, context: Context, *, bounded: bool) -> Place | None:
        """The statement that denies it to `caller`: what cannot be told counts against it."""
        found = self._speaking(caller, action, arn, context, bounded=bounded)
        return next((place for place, _, answer in found if not place.rule.allows and answer is not False), None)

    def allows(self, caller: Caller, action: str, arn: str, context: Context) -> tuple[Match, Place | None]:
        """How closely the best statement that allows it for certain names `caller`."""
        best: tuple[Match, Place | None] = Match.NONE, None
        for place, match, answer in self._speaking(caller, action, arn, context):
            if place.rule.allows and answer and match > best[0]:
                best = match, place
        return best

    def explain(self, caller: Caller, action: str, arn: str, context: Context) -> Iterator[tuple[Place, bool | None]]:
        """As `Policies.explain`: every statement that names `caller` and `action`."""
        for place, _, answer in self._speaking(caller, action, arn, context):
            yield place, answer


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


@dataclass(frozen=True)
class Session:
    """A session of a role: what sts:AssumeRole gives. `policies` bound it further."""

    role: str
    name: str
    policies: tuple[AttachedPolicy, ...] = ()


@dataclass(frozen=True)
class Limit:
    """Policies that give nothing and have to allow everything as well."""

    what: str  # "permissions boundary", "session policy"
    policies: Policies

    def __str__(self) -> str:
        return f"the {self.what} {self.policies.attached[0].file}"


def decide(
    principal: str | Caller,
    policies: Policies,
    action: str,
    arn: str,
    context: Context = EMPTY,
    *,
    boundary: Policies | None = None,
    session: Policies | None = None,
    resource: ResourcePolicy | None = None,
    trusted_only: bool = False,
) -> Decision:
    """Whether `policies`, within `boundary` and `session` if there are, allow `action` on `arn`.

    An explicit Deny in any of them wins, and one in the resource's own policy. Then all of them have to allow it. The
    resource's policy can allow it too: to the very user or session that it names, whatever else there is; to a role or
    to everybody, within the limits. Where it only names the account, it adds nothing; `trusted_only` (a role's trust
    policy) asks for no less. Statements are matched whole: an action allowed in one and a resource in another never
    add up.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic_policy-eval-denyallow.html
    """
    caller = Caller(principal) if isinstance(principal, str) else principal
    if (place := policies.denies(action, arn, context)) is not None:
        return Decision(False, f"denied by {place}")
    limits = _limits(boundary, session)
    for limit in limits:
        if (place := limit.policies.denies(action, arn, context)) is not None:
            return Decision(False, f"denied by {place}")
    match: Match = Match.NONE
    granted: Place | None = None
    if resource is not None:
        if (place := resource.denies(caller, action, arn, context, bounded=boundary is not None)) is not None:
            return Decision(False, f"denied by {place}")
        match, granted = resource.allows(caller, action, arn, context)
        if match is Match.EXACT:
            return Decision(True, f"allowed by {granted}")
    if trusted_only and granted is None:
        assert resource is not None
        return Decision(False, f"{resource.policy.file} {resource.policy.path} does not trust {caller.name}", False)
    allowed = granted if match is Match.WIDE else policies.allows(action, arn, context)
    if allowed is None:
        also = f", nor does {resource.policy.file} {resource.policy.path}" if resource is not None else ""
        return Decision(False, f"no policy of {caller.name} allows it{also}", explicit=False)
    for limit in limits:
        if limit.policies.allows(action, arn, context) is None:
            return Decision(False, f"allowed by {allowed}, but not by {limit}", explicit=False, wanted=limit.what)
    return Decision(True, f"allowed by {allowed}")


def _limits(boundary: Policies | None, session: Policies | None) -> "tuple[Limit, ...]":
    if boundary is None and session is None:  # mostly: a decision has to be quick
        return ()
    found = ("permissions boundary", boundary), ("session policy", session)
    return tuple(Limit(what, each) for what, each in found if each is not None)
