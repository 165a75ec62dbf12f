"""What a kind of resource is, and what a resource is.

A kind is data: where its file lies, how its ARN reads, and which IAM actions guard its changes. The kinds of one ledger
are given as `Kinds`; the kinds of services are added by their folders.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

from owsgit.model.iam.document import Guarded
from owsgit.model.iam.vocabulary import Vocabulary
from owsgit.model.names import Scope
from owsgit.model.spec import Reference, Spec


@dataclass(frozen=True)
class FieldActions:
    """The IAM actions for one top-level field; a list or an object is compared element by element.

    Where the elements are names of resources, `key` is the condition key that carries the ARN (a template) of each.
    """

    added: str
    removed: str | None  # None: losing an element needs nothing of its own
    key: str | None = None
    arn: str = ""
    unless: str | None = None  # a field whose own change accounts for this one


@dataclass(frozen=True)
class Actions:
    """Which IAM action each change of a resource needs.

    `fields` names the fields that have actions of their own; they need them at creation too. `code` guards the files
    beside the resource's JSON file.
    """

    create: str
    update: str
    delete: str
    code: str | None = None
    fields: Mapping[str, FieldActions] = field(default_factory=lambda: MappingProxyType({}))

    def all(self) -> Iterator[str]:
        yield from (self.create, self.update, self.delete)
        if self.code:
            yield self.code
        for actions in self.fields.values():
            yield actions.added
            if actions.removed is not None:
                yield actions.removed


@dataclass(frozen=True)
class Passing:
    """The action that a new reference to a resource of a kind needs: it hands its powers to what refers to it.

    The condition keys, if any, carry the service of the referring resource (lambda.amazonaws.com) and its ARN. `arn` is
    the template of what the action is on, if that is not the resource itself.
    """

    action: str
    service_key: str | None = None
    resource_key: str | None = None
    arn: str = ""


@dataclass(frozen=True)
class Kind:
    """One kind of resource.

    `folder` is where its resources lie: `<folder>/<name>.json`, or `<folder>/<name>/<kind>.json` with files beside it
    where `has_files`. The project itself has no folder: `project.json`. `condition_keys` are what policies can ask of a
    change of it: by key, the values for a spec; so are `condition_arns`: by key, an ARN's template and the name in it.
    """

    name: str
    folder: str
    spec: type[Spec]
    arn: str  # a template with {region}, {account} and {name}
    actions: Actions
    has_files: bool = False
    passes: Passing | None = None  # what a reference to this kind needs: iam:PassRole for roles
    principal: str = ""  # the service that its resources act as: lambda.amazonaws.com
    condition_keys: Mapping[str, Callable[[Any], list[str]]] = field(default_factory=lambda: MappingProxyType({}))
    condition_arns: Mapping[str, tuple[str, Callable[[Any], str]]] = field(default_factory=lambda: MappingProxyType({}))
    calls: tuple[str, ...] = ()  # the actions of calls to its resources: lambda:InvokeFunction
    calls_arn: str = ""  # what ARNs of calls begin with, where these have ARNs of their own; a template
    copied: bool = False  # what refers to it holds a copy of it, and is applied again when it changes
    opaque: frozenset[str] = frozenset()  # fields whose values tell people nothing
    made_by: str = ""  # the command that makes the file of one, if nobody writes it by hand: owsgit secret set {name}

    def all_actions(self) -> Iterator[str]:
        """Every action that guards its resources, or that they answer to."""
        yield from self.actions.all()
        yield from self.calls
        if self.passes is not None:
            yield self.passes.action

    def file(self, name: str) -> str:
        """The path of the JSON file of the resource `name`."""
        if not self.folder:
            return f"{self.name}.json"
        return f"{self.folder}/{name}/{self.name}.json" if self.has_files else f"{self.folder}/{name}.json"

    def name_of(self, arn: str, scope: Scope) -> str | None:
        """The name of the resource that has an ARN; None if none of this kind can have it."""
        before = scope.arn(self.arn.partition("{name}")[0], "")
        if not arn.startswith(before):
            return None
        name = arn[len(before) :]
        if self.arn.endswith("-{suffix}"):
            name = name.rpartition("-")[0]
        return name if scope.arn(self.arn, name) == arn else None

    def called(self, arn: str, scope: Scope) -> str | None:
        """The name of the resource that a call with an ARN of its own is to; None if it is to none of this kind."""
        before, _, after = self.calls_arn.partition("{name}")
        start = scope.arn(before, "")
        if not after or not arn.startswith(start):
            return None
        name, found, _ = arn[len(start) :].partition(after)
        return name if found else None

    def key(self, name: str) -> str:
        """What the resource is called in status, plans and inventories: unique in a project."""
        return f"{self.folder}/{name}" if self.folder else self.name


@dataclass(frozen=True)
class Resource:
    """One resource at one commit: its spec and the git objects that it came from (40 hex digits each)."""

    kind: Kind
    name: str
    spec: Spec
    blob: str
    tree: str | None = None  # the folder, for kinds that have files
    code: str | None = None  # a digest of the files beside the JSON file

    @property
    def key(self) -> str:
        return self.kind.key(self.name)

    @property
    def file(self) -> str:
        return self.kind.file(self.name)

    @property
    def version(self) -> str:
        """What has to differ for the resource to be applied again."""
        return self.tree or self.blob

    def arn(self, scope: Scope) -> str:
        return scope.arn(self.kind.arn, self.name)

    @cached_property
    def references(self) -> tuple[Reference, ...]:
        """The other resources that it needs or names."""
        return tuple(self.spec.references())

    @cached_property
    def _document(self) -> dict[str, Any]:
        return self.spec.document()

    def document(self) -> dict[str, Any]:
        """The resource's JSON document. Not to be changed."""
        return self._document


FILE_ACTION = "ows:UpdateFile"
"""Guards every file that is no resource: README.md, docs/, a forge's CI."""

HISTORY_ACTION = "ows:AddHistory"
"""Guards commits that bring history and change nothing by themselves: merges, and empty commits. On the project."""

PROPOSE_ACTION = "ows:Propose"
"""Guards proposals: git push origin HEAD:refs/for/main. On the project."""

APPROVE_ACTION = "ows:Approve"
"""Guards approvals and rejections; who may not, does not count. On the project."""

METRICS_ACTION = "cloudwatch:GetMetricData"
"""Guards the metrics of a node: owsgit metrics. On the project."""

AUDIT_ACTION = "cloudtrail:LookupEvents"
"""Guards the audit log: owsgit audit. On the project."""

FILE_ARN = "arn:aws:ows:{region}:{account}:file/{name}"


class Kinds:
    """The kinds that a ledger may hold, by name and by folder."""

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self.by_name = {kind.name: kind for kind in kinds}
        self.by_folder = {kind.folder: kind for kind in self.by_name.values() if kind.folder}
        self.actions = frozenset(action for kind in self.by_name.values() for action in kind.all_actions()) | {
            FILE_ACTION,
            HISTORY_ACTION,
            PROPOSE_ACTION,
            APPROVE_ACTION,
            METRICS_ACTION,
            AUDIT_ACTION,
        }
        self.guarded = tuple(kind for kind in self.by_name.values() if issubclass(kind.spec, Guarded))
        """Kinds whose resources may have policies of their own."""
        self.arns = tuple(arn for kind in self.by_name.values() for arn in (kind.arn, kind.calls_arn) if arn)
        self.principals = tuple(sorted({kind.principal for kind in self.by_name.values() if kind.principal}))
        """The services that act for resources here: lambda.amazonaws.com."""

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The names that policies may use."""
        return Vocabulary.of(self.actions, (key for kind in self.by_name.values() for key in kind.condition_keys))

    def __iter__(self) -> Iterator[Kind]:
        return iter(self.by_name.values())

    def __getitem__(self, name: str) -> Kind:
        return self.by_name[name]
