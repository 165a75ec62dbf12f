"""Whether what a commit changes is allowed: by its signer's rights, or by those of somebody who approved of it.

Each permission has to be allowed to one of the signatories by that person's own policies; rights of two people never
add up to one. What `ows:ApprovalCount` and its kin tell a policy is how many *others* have signed the same change, so
that "two of ops" is one statement, whoever of them wrote the commit and whoever approved of it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from owsgit.ledger import verdicts
from owsgit.ledger.signatures import Signer
from owsgit.ledger.sshsig import BadSignatureError
from owsgit.ledger.verdicts import REJECT, Verdict
from owsgit.model.change import Change, Need, project_arn
from owsgit.model.core import ProjectSpec
from owsgit.model.errors import Problem
from owsgit.model.iam.context import VARYING_KEYS, Context
from owsgit.model.iam.decision import Decision
from owsgit.model.resource import APPROVE_ACTION
from owsgit.model.state import State

PUSH = Context(unknowable=VARYING_KEYS)
"""What is known of every push: nothing that would differ between nodes, or between today and a check in ten years."""

CANDIDATES_MAX = 500
"""Users who are looked at for who could give a permission that is missing."""

NAMED_MAX = 5


@dataclass(frozen=True)
class Grant:
    """A permission that a change needed, and the decision that granted it; `by` is whose right it was."""

    need: Need
    decision: Decision
    by: str


@dataclass(frozen=True)
class Approver:
    """A user who approved of a commit, and the signed tag that says so."""

    signer: Signer
    verdict: Verdict


@dataclass
class Signatories:
    """Who stands for a commit: its signer, and those who approved of it. Looked up only when somebody asks for them."""

    state: State  # of the commit's parent: what counts for keys and rights alike
    signer: Signer
    verdicts: Callable[[], Iterable[Verdict]] = verdicts.nothing
    now: float | None = None
    used: bool = field(default=False, init=False)  # whether anything rests on the approvals

    @cached_property
    def approvers(self) -> tuple[Approver, ...]:
        """Each user once, and never the signer; the key and the right to approve are those of the parent's state."""
        found: dict[str, Approver] = {}
        for verdict in self.verdicts():
            try:
                signer = verdict.signer(self.state)
                signer.check_validity(self.now)
            except BadSignatureError:
                continue  # of a key that was taken off, or of somebody whom this project does not know
            if signer.user != self.signer.user and signer.user not in found and self._may_approve(signer.user):
                found[signer.user] = Approver(signer, verdict)
        return tuple(found[name] for name in sorted(found))

    def _may_approve(self, user: str) -> bool:
        return may_approve(self.state, user)

    def roots(self) -> set[str]:
        """The roots who signed."""
        named = {self.signer.user, *(each.signer.user for each in self.approvers)}
        return {user for user in named if self.state.is_root(user)}

    def decide(self, need: Need) -> tuple[Decision, str]:
        """The decision on `need`, and whose rights gave it; without approvals that is the signer's."""
        alone = _decide(self.state, self.signer, need, ())
        if alone.allowed or not self.approvers:
            return alone, self.signer.user
        self.used = True
        return self._together(need, [each.signer for each in self.approvers]) or (alone, self.signer.user)

    def _together(self, need: Need, approvers: list[Signer]) -> tuple[Decision, str] | None:
        signers = [self.signer, *approvers]
        counted = [each.user for each in approvers]
        if self._may_approve(self.signer.user):
            counted.append(self.signer.user)
        for signer in signers:
            decision = _decide(self.state, signer, need, [name for name in counted if name != signer.user])
            if decision.allowed:
                return decision, signer.user
        return None

    def _fewest(self, need: Need, given: list[Signer], people: list[Signer]) -> list[str]:
        """Of `people`, who together suffice: nobody is named without whom it would do as well."""
        kept = list(people)
        for each in people:
            fewer = [other for other in kept if other is not each]
            if self._together(need, [*given, *fewer]):
                kept = fewer
        return [each.user for each in kept]

    def remedy(self, need: Need) -> str:
        """Who could give what is missing, in words."""
        others = [
            Signer(user.name, self.signer.algorithm, "")
            for user in list(self.state.of_kind("user"))[:CANDIDATES_MAX]
            if user.name != self.signer.user and self._may_approve(user.name)
        ]
        given = [each.signer for each in self.approvers]
        told = {each.user for each in given}
        missing = [each for each in others if each.user not in told]
        alone = [each.user for each in missing if self._together(need, [*given, each])]
        people = [each for each in missing if not self.state.is_root(each.user)]
        among = [name for name in alone if not self.state.is_root(name)]
        roots = [name for name in alone if self.state.is_root(name)]
        ask = "(git push <remote> HEAD:refs/for/main asks for it)"
        if among:
            return f"an approval by {_names([*among, *roots], 'or')} would do {ask}"
        if self._together(need, [*given, *people]):
            needed = self._fewest(need, given, people)
            root = f", or one by {_names(roots, 'or')}" if roots else ""
            return f"it takes more than one approval, of {_names(needed, 'and')}{root} {ask}"
        if roots:
            return f"an approval by {_names(roots, 'or')} would do {ask}"
        return f"nobody can approve of it; ask a root for a policy that allows {self.signer.user} it"


def rejecting(latest: Mapping[str, Verdict], state: State, author: str) -> list[str]:
    """Who of those whose last word is known rejects, and may: also its author, who has withdrawn it then."""
    rejected = (user for user, each in latest.items() if each.kind == REJECT)
    return sorted(user for user in rejected if user == author or may_approve(state, user))


def may_approve(state: State, user: str) -> bool:
    """Whether a user's approval counts. No policy silences a root."""
    return state.decide(user, APPROVE_ACTION, project_arn(state.scope), PUSH).allowed


def _decide(state: State, signer: Signer, need: Need, others: Iterable[str]) -> Decision:
    """Allowed by what the resource becomes, and not denied by what it was: no change slips from under a Deny."""
    keys = {"ows:SignatureType": signer.algorithm, "ows:Branch": "main", **_approvals(state, others)}
    decision = state.decide(signer.user, need.action, need.arn, PUSH.with_values({**need.keys, **keys}))
    if decision.allowed and need.former_keys is not None:
        former = state.decide(signer.user, need.action, need.arn, PUSH.with_values({**need.former_keys, **keys}))
        if former.explicit and not former.allowed:
            return former
    return decision


def _approvals(state: State, others: Iterable[str]) -> dict[str, str | tuple[str, ...]]:
    """The condition keys that tell of the other signatories; a count that is not told is 0."""
    names = sorted(others)
    if not names:
        return {}
    groups = [group for name in names for group in state.groups_of(name)]
    keys: dict[str, str | tuple[str, ...]] = {"ows:ApprovalCount": str(len(names)), "ows:Approver": tuple(names)}
    if groups:
        keys["ows:ApproverGroup"] = tuple(sorted(set(groups)))
    keys |= {f"ows:ApprovalCount/{group}": str(groups.count(group)) for group in set(groups)}
    return keys


def _names(names: list[str], last: str) -> str:
    shown = names[:NAMED_MAX]
    if len(names) > NAMED_MAX:
        return f"{', '.join(shown)} {last} {len(names) - NAMED_MAX} others"
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} {last} {shown[-1]}"


def root_problems(signatories: Signatories, changed: Iterable[Change]) -> Iterator[Problem]:
    """What no policy can allow: the roots, the region and the quorum are for roots alone, and a root for itself.

    With a rootQuorum of two or more it takes so many roots, who may then also change another root's file, or take a
    root off; and nodes are theirs as well.
    """
    state = signatories.state
    quorum = state.project.root_quorum
    for change in changed:
        resource = change.resource
        if resource.kind.name == "user" and state.is_root(resource.name) and signatories.signer.user != resource.name:
            yield from _of_another_root(signatories, resource.name, resource.file, "", "change this file")
        elif resource.kind.name == "node" and quorum > 1:
            yield from _quorum(signatories, quorum, "a node", resource.file, "")
        elif resource.kind.name == "project":
            yield from _project(signatories, change, quorum)


def _project(signatories: Signatories, change: Change, quorum: int) -> Iterator[Problem]:
    before, file = signatories.state.project, change.resource.file
    after = change.after.spec if change.after else None
    if not isinstance(after, ProjectSpec):
        return  # a project is never taken away
    for what, path, changed in (
        ("the region, which is in every ARN that policies name", "$.region", after.region != before.region),
        ("the roots", "$.roots", set(after.roots) != set(before.roots)),
        ("how many roots have to sign", "$.rootQuorum", after.root_quorum != before.root_quorum),
        (
            "who may sign certificates for users",
            "$.certificateAuthorities",
            after.certificate_authorities != before.certificate_authorities,
        ),
    ):
        if changed:
            yield from _quorum(signatories, quorum, what, file, path)
    for gone in sorted(set(before.roots) - set(after.roots) - {signatories.signer.user}):
        yield from _of_another_root(signatories, gone, file, "$.roots", "take this root off")


def _quorum(signatories: Signatories, quorum: int, what: str, file: str, path: str) -> Iterator[Problem]:
    if signatories.signer.user in signatories.state.project.roots and quorum == 1:
        return  # without a look at the approvals
    signed = signatories.roots()
    if len(signed) >= quorum:
        signatories.used = True
        return
    roots = sorted(set(signatories.state.project.roots) - signed)
    if quorum == 1:
        yield Problem(f"only roots may change {what}", file, path, f"ask a root: {_names(roots, 'or')}")
    else:
        yield Problem(
            f"{quorum} roots have to sign for a change of {what}, and {len(signed)} did",
            file,
            path,
            f"ask for approvals (git push <remote> HEAD:refs/for/main) of {_names(roots, 'and')}",
        )


def _of_another_root(signatories: Signatories, root: str, file: str, path: str, what: str) -> Iterator[Problem]:
    quorum = signatories.state.project.root_quorum
    signed = signatories.roots()
    if root in signed or (quorum > 1 and len(signed) >= quorum):
        signatories.used = True
        return
    more = f", or {quorum} roots together" if quorum > 1 else ""
    yield Problem(
        f"{root} is a root: only {root} itself may {what}{more}",
        file,
        path,
        f"ask {root} to sign, or to approve; whoever changes a root's keys could sign as this root",
    )
