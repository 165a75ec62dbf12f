"""The state of a project at one commit: all its resources, checked as a whole.

A State is immutable and shares what did not change with the State that it came from, so that a change of one file in a
ledger of 10,000 resources costs one change.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from immutables import Map

from owsgit.model import rules
from owsgit.model.change import Change
from owsgit.model.core import Boundaried, GroupSpec, Principal, ProjectSpec, RoleSpec
from owsgit.model.errors import InvalidError, Problem
from owsgit.model.iam.context import EMPTY, SECURE_TRANSPORT, Context, Later
from owsgit.model.iam.decision import (
    AttachedPolicy,
    Decision,
    Place,
    Policies,
    ResourcePolicy,
    Session,
    compile_policies,
    decide,
)
from owsgit.model.iam.document import Guarded, PolicySpec
from owsgit.model.iam.principal import Caller
from owsgit.model.names import Scope, account_id, project_id
from owsgit.model.resource import Kinds, Resource

ANONYMOUS = Caller("anonymous")
"""Somebody of whom nothing is known."""

ASSUME_ROLE = "sts:AssumeRole"
GENESIS_UNKNOWN = "0" * 40
"""Stands in for the genesis commit's id while that commit is not made yet."""


@dataclass(frozen=True)
class State:
    """All resources of a project. Made by `State.empty(kinds).after(changes)`, never by hand."""

    kinds: Kinds
    genesis: str = GENESIS_UNKNOWN
    resources: "Map[str, Resource]" = field(default_factory=Map)
    referrers: "Map[str, frozenset[str]]" = field(default_factory=Map)  # key → keys of the resources that name it
    claims: "Map[tuple[str, str], frozenset[tuple[str, str]]]" = field(default_factory=Map)
    """(what, value) → keys of the holders, each with how it shares it ("": not at all)."""

    @classmethod
    def empty(cls, kinds: Kinds) -> "State":
        return cls(kinds)

    def born(self, genesis: str) -> "State":
        """The same state, of the project that `genesis` (a commit id) founds."""
        return replace(self, genesis=genesis)

    @property
    def is_founded(self) -> bool:
        """Whether its genesis commit is made, from which its account follows."""
        return self.genesis != GENESIS_UNKNOWN

    @property
    def project(self) -> ProjectSpec:
        spec = self.resources["project"].spec
        assert isinstance(spec, ProjectSpec)
        return spec

    @property
    def project_id(self) -> str:
        return project_id(self.genesis)

    @cached_property
    def scope(self) -> Scope:
        return Scope(self.project.region, account_id(self.genesis))

    def get(self, kind: str, name: str) -> Resource | None:
        return self.resources.get(self.kinds[kind].key(name))

    def warnings(self) -> Iterator[Problem]:
        """What is allowed, and hardly what was meant."""
        for resource in self.resources.values():
            yield from resource.spec.warnings(resource.file)

    def of_kind(self, kind: str) -> Iterator[Resource]:
        """All resources of a kind, by name."""
        found = (resource for resource in self.resources.values() if resource.kind.name == kind)
        yield from sorted(found, key=lambda resource: resource.name)

    def holder(self, what: str, value: str) -> Resource | None:
        """The resource that claims `value`, such as the user who has a key."""
        holders = self.claims.get((what, value))
        return self.resources[min(holders)[1]] if holders else None

    def is_root(self, user: str) -> bool:
        return user in self.project.roots

    def policies_of(self, kind: str, name: str) -> tuple[AttachedPolicy, ...]:
        """Every policy that speaks for a user or a role: attached and inline ones, and those of the user's groups."""
        resource = self.get(kind, name)
        if resource is None:
            return ()
        return tuple(policy for member in [resource, *self._groups(resource)] for policy in self._attached(member))

    def _groups(self, member: Resource) -> Iterator[Resource]:
        for key in sorted(self.referrers.get(member.key, ())):
            if isinstance(self.resources[key].spec, GroupSpec):
                yield self.resources[key]

    def groups_of(self, user: str) -> list[str]:
        """The names of the groups that a user is in."""
        resource = self.get("user", user)
        return [group.name for group in self._groups(resource)] if resource is not None else []

    def _attached(self, member: Resource) -> Iterator[AttachedPolicy]:
        assert isinstance(member.spec, Principal)
        for name in member.spec.policies:
            policy = self.get("policy", name)
            assert policy is not None and isinstance(policy.spec, PolicySpec)
            yield AttachedPolicy(policy.file, "$", policy.spec)
        for name, document in member.spec.inline_policies.items():
            yield AttachedPolicy(member.file, f"$.inlinePolicies['{name}']", document)

    def boundary_of(self, kind: str, name: str) -> Policies | None:
        """The permissions boundary of a user or a role."""
        resource = self.get(kind, name)
        if resource is None or not isinstance(resource.spec, Boundaried) or resource.spec.permissions_boundary is None:
            return None
        policy = self.get("policy", resource.spec.permissions_boundary)
        assert policy is not None and isinstance(policy.spec, PolicySpec)
        return compile_policies([AttachedPolicy(policy.file, "$", policy.spec)])

    def caller(self, who: str | Session) -> Caller:
        """Who asks, as policies of resources name them."""
        if isinstance(who, str):
            return Caller(who, self.scope.arn(self.kinds["user"].arn, who), self.scope.account)
        arn = f"arn:aws:sts::{self.scope.account}:assumed-role/{who.role}/{who.name}"
        name = f"role {who.role} (session {who.name})"
        return Caller(name, arn, self.scope.account, role_arn=self.scope.arn(self.kinds["role"].arn, who.role))

    def identity(self, who: str | Session) -> dict[str, str]:
        """The global condition keys that tell who asks, and in which project.

        https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html
        """
        keys = {
            "aws:PrincipalAccount": self.scope.account,
            "aws:PrincipalIsAWSService": "false",
            "aws:ViaAWSService": "false",
            "aws:SecureTransport": "true",
            "aws:RequestedRegion": self.scope.region,
            "aws:ResourceAccount": self.scope.account,
        }
        if isinstance(who, str):
            arn = self.scope.arn(self.kinds["user"].arn, who)
            return {
                **keys,
                "aws:PrincipalArn": arn,
                "aws:PrincipalType": "User",
                "aws:username": who,
                "aws:userid": who,
            }
        arn = self.scope.arn(self.kinds["role"].arn, who.role)
        return keys | {
            "aws:PrincipalArn": arn,
            "aws:PrincipalType": "AssumedRole",
            "aws:userid": f"{who.role}:{who.name}",
        }

    def decide(self, who: str | Session, action: str, arn: str, context: Context = EMPTY) -> Decision:
        """Whether a user or a session may do `action` on `arn`, `context` being what else is known.

        Roots may do everything; a session of a role is never a root. To take on a role, the role has to trust them too.
        """
        if isinstance(who, str) and self.is_root(who):
            return Decision(True, f"allowed: {who} is a root of the project")
        known = context.with_values(self.identity(who))
        if secure := context.values.get(SECURE_TRANSPORT):  # AWS's APIs can be called without TLS, all else cannot
            known = known.with_values({SECURE_TRANSPORT: secure})
        if action.lower() == ASSUME_ROLE.lower() and (role := self.kinds["role"].name_of(arn, self.scope)):
            trust = self.trust_of(role)
            if trust is None:
                return self._trusts_nobody(role)
            return self._decide(who, action, arn, known, trust, trusted_only=True)
        return self._decide(who, action, arn, known, self.policy_on(arn))

    def decide_call(
        self, who: str | Session | None, action: str, arn: str, context: Context, policy: ResourcePolicy | None
    ) -> Decision:
        """As `decide`, for a call to something that has `policy` as its own where it runs: what the head says may not
        be there yet. Who is not known (None) may do what that policy allows for everybody.
        """
        if isinstance(who, str) and self.is_root(who):
            return Decision(True, f"allowed: {who} is a root of the project")
        if who is not None:
            identified = context.or_values(Later(lambda: self.identity(who)))
            return self._decide(who, action, arn, identified, policy)
        if policy is None:
            return Decision(True, "allowed: no policy says who may")
        account = self.scope.account
        known = {
            "aws:PrincipalType": "Anonymous",
            "aws:PrincipalIsAWSService": "false",
            "aws:ViaAWSService": "false",
            "aws:RequestedRegion": self.scope.region,
            "aws:ResourceAccount": account,
        }
        nobody = compile_policies(())
        return decide(ANONYMOUS, nobody, action, arn, context.or_values(known), resource=policy, trusted_only=True)

    def _trusts_nobody(self, role: str) -> Decision:
        return Decision(False, f"{self.kinds['role'].file(role)} trusts nobody ($.trust)", explicit=False)

    def _decide(
        self,
        who: str | Session,
        action: str,
        arn: str,
        context: Context,
        resource: ResourcePolicy | None,
        *,
        trusted_only: bool = False,
    ) -> Decision:
        kind, name = ("user", who) if isinstance(who, str) else ("role", who.role)
        return decide(
            self.caller(who),
            compile_policies(self.policies_of(kind, name)),
            action,
            arn,
            context,
            boundary=self.boundary_of(kind, name),
            session=self._session_policies(who),
            resource=resource,
            trusted_only=trusted_only,
        )

    def explain(
        self, who: str | Session, action: str, arn: str, context: Context = EMPTY
    ) -> Iterator[tuple[Place, bool | None]]:
        """Every statement that names `action` and speaks for (or of) `who`, and whether it speaks of this request."""
        kind, name = ("user", who) if isinstance(who, str) else ("role", who.role)
        known = context.with_values(self.identity(who))
        more = self.policy_on(arn)
        if action.lower() == ASSUME_ROLE.lower() and (role := self.kinds["role"].name_of(arn, self.scope)):
            more = self.trust_of(role)
        yield from compile_policies(self.policies_of(kind, name)).explain(action, arn, known)
        for limit in (self.boundary_of(kind, name), self._session_policies(who)):
            if limit is not None:
                yield from limit.explain(action, arn, known)
        if more is not None:
            yield from more.explain(self.caller(who), action, arn, known)

    @staticmethod
    def _session_policies(who: str | Session) -> Policies | None:
        return None if isinstance(who, str) or not who.policies else compile_policies(who.policies)

    def policy_on(self, arn: str) -> ResourcePolicy | None:
        """The policy of the resource that has an ARN, if it has one of its own."""
        for kind in self.kinds.guarded:
            name = kind.name_of(arn, self.scope) or kind.called(arn, self.scope)
            resource = self.get(kind.name, name) if name is not None else None
            if resource is not None and isinstance(resource.spec, Guarded) and resource.spec.policy is not None:
                return ResourcePolicy(AttachedPolicy(resource.file, "$.policy", resource.spec.policy))
        return None

    def trust_of(self, role: str) -> ResourcePolicy | None:
        """The trust policy of a role: who may take it on."""
        resource = self.get("role", role)
        if resource is None or not isinstance(resource.spec, RoleSpec) or resource.spec.trust is None:
            return None
        return ResourcePolicy(AttachedPolicy(resource.file, "$.trust", resource.spec.trust))

    def assume(self, who: str | Session, session: Session, context: Context = EMPTY) -> Decision:
        """Whether a user or a session may take on a role (sts:AssumeRole): the role has to trust them as well."""
        if self.get("role", session.role) is None:
            return Decision(False, f"there is no role {session.role!r}", explicit=False)
        arn = self.scope.arn(self.kinds["role"].arn, session.role)
        return self.decide(who, ASSUME_ROLE, arn, context.with_values({"sts:RoleSessionName": session.name}))

    def service_may_assume(self, service: str, role: str, source: str) -> Decision:
        """Whether a role trusts `service`, which acts for the resource with the ARN `source`."""
        trust = self.trust_of(role)
        if trust is None:
            return self._trusts_nobody(role)
        account = self.scope.account
        keys = {
            "aws:SourceArn": source,
            "aws:SourceAccount": account,
            "aws:PrincipalIsAWSService": "true",
            "aws:PrincipalServiceName": service,
            "aws:SecureTransport": "true",
            "aws:ResourceAccount": account,
        }
        caller = Caller(service, service=service)
        arn = self.scope.arn(self.kinds["role"].arn, role)
        context = Context.of(keys)
        return decide(caller, compile_policies(()), ASSUME_ROLE, arn, context, resource=trust, trusted_only=True)

    def after(self, changes: Sequence[Change], *, trusted: bool = False, unfinished: bool = False) -> "State":
        """The state after `changes`. Raises InvalidError with every rule that it would break.

        `trusted`: it was accepted before. What is asked of a change alone (policies that cannot mean what they say,
        what may follow what) is not asked again: a node has to start with what it has. `unfinished`: references may
        point at what is still to be made.
        """
        resources, referrers, claims = self.resources.mutate(), self.referrers.mutate(), self.claims.mutate()
        for before in (change.before for change in changes if change.before):
            del resources[before.key]
            for claim in before.spec.claims():
                left = claims.pop((claim.what, claim.value), frozenset()) - {(claim.shared, before.key)}
                if left:
                    claims[claim.what, claim.value] = left
            for key in self._targets(before):
                referrers[key] = referrers[key] - {before.key}
        problems: list[Problem] = []
        for after in (change.after for change in changes if change.after):
            resources[after.key] = after
            for claim in after.spec.claims():
                holders = claims.get((claim.what, claim.value), frozenset())
                others = [key for shared, key in sorted(holders) if not shared or shared != claim.shared]
                if others:
                    problems.append(rules.claimed(claim, after.file, resources[others[0]]))
                claims[claim.what, claim.value] = holders | {(claim.shared, after.key)}
            for key in self._targets(after):
                referrers[key] = referrers.get(key, frozenset()) | {after.key}
        state = replace(self, resources=resources.finish(), referrers=referrers.finish(), claims=claims.finish())
        problems.extend(rules.Rules(state, changes).problems(trusted=trusted, unfinished=unfinished))
        if problems:
            raise InvalidError.of(problems)
        return state

    def _targets(self, resource: Resource) -> set[str]:
        return {self.kinds[ref.kind].key(ref.name) for ref in resource.references if ref.kind in self.kinds.by_name}
