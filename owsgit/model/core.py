"""The kinds that every ledger has: the project, its nodes, and who may do what."""

import ipaddress
import re
from collections.abc import Iterator
from types import MappingProxyType
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from owsgit.model import keys
from owsgit.model.engines import Engines
from owsgit.model.iam.document import PolicyDocument, PolicySpec, TrustPolicyDocument
from owsgit.model.resource import Actions, FieldActions, Kind, Passing
from owsgit.model.spec import Claim, Document, Name, Reference, Spec

LEDGER_FORMAT = 1


def _key(text: str) -> str:
    keys.identity(text)
    return text


def _node_key(text: str) -> str:
    if keys.parse_ssh(text).algorithm != "ssh-ed25519":
        raise ValueError("a node's key is an ssh-ed25519 key, as 'owsgit node init' prints it")
    return text


def _address(text: str) -> str:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        if not re.fullmatch(
            r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*", text
        ):
            raise ValueError("not an IP address and not a host name") from None
    return text


PublicKey = Annotated[str, StringConstraints(max_length=65536), AfterValidator(_key)]
NodeKey = Annotated[str, StringConstraints(max_length=1024), AfterValidator(_node_key)]
Address = Annotated[str, AfterValidator(_address)]
Port = Annotated[int, Field(ge=1, le=65535)]


class ProjectSpec(Spec):
    """The project: `project.json`."""

    name: Name = Field(description="The project's name; also the path of the ledger in git addresses.")
    format: int = Field(LEDGER_FORMAT, ge=1, le=LEDGER_FORMAT, description="Version of the ledger's layout.")
    region: str = Field(
        "us-east-1",
        pattern=r"^[a-z][a-z0-9-]{0,31}$",
        description="What stands as region in ARNs; existing AWS policies may name it.",
    )
    roots: list[Name] = Field(
        min_length=1,
        description="Users who may do everything and cannot be locked out. Only roots may change this list, and only "
        "a root may take itself off it.",
    )

    root_quorum: int = Field(
        1,
        ge=1,
        le=100,
        description="How many roots have to sign changes of the roots, the region, the nodes and this number, and a "
        "recovery (owsgit node recover). At 1, nodes need their own permissions only. Above 1, so many roots together "
        "may also change another root's file or take a root off, as when a key is lost.",
    )
    certificate_authorities: list[PublicKey] = Field(
        [],
        max_length=16,
        description="SSH keys whose certificates stand for the users that they name as principals (ssh-keygen -s KEY "
        "-n USER). Only roots may change this list. A root is never spoken for by a certificate.",
    )
    engines: Engines = Field(
        default_factory=lambda: Engines.model_validate({}), description="What keeps data, by service."
    )

    def references(self) -> Iterator[Reference]:
        for index, user in enumerate(self.roots):
            yield Reference("user", user, f"$.roots[{index}]")
        yield from self.engines.references()


class NodePorts(Document):
    """The ports on which a node is reached."""

    ssh: Port = Field(7022, description="SSH: git, peers and the command line.")
    aws: Port | None = Field(None, description="HTTP: AWS's SDKs. Absent: it does not answer them.")


class NodeAwsTls(Document):
    """That a node answers AWS's SDKs over HTTPS, and what clients have to know of its certificate."""

    host: Address | None = Field(None, description="The name that it is for, if that is not the node's address.")
    authorities: (
        Annotated[str, StringConstraints(pattern=r"^\s*-----BEGIN CERTIFICATE-----", max_length=65536)] | None
    ) = Field(None, description="PEM of the authority that signed it, if clients do not know it by themselves.")


class NodeSpec(Spec):
    """A node of the project: `nodes/<name>.json`, as `owsgit node init` prints it."""

    key: NodeKey = Field(description="The node's public Ed25519 key: its SSH host key.")
    address: Address = Field(description="IP address or host name at which users and other nodes reach it.")
    ports: NodePorts = Field(default_factory=lambda: NodePorts.model_validate({}), description="Its ports.")
    aws_tls: NodeAwsTls | None = Field(None, description="That SDKs are answered over HTTPS. Absent: over HTTP.")

    def claims(self) -> Iterator[Claim]:
        yield Claim("key", keys.identity(self.key), "$.key")
        yield Claim("node address", f"{self.address}:{self.ports.ssh}", "$.address")


class Principal(Spec):
    """What users, groups and roles share: the policies that speak for them."""

    policies: list[Name] = Field([], description="Names of managed policies (policies/<name>.json) attached to it.")
    inline_policies: dict[Name, PolicyDocument] = Field({}, description="Policies of its own, by name.")

    def references(self) -> Iterator[Reference]:
        for index, policy in enumerate(self.policies):
            yield Reference("policy", policy, f"$.policies[{index}]")
        for name, document in self.inline_policies.items():
            yield from document.approvals(f"$.inlinePolicies['{name}']")


class Boundaried(Principal):
    """A principal whose rights can have a boundary."""

    permissions_boundary: Name | None = Field(
        None,
        description="A managed policy that has to allow everything as well: the most that other policies can give.",
    )

    def references(self) -> Iterator[Reference]:
        yield from super().references()
        if self.permissions_boundary is not None:
            yield Reference("policy", self.permissions_boundary, "$.permissionsBoundary")


class UserSpec(Boundaried):
    """A person or machine that signs commits: `users/<name>.json`."""

    full_name: str | None = Field(None, max_length=256, description="The person's name, for people.")
    email: str | None = Field(None, max_length=320, description="Where to reach the person, for people.")
    keys: list[PublicKey] = Field(
        [],
        max_length=32,
        description="Public keys that speak for the user: OpenSSH lines (they sign commits and log in), or armoured "
        "OpenPGP certificates (they sign commits).",
    )

    def claims(self) -> Iterator[Claim]:
        for index, key in enumerate(self.keys):
            for identity in keys.identities(key):
                yield Claim("key", identity, f"$.keys[{index}]")


class GroupSpec(Principal):
    """Users who share policies: `groups/<name>.json`."""

    members: list[Name] = Field([], description="Names of the users in the group.")

    def references(self) -> Iterator[Reference]:
        yield from super().references()
        for index, user in enumerate(self.members):
            yield Reference("user", user, f"$.members[{index}]")


class RoleSpec(Boundaried):
    """The rights that a function runs with: `roles/<name>.json`."""

    trust: TrustPolicyDocument | None = Field(
        None, description="Who may take on the role (AssumeRolePolicyDocument). Without it, nobody and nothing can."
    )

    def references(self) -> Iterator[Reference]:
        yield from super().references()
        if self.trust is not None:
            yield from self.trust.references("$.trust")


POLICY_ARN = "arn:aws:iam::{account}:policy/{name}"


def _boundary(owner: str) -> FieldActions:
    names = f"iam:Put{owner}PermissionsBoundary", f"iam:Delete{owner}PermissionsBoundary"
    return FieldActions(*names, key="iam:PermissionsBoundary", arn=POLICY_ARN)


def _attachments(owner: str) -> dict[str, FieldActions]:
    return {
        "policies": FieldActions(
            f"iam:Attach{owner}Policy", f"iam:Detach{owner}Policy", key="iam:PolicyARN", arn=POLICY_ARN
        ),
        "inlinePolicies": FieldActions(f"iam:Put{owner}Policy", f"iam:Delete{owner}Policy"),
    }


def _fields(owner: str, **more: FieldActions) -> MappingProxyType[str, FieldActions]:
    return MappingProxyType(_attachments(owner) | more)


PROJECT = Kind(
    "project",
    "",
    ProjectSpec,
    "arn:aws:ows:{region}:{account}:project",
    Actions("ows:CreateProject", "ows:UpdateProject", "ows:DeleteProject"),
)
NODE = Kind(
    "node",
    "nodes",
    NodeSpec,
    "arn:aws:ows:{region}:{account}:node/{name}",
    Actions(
        "ows:AddNode",
        "ows:UpdateNode",
        "ows:RemoveNode",
        fields=MappingProxyType(
            {"key": FieldActions("ows:AddNode", "ows:RemoveNode")}
        ),  # with another key it is another
    ),
)
USER = Kind(
    "user",
    "users",
    UserSpec,
    "arn:aws:iam::{account}:user/{name}",
    Actions(
        "iam:CreateUser",
        "iam:UpdateUser",
        "iam:DeleteUser",
        fields=_fields(
            "User",
            keys=FieldActions("iam:UploadSSHPublicKey", "iam:DeleteSSHPublicKey"),
            permissionsBoundary=_boundary("User"),
        ),
    ),
)
GROUP = Kind(
    "group",
    "groups",
    GroupSpec,
    "arn:aws:iam::{account}:group/{name}",
    Actions(
        "iam:CreateGroup",
        "iam:UpdateGroup",
        "iam:DeleteGroup",
        fields=_fields("Group", members=FieldActions("iam:AddUserToGroup", "iam:RemoveUserFromGroup")),
    ),
)
ROLE = Kind(
    "role",
    "roles",
    RoleSpec,
    "arn:aws:iam::{account}:role/{name}",
    Actions(
        "iam:CreateRole",
        "iam:UpdateRole",
        "iam:DeleteRole",
        fields=_fields(
            "Role",
            trust=FieldActions("iam:UpdateAssumeRolePolicy", "iam:UpdateAssumeRolePolicy"),
            permissionsBoundary=_boundary("Role"),
        ),
    ),
    passes=Passing("iam:PassRole", service_key="iam:PassedToService", resource_key="iam:AssociatedResourceArn"),
)
POLICY = Kind(
    "policy",
    "policies",
    PolicySpec,
    POLICY_ARN,
    Actions("iam:CreatePolicy", "iam:CreatePolicyVersion", "iam:DeletePolicy"),
)

KINDS = (PROJECT, NODE, USER, GROUP, ROLE, POLICY)
"""The kinds that the ledger itself understands; those of services come from owsgit.services."""
