"""What there is to say of secrets: who reads them, who should, what to rotate; and what nodes alone can check.

A change of a secret is checked by each node that can read it: that the sealed text is that of this file and version,
and that whoever seals anew changes nothing but the ciphertext.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from owsgit.model import keys, terminal
from owsgit.model.change import Change
from owsgit.model.core import NodeSpec
from owsgit.model.errors import Problem
from owsgit.model.resource import Resource
from owsgit.model.service import SecretValue
from owsgit.model.state import State
from owsgit.services.secrets import KIND
from owsgit.services.secrets.sealing import SealError, Vault
from owsgit.services.secrets.spec import SecretSpec

NAME_CHARACTERS_MAX = 100
"""Of a name that somebody sealed."""


@dataclass(frozen=True)
class Standing:
    """A secret of a state, and what has to be done about it."""

    resource: Resource
    spec: SecretSpec
    unsealed_for: tuple[str, ...]  # nodes that cannot read it
    exposed_to: tuple[str, ...]  # nodes that are gone and could read this version

    @property
    def problem(self) -> str:
        """In words; '' if there is nothing to do."""
        name = self.resource.name
        found = []
        if self.exposed_to:
            gone = ", ".join(self.exposed_to)
            found.append(
                f"{gone}, which is gone, could read it: change it where it is used, then owsgit secret rotate {name}"
            )
        if self.unsealed_for:
            found.append(f"not sealed for {', '.join(self.unsealed_for)}: owsgit secret rewrap {name}")
        return "; ".join(found)


def nodes_of(state: State) -> dict[str, tuple[str, str]]:
    """By fingerprint, the name and the key (an OpenSSH line) of each node of a state."""
    found: dict[str, tuple[str, str]] = {}
    for node in state.of_kind("node"):
        assert isinstance(node.spec, NodeSpec)
        found[keys.parse_ssh(node.spec.key).fingerprint] = node.name, node.spec.key
    return found


def standings(state: State) -> Iterator[Standing]:
    """Every secret of a state, by name."""
    nodes = nodes_of(state)
    for resource in state.of_kind(KIND.name):
        spec = resource.spec
        assert isinstance(spec, SecretSpec)
        yield Standing(
            resource,
            spec,
            tuple(name for fingerprint, (name, _) in nodes.items() if not spec.can_read(fingerprint)),
            tuple(name for fingerprint, name in spec.readers.items() if fingerprint not in nodes),
        )


class Watch:
    """A node's eyes on secrets."""

    def __init__(self, vault: Vault, fingerprint: str) -> None:
        self._vault = vault
        self._fingerprint = fingerprint

    def unseal(self, resource: Resource) -> SecretValue:
        """The value of a secret. Raises SealError: also for a text that was sealed for another file or version."""
        spec = resource.spec
        assert isinstance(spec, SecretSpec)
        opened = self._vault.open(spec.sealed)
        if (opened.file, opened.value.version) != (resource.file, spec.version):
            other = terminal.safe(opened.file, NAME_CHARACTERS_MAX)
            raise SealError(
                f"what is sealed here is version {opened.value.version} of {other}",
                file=resource.file,
                path="$.sealed",
                remedy="set the value anew: owsgit secret set",
            )
        return opened.value

    def inspect(self, change: Change) -> Iterator[Problem]:
        """What this node sees in a change of a secret, and who has no key cannot."""
        after, before = change.after, change.before
        if after is None or not isinstance(after.spec, SecretSpec):
            return
        former = before.spec if before is not None and isinstance(before.spec, SecretSpec) else None
        if former is not None and former.version != after.spec.version:
            former = None
        if not after.spec.can_read(self._fingerprint):
            if former is not None and former.can_read(self._fingerprint):
                yield Problem(
                    "this node could open it, and could not any more under the same version",
                    after.file,
                    "$.sealed",
                    "owsgit secret rewrap seals it for all nodes",
                )
            return
        try:
            value = self.unseal(after)
        except SealError as error:
            first = error.problems[0]
            yield Problem(first.message, after.file, "$.sealed", "set the value anew: owsgit secret set")
            return
        if before is None or former is None:
            return
        try:
            same = self.unseal(before) == value
        except SealError:
            return  # it could not read the one before: others compare
        if not same:
            yield Problem(
                "a new value under an old version: whoever seals anew may change nothing but the ciphertext",
                after.file,
                "$.sealed",
                "owsgit secret rewrap has a node do it; for a new value: owsgit secret set",
            )
