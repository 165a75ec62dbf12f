"""The state of a project at one commit: all its resources, checked as a whole.

A State is immutable and shares what did not change with the State that it came from, so that a change of one file in a
ledger of 10,000 resources costs one change.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from immutables import Map

from owsgit.model import housing
from owsgit.model.change import Change
from owsgit.model.core import Boundaried, GroupSpec, NodeSpec, Principal, ProjectSpec, RoleSpec, UserSpec
from owsgit.model.errors import InvalidError, Problem
from owsgit.model.housing import Housed
from owsgit.model.iam import lint
from owsgit.model.iam.context import EMPTY, SECURE_TRANSPORT, Context
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
from owsgit.model.iam.lint import AnyDocument
from owsgit.model.iam.principal import Caller
from owsgit.model.names import Scope, account_id, project_id
from owsgit.model.resource import Kinds, Resource
from owsgit.model.spec import Claim, Spec, nearest

NODE_NAMES_RESERVED = ("votes", "recovery", "reviews")
"""Names of other notes under refs/notes/owsgit."""

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

    def of_kind(self, kind: str) -> Iterator[Resource]:
        """All resources of a kind, by name."""
        found = (resource for resource in self.resources.values() if resource.kind.name == kind)
        yield from sorted(found, key=lambda resource: resource.name)

    def holder(self, what: str, value: str) -> Resource | None:
        """The resource that claims `value`, such as the user who has a key."""
        holders = self.claims.get((what, value))
        return self.resources[min(holders)[1]] if holders else None

    def _holding(self, what: str, value: str) -> Spec | None:
        found = self.holder(what, value)
        return found.spec if found is not None else None

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
            return self._decide(who, action, arn, context.or_values(self.identity(who)), policy)
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
                    problems.append(self._claimed(claim, after.file, resources[others[0]]))
                claims[claim.what, claim.value] = holders | {(claim.shared, after.key)}
            for key in self._targets(after):
                referrers[key] = referrers.get(key, frozenset()) | {after.key}
        state = replace(self, resources=resources.finish(), referrers=referrers.finish(), claims=claims.finish())
        problems.extend(state._broken(changes, trusted, unfinished))
        problems.extend(state._project_rules(changes))
        if problems:
            raise InvalidError.of(problems)
        return state

    def _targets(self, resource: Resource) -> set[str]:
        return {self.kinds[ref.kind].key(ref.name) for ref in resource.references if ref.kind in self.kinds.by_name}

    @staticmethod
    def _claimed(claim: Claim, file: str, holder: Resource) -> Problem:
        shown = f"{claim.what} {claim.value if len(claim.value) < 80 else claim.value[:77] + '...'}"
        if claim.shared:
            return Problem(
                f"{shown} is served in another way by {holder.file}",
                file,
                claim.path,
                f"write the same in {file} and there, or choose another port",
            )
        return Problem(
            f"{shown} is used by {holder.file} already", file, claim.path, f"choose another in {file}, or free it there"
        )

    def _broken(self, changes: Sequence[Change], trusted: bool, unfinished: bool) -> Iterator[Problem]:
        """References of what changed, and references to what is gone."""
        if not trusted and any(_moves(change) for change in changes):
            changed = {change.key for change in changes}
            for key in sorted(key for key in self.resources if key not in changed):
                yield from self._policy_problems(self.resources[key])
        if not trusted:
            yield from self._housing(changes)
        for change in changes:
            if change.after is not None:
                if not unfinished:
                    yield from self._dangling(change.after)
                if not trusted:
                    yield from self._unfit(change.after, changes)
                    before = change.before.spec if change.before is not None else None
                    yield from change.after.spec.problems_after(before, change.after.file, self._holding)
                    yield from self._policy_problems(change.after)
                    yield from self._untrusted(change.after, changes)
                yield from self._node_ports(change.after)
            elif change.before is not None:
                if not trusted:
                    yield from change.before.spec.problems_of_removal(change.before.file)
                for key in sorted(self.referrers.get(change.key, ())):
                    if not any(other.after is not None and other.key == key for other in changes):
                        yield from self._dangling(self.resources[key])

    def _nodes(self) -> list[str]:
        return [node.name for node in self.of_kind("node")]

    def _housing(self, changes: Sequence[Change]) -> Iterator[Problem]:
        """What lives on one node stays there, and it is known which."""
        nodes = [change for change in changes if change.resource.kind.name == "node"]
        before = {change.resource.name for change in nodes if change.before is not None}
        former = (set(self._nodes()) - {change.resource.name for change in nodes}) | before
        housed = {change.key: change for change in changes if isinstance(change.resource.spec, Housed)}
        if any(change.before is None or change.after is None for change in nodes):
            for resource in self.resources.values():
                if isinstance(resource.spec, Housed) and resource.key not in housed:
                    housed[resource.key] = Change(resource, resource)
        for key in sorted(housed):
            was, now = housed[key].before, housed[key].after
            if now is None or not isinstance(now.spec, Housed):
                continue
            yield from housing.homeless(now.spec, now.file, now.kind.name, self._nodes)
            if was is not None and isinstance(was.spec, Housed):
                home = housing.home_of(was.spec, former)
                yield from housing.moved(home, now.spec, now.file, now.kind.name, self._nodes)

    def _node_ports(self, resource: Resource) -> Iterator[Problem]:
        """A port of every node cannot be one that a node has for SSH; and a node's name is part of a git ref."""
        if isinstance(resource.spec, NodeSpec):
            name = resource.name
            if name in NODE_NAMES_RESERVED or ".." in name or name.endswith((".", ".lock")):
                yield Problem(
                    f"{name!r} cannot be a node's name: git notes are kept under refs/notes/owsgit/<node>",
                    resource.file,
                    remedy="choose another name",
                )
            port = resource.spec.ports.ssh
            holders = {
                key
                for (what, value), holding in self.claims.items()
                if what == "port" and _port(value) == str(port)
                for _, key in holding
            }
            for holder in sorted(holders):
                yield self._port_taken(port, resource.file, "$.ports.ssh", self.resources[holder])
            return
        wanted = {_port(claim.value): claim.path for claim in resource.spec.claims() if claim.what == "port"}
        for node in self.of_kind("node") if wanted else ():
            assert isinstance(node.spec, NodeSpec)
            if (path := wanted.get(str(node.spec.ports.ssh))) is not None:
                yield self._port_taken(node.spec.ports.ssh, resource.file, path, node)

    @staticmethod
    def _port_taken(port: int, file: str, path: str, holder: Resource) -> Problem:
        return Problem(f"port {port} is used by {holder.file} already", file, path, f"choose another in {file}")

    def _policy_problems(self, resource: Resource) -> Iterator[Problem]:
        """What the policies of a changed resource say and cannot mean."""
        spec = resource.spec
        documents: dict[str, AnyDocument] = {"$": spec} if isinstance(spec, PolicySpec) else {}
        if isinstance(spec, Principal):
            documents = {f"$.inlinePolicies['{name}']": document for name, document in spec.inline_policies.items()}
        if isinstance(spec, RoleSpec) and spec.trust is not None:
            documents["$.trust"] = spec.trust
        if isinstance(spec, Guarded) and spec.policy is not None:
            documents["$.policy"] = spec.policy
        if documents:
            account = self.scope.account if self.genesis != GENESIS_UNKNOWN else None
            found = lint.Lint(
                self.kinds.vocabulary,
                account,
                of_role=isinstance(spec, RoleSpec),
                region=self.project.region,
                arns=self.kinds.arns,
                principals=self.kinds.principals,
            )
            for path, document in documents.items():
                yield from found.problems(document, resource.file, path)

    def _untrusted(self, resource: Resource, changes: Iterable[Change]) -> Iterator[Problem]:
        """Roles that do not trust the services to which they are passed."""
        if resource.kind.principal:
            yield from self._not_assumable(resource)
        elif resource.kind.name == "role":
            changed = {change.key for change in changes}
            for key in sorted(self.referrers.get(resource.key, frozenset()) - changed):
                yield from self._not_assumable(self.resources[key])

    def _not_assumable(self, resource: Resource) -> Iterator[Problem]:
        for ref in resource.references:
            service = resource.kind.principal
            if ref.kind != "role" or not ref.passes or not service or self.get("role", ref.name) is None:
                continue
            decision = self.service_may_assume(service, ref.name, resource.arn(self.scope))
            if not decision.allowed:
                file = self.kinds["role"].file(ref.name)
                yield Problem(
                    f"the role {ref.name} cannot be taken on by {service}: {decision.reason}",
                    resource.file,
                    ref.path,
                    f'add to {file} $.trust: {{"Effect": "Allow", "Principal": {{"Service": "{service}"}}, '
                    '"Action": "sts:AssumeRole"}',
                )

    def _dangling(self, resource: Resource) -> Iterator[Problem]:
        told: set[tuple[str, str]] = set()  # once, where it is named first, if several fields are about the same
        for ref in resource.references:
            kind = self.kinds.by_name.get(ref.kind)
            if kind is None:
                known = list(self.kinds.by_name)
                remedy = nearest(ref.kind, known, "kind", "kinds")
                yield Problem(f"there is no kind {ref.kind!r} of resources", resource.file, ref.path, remedy)
            elif kind.key(ref.name) not in self.resources and not (ref.need and (ref.kind, ref.name) in told):
                told.add((ref.kind, ref.name))
                known = [other.name for other in self.of_kind(ref.kind)]
                added = f"make it: {kind.made_by.format(name=ref.name)}" if kind.made_by else "add it"
                yield Problem(
                    f"there is no {ref.kind} {ref.name!r}: {kind.file(ref.name)} is missing",
                    resource.file,
                    ref.path,
                    f"{nearest(ref.name, known, ref.kind, kind.folder)}; or {added}" if known else added,
                )

    def _unfit(self, resource: Resource, changes: Iterable[Change]) -> Iterator[Problem]:
        """References of a changed resource, and references to it, whose target is not for what names it."""
        yield from self._unfit_targets(resource, None)
        if type(resource.spec).lacks is not Spec.lacks:
            changed = {change.key for change in changes}
            for key in sorted(self.referrers.get(resource.key, frozenset()) - changed):
                yield from self._unfit_targets(self.resources[key], resource)

    def _unfit_targets(self, resource: Resource, only: Resource | None) -> Iterator[Problem]:
        for ref in (ref for ref in resource.references if ref.need):
            target = self.get(ref.kind, ref.name)
            if target is None or (only is not None and target.key != only.key):
                continue
            if (reason := target.spec.lacks(ref.need)) is not None:
                remedy = f"change {target.file}, or take {ref.name} out of {resource.file}"
                yield Problem(f"the {ref.kind} {ref.name} cannot be used: {reason}", resource.file, ref.path, remedy)

    def _project_rules(self, changes: Sequence[Change]) -> Iterator[Problem]:
        if "project" not in self.resources:
            yield Problem(
                "the project itself is missing",
                "project.json",
                remedy="'owsgit init NAME' makes a ledger, with its project.json",
            )
            return
        if self.project.root_quorum > len(set(self.project.roots)):
            yield Problem(
                f"{self.project.root_quorum} roots have to sign, and there are {len(set(self.project.roots))}",
                "project.json",
                "$.rootQuorum",
                "lower it, or name more roots",
            )
        for index, name in enumerate(self.project.roots):
            user = self.get("user", name)
            if user is not None and isinstance(user.spec, UserSpec) and not user.spec.keys:
                yield Problem(
                    f"the root user {name} has no key left, so nobody could sign as this root",
                    user.file,
                    "$.keys",
                    f"keep one key, or take {name} off $.roots[{index}] of project.json",
                )
        removed = any(change.after is None and change.resource.kind.name == "node" for change in changes)
        if removed and not any(resource.kind.name == "node" for resource in self.resources.values()):
            yield Problem("the last node of a project cannot be removed", "nodes/", remedy="add another node first")


def _moves(change: Change) -> bool:
    """Whether the project's region changes, which is in the ARNs that policies name."""
    before, after = (each.spec if each is not None else None for each in (change.before, change.after))
    return isinstance(before, ProjectSpec) and isinstance(after, ProjectSpec) and before.region != after.region


def _port(claimed: str) -> str:
    """The port of a claim that may be to a part of it: "8080", "8080 at api.example.com/v1"."""
    return claimed.partition(" ")[0]
