"""The state of a project at one commit: all its resources, checked as a whole.

A State is immutable and shares what did not change with the State that it came from, so that a change of one file in a
ledger of 10,000 resources costs one change.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from immutables import Map

from owsgit.model.change import Change
from owsgit.model.core import Boundaried, GroupSpec, NodeSpec, Principal, ProjectSpec, UserSpec
from owsgit.model.errors import InvalidError, Problem
from owsgit.model.iam import lint
from owsgit.model.iam.context import EMPTY, Context
from owsgit.model.iam.decision import AttachedPolicy, Decision, Policies, compile_policies, decide
from owsgit.model.iam.document import PolicyDocument, PolicySpec
from owsgit.model.names import Scope, account_id, project_id
from owsgit.model.resource import Kinds, Resource
from owsgit.model.spec import nearest

NODE_NAMES_RESERVED = ("votes", "recovery", "reviews")
"""Names of other notes under refs/notes/owsgit."""

GENESIS_UNKNOWN = "0" * 40
"""Stands in for the genesis commit's id while that commit is not made yet."""


@dataclass(frozen=True)
class State:
    """All resources of a project. Made by `State.empty(kinds).after(changes)`, never by hand."""

    kinds: Kinds
    genesis: str = GENESIS_UNKNOWN
    resources: "Map[str, Resource]" = field(default_factory=Map)
    referrers: "Map[str, frozenset[str]]" = field(default_factory=Map)  # key → keys of the resources that name it
    claims: "Map[tuple[str, str], str]" = field(default_factory=Map)  # (what, value) → key of the holder

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
        key = self.claims.get((what, value))
        return self.resources[key] if key is not None else None

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

    def identity(self, user: str) -> dict[str, str]:
        """The global condition keys that tell who asks, and in which project.

        https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html
        """
        return {
            "aws:PrincipalArn": self.scope.arn(self.kinds["user"].arn, user),
            "aws:PrincipalAccount": self.scope.account,
            "aws:PrincipalType": "User",
            "aws:PrincipalIsAWSService": "false",
            "aws:ViaAWSService": "false",
            "aws:SecureTransport": "true",
            "aws:username": user,
            "aws:userid": user,
            "aws:RequestedRegion": self.scope.region,
            "aws:ResourceAccount": self.scope.account,
        }

    def decide(self, user: str, action: str, arn: str, context: Context = EMPTY) -> Decision:
        """Whether `user` may do `action` on `arn`, `context` being what else is known. Roots may do everything."""
        if self.is_root(user):
            return Decision(True, f"allowed: {user} is a root of the project")
        policies = compile_policies(self.policies_of("user", user))
        known = context.with_values(self.identity(user))
        return decide(user, policies, action, arn, known, boundary=self.boundary_of("user", user))

    def after(self, changes: Sequence[Change]) -> "State":
        """The state after `changes`. Raises InvalidError with every rule that it would break."""
        resources, referrers, claims = self.resources.mutate(), self.referrers.mutate(), self.claims.mutate()
        for before in (change.before for change in changes if change.before):
            del resources[before.key]
            for claim in before.spec.claims():
                claims.pop((claim.what, claim.value), None)
            for key in self._targets(before):
                referrers[key] = referrers[key] - {before.key}
        problems: list[Problem] = []
        for after in (change.after for change in changes if change.after):
            resources[after.key] = after
            for claim in after.spec.claims():
                holder = claims.get((claim.what, claim.value))
                if holder is not None:
                    problems.append(self._claimed(claim.what, claim.value, after.file, claim.path, resources[holder]))
                claims[claim.what, claim.value] = after.key
            for key in self._targets(after):
                referrers[key] = referrers.get(key, frozenset()) | {after.key}
        state = replace(self, resources=resources.finish(), referrers=referrers.finish(), claims=claims.finish())
        problems.extend(state._broken(changes))
        problems.extend(state._project_rules(changes))
        if problems:
            raise InvalidError.of(problems)
        return state

    def _targets(self, resource: Resource) -> set[str]:
        return {self.kinds[ref.kind].key(ref.name) for ref in resource.spec.references()}

    @staticmethod
    def _claimed(what: str, value: str, file: str, path: str, holder: Resource) -> Problem:
        shown = value if len(value) < 80 else value[:77] + "..."
        return Problem(
            f"{what} {shown} is used by {holder.file} already",
            file,
            path,
            f"choose another in {file}, or free it there",
        )

    def _broken(self, changes: Iterable[Change]) -> Iterator[Problem]:
        """References of what changed, and references to what is gone."""
        for change in changes:
            if change.after is not None:
                yield from self._dangling(change.after)
                yield from self._policy_problems(change.after)
                yield from self._node_ports(change.after)
            elif change.before is not None:
                for key in sorted(self.referrers.get(change.key, ())):
                    if not any(other.after is not None and other.key == key for other in changes):
                        yield from self._dangling(self.resources[key])

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
            taken = self.claims.get(("port", str(resource.spec.ports.ssh)))
            if taken is not None:
                yield self._port_taken(resource.spec.ports.ssh, resource.file, "$.ports.ssh", self.resources[taken])
            return
        wanted = {claim.value: claim.path for claim in resource.spec.claims() if claim.what == "port"}
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
        documents: dict[str, PolicyDocument] = {"$": spec} if isinstance(spec, PolicySpec) else {}
        if isinstance(spec, Principal):
            documents = {f"$.inlinePolicies['{name}']": document for name, document in spec.inline_policies.items()}

        def is_group(name: str) -> bool:
            return self.get("group", name) is not None

        for path, document in documents.items():
            yield from lint.problems(document, resource.file, path, self.kinds.ows_actions, is_group)

    def _dangling(self, resource: Resource) -> Iterator[Problem]:
        for ref in resource.spec.references():
            kind = self.kinds[ref.kind]
            if kind.key(ref.name) not in self.resources:
                known = [other.name for other in self.of_kind(ref.kind)]
                yield Problem(
                    f"there is no {ref.kind} {ref.name!r}: {kind.file(ref.name)} is missing",
                    resource.file,
                    ref.path,
                    nearest(ref.name, known, ref.kind, f"{kind.folder}"),
                )

    def _project_rules(self, changes: Sequence[Change]) -> Iterator[Problem]:
        if "project" not in self.resources:
            yield Problem("the project itself is missing", "project.json", remedy="every ledger has a project.json")
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
