"""What has to be true of a project as a whole, beyond what each file says: references, ports, nodes, roots."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from owsgit.model import housing
from owsgit.model.change import Change
from owsgit.model.core import NodeSpec, Principal, ProjectSpec, RoleSpec, UserSpec
from owsgit.model.errors import Problem
from owsgit.model.housing import Housed
from owsgit.model.iam import lint
from owsgit.model.iam.document import Guarded, PolicySpec
from owsgit.model.iam.lint import AnyDocument
from owsgit.model.resource import Resource
from owsgit.model.spec import Claim, Spec, nearest

if TYPE_CHECKING:  # which asks these rules
    from owsgit.model.state import State

NODE_NAMES_RESERVED = ("votes", "recovery", "reviews")
"""Names of other notes under refs/notes/owsgit."""


def claimed(claim: Claim, file: str, holder: Resource) -> Problem:
    """Of what is claimed in `file`, and `holder` has."""
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


class Rules:
    """The rules for what changed; `state` is the one after the changes."""

    def __init__(self, state: "State", changes: Sequence[Change]) -> None:
        self._state, self._changes = state, changes

    def problems(self, *, trusted: bool, unfinished: bool) -> Iterator[Problem]:
        """Every rule that is broken; for the two words see State.after."""
        yield from self._broken(trusted, unfinished)
        yield from self._project()

    def _holding(self, what: str, value: str) -> Spec | None:
        found = self._state.holder(what, value)
        return found.spec if found is not None else None

    def _broken(self, trusted: bool, unfinished: bool) -> Iterator[Problem]:
        """References of what changed, and references to what is gone."""
        if not trusted and any(_moves(change) for change in self._changes):
            changed = {change.key for change in self._changes}
            for key in sorted(key for key in self._state.resources if key not in changed):
                yield from self._policy_problems(self._state.resources[key])
        if not trusted:
            yield from self._housing()
            yield from self._engines()
        for change in self._changes:
            if change.after is not None:
                if not unfinished:
                    yield from self._dangling(change.after)
                if not trusted:
                    yield from self._unfit(change.after)
                    before = change.before.spec if change.before is not None else None
                    yield from change.after.spec.problems_after(before, change.after.file, self._holding)
                    yield from self._policy_problems(change.after)
                    yield from self._untrusted(change.after)
                yield from self._node_ports(change.after)
            elif change.before is not None:
                if not trusted:
                    yield from change.before.spec.problems_of_removal(change.before.file)
                for key in sorted(self._state.referrers.get(change.key, ())):
                    if not any(other.after is not None and other.key == key for other in self._changes):
                        yield from self._dangling(self._state.resources[key])

    def _nodes(self) -> list[str]:
        return [node.name for node in self._state.of_kind("node")]

    def _housing(self) -> Iterator[Problem]:
        """What lives on one node stays there, and it is known which."""
        nodes = [change for change in self._changes if change.resource.kind.name == "node"]
        before = {change.resource.name for change in nodes if change.before is not None}
        former = (set(self._nodes()) - {change.resource.name for change in nodes}) | before
        housed = {change.key: change for change in self._changes if isinstance(change.resource.spec, Housed)}
        if any(change.before is None or change.after is None for change in nodes):
            for resource in self._state.resources.values():
                if isinstance(resource.spec, Housed) and resource.key not in housed:
                    housed[resource.key] = Change(resource, resource)
        for key in sorted(housed):
            was, now = housed[key].before, housed[key].after
            if now is None or not isinstance(now.spec, Housed) or self._is_shared(now.kind.name):
                continue
            yield from housing.homeless(now.spec, now.file, now.kind.name, self._nodes)
            if was is not None and isinstance(was.spec, Housed):
                home = housing.home_of(was.spec, former)
                yield from housing.moved(home, now.spec, now.file, now.kind.name, self._nodes)

    def _is_shared(self, kind: str) -> bool:
        return "project" in self._state.resources and self._state.project.engines.is_shared(kind)

    def _engines(self) -> Iterator[Problem]:
        """An engine does not change under tables that were there before."""
        changes = [each for each in self._changes if each.resource.kind.name == "table"]
        for project in (each for each in self._changes if each.resource.kind.name == "project"):
            before, after = (each.spec if each is not None else None for each in (project.before, project.after))
            if isinstance(before, ProjectSpec) and isinstance(after, ProjectSpec):
                tables = {table.name for table in self._state.of_kind("table")} - {
                    each.resource.name for each in changes
                }
                tables |= {each.resource.name for each in changes if each.before is not None}
                yield from after.engines.problems_after(before.engines, tables, "project.json")

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
                for (what, value), holding in self._state.claims.items()
                if what == "port" and _port(value) == str(port)
                for _, key in holding
            }
            for holder in sorted(holders):
                yield self._port_taken(port, resource.file, "$.ports.ssh", self._state.resources[holder])
            return
        wanted = {_port(claim.value): claim.path for claim in resource.spec.claims() if claim.what == "port"}
        for node in self._state.of_kind("node") if wanted else ():
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
            account = self._state.scope.account if self._state.is_founded else None
            found = lint.Lint(
                self._state.kinds.vocabulary,
                account,
                of_role=isinstance(spec, RoleSpec),
                region=self._state.project.region,
                arns=self._state.kinds.arns,
                principals=self._state.kinds.principals,
            )
            for path, document in documents.items():
                yield from found.problems(document, resource.file, path)

    def _untrusted(self, resource: Resource) -> Iterator[Problem]:
        """Roles that do not trust the services to which they are passed."""
        if resource.kind.principal:
            yield from self._not_assumable(resource)
        elif resource.kind.name == "role":
            changed = {change.key for change in self._changes}
            for key in sorted(self._state.referrers.get(resource.key, frozenset()) - changed):
                yield from self._not_assumable(self._state.resources[key])

    def _not_assumable(self, resource: Resource) -> Iterator[Problem]:
        for ref in resource.references:
            service = resource.kind.principal
            if ref.kind != "role" or not ref.passes or not service or self._state.get("role", ref.name) is None:
                continue
            decision = self._state.service_may_assume(service, ref.name, resource.arn(self._state.scope))
            if not decision.allowed:
                file = self._state.kinds["role"].file(ref.name)
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
            kind = self._state.kinds.by_name.get(ref.kind)
            if kind is None:
                known = list(self._state.kinds.by_name)
                remedy = nearest(ref.kind, known, "kind", "kinds")
                yield Problem(f"there is no kind {ref.kind!r} of resources", resource.file, ref.path, remedy)
            elif kind.key(ref.name) not in self._state.resources and not (ref.need and (ref.kind, ref.name) in told):
                told.add((ref.kind, ref.name))
                known = [other.name for other in self._state.of_kind(ref.kind)]
                added = f"make it: {kind.made_by.format(name=ref.name)}" if kind.made_by else "add it"
                yield Problem(
                    f"there is no {ref.kind} {ref.name!r}: {kind.file(ref.name)} is missing",
                    resource.file,
                    ref.path,
                    (f"{nearest(ref.name, known, ref.kind, kind.folder)}; or {added}" if known else added)
                    + ref.otherwise,
                )

    def _unfit(self, resource: Resource) -> Iterator[Problem]:
        """References of a changed resource, and references to it, whose target is not for what names it."""
        yield from self._unfit_targets(resource, None)
        if type(resource.spec).lacks is not Spec.lacks:
            changed = {change.key for change in self._changes}
            for key in sorted(self._state.referrers.get(resource.key, frozenset()) - changed):
                yield from self._unfit_targets(self._state.resources[key], resource)

    def _unfit_targets(self, resource: Resource, only: Resource | None) -> Iterator[Problem]:
        for ref in (ref for ref in resource.references if ref.need):
            target = self._state.get(ref.kind, ref.name)
            if target is None or (only is not None and target.key != only.key):
                continue
            if (reason := target.spec.lacks(ref.need)) is not None:
                remedy = f"change {target.file}, or take {ref.name} out of {resource.file}"
                yield Problem(f"the {ref.kind} {ref.name} cannot be used: {reason}", resource.file, ref.path, remedy)

    def _project(self) -> Iterator[Problem]:
        if "project" not in self._state.resources:
            yield Problem(
                "the project itself is missing",
                "project.json",
                remedy="'owsgit init NAME' makes a ledger, with its project.json",
            )
            return
        project = self._state.project
        if project.root_quorum > len(set(project.roots)):
            yield Problem(
                f"{project.root_quorum} roots have to sign, and there are {len(set(project.roots))}",
                "project.json",
                "$.rootQuorum",
                "lower it, or name more roots",
            )
        for index, name in enumerate(project.roots):
            user = self._state.get("user", name)
            if user is not None and isinstance(user.spec, UserSpec) and not user.spec.keys:
                yield Problem(
                    f"the root user {name} has no key left, so nobody could sign as this root",
                    user.file,
                    "$.keys",
                    f"keep one key, or take {name} off $.roots[{index}] of project.json",
                )
        removed = any(change.after is None and change.resource.kind.name == "node" for change in self._changes)
        if removed and not any(resource.kind.name == "node" for resource in self._state.resources.values()):
            yield Problem("the last node of a project cannot be removed", "nodes/", remedy="add another node first")


def _moves(change: Change) -> bool:
    """Whether the project's region changes, which is in the ARNs that policies name."""
    before, after = (each.spec if each is not None else None for each in (change.before, change.after))
    return isinstance(before, ProjectSpec) and isinstance(after, ProjectSpec) and before.region != after.region


def _port(claimed: str) -> str:
    """The port of a claim that may be to a part of it: "8080", "8080 at api.example.com/v1"."""
    return claimed.partition(" ")[0]
