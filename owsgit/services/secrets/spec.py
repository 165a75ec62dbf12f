"""The spec of a secret: `secrets/<name>.json`."""

import base64
from collections.abc import Callable, Iterator
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from owsgit.ledger import sshsig
from owsgit.ledger.sshsig import BadSignatureError
from owsgit.model import keys
from owsgit.model.core import NodeSpec
from owsgit.model.errors import Problem
from owsgit.model.iam.document import Guarded
from owsgit.model.spec import Document, Name, Spec
from owsgit.services.secrets import sealing

VERSION_MAX = 1_000_000
Fingerprint = Annotated[str, StringConstraints(pattern=r"^SHA256:[A-Za-z0-9+/]{43}$")]


def _sealed(text: str) -> str:
    sealing.readers(text)
    return text


class Rewrapped(Document):
    """A node's word that what it sealed anew is the same value."""

    by: Fingerprint = Field(description="The node's key.")
    signature: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]{86}==$")] = Field(
        description="Its signature over the file, the version and the sealed text."
    )


class SecretSpec(Guarded):
    """A value that only the nodes can read: written by `owsgit secret set`, never by hand."""

    tells_values: ClassVar[bool] = False

    description: str | None = Field(None, max_length=2048, description="What the secret is for.")
    version: int = Field(ge=1, le=VERSION_MAX, description="Counts the values that it has had.")
    readers: dict[Fingerprint, Name] = Field(
        min_length=1,
        max_length=1000,
        description="The keys that can read this version, or could once, with the names of their nodes.",
    )
    sealed: Annotated[str, StringConstraints(max_length=sealing.SEALED_CHARACTERS_MAX), AfterValidator(_sealed)] = (
        Field(description="The value with its file and version, sealed by age for the nodes' keys.")
    )

    rewrapped: Rewrapped | None = Field(
        None, description="If it was sealed anew since the version was set: which node did it (owsgit secret rewrap)."
    )

    @model_validator(mode="before")
    @classmethod
    def _not_plain(cls, value: Any) -> Any:
        if isinstance(value, dict) and "sealed" not in value:
            raise ValueError(
                "its value is not sealed: owsgit secret set makes this file; a plain value is for everybody"
            )
        return value

    @model_validator(mode="after")
    def _readers_are_named(self) -> Self:
        unnamed = sealing.readers(self.sealed) - {sealing.tag(fingerprint) for fingerprint in self.readers}
        if unnamed:
            raise ValueError(f"it is sealed for keys that readers does not name (tags {', '.join(sorted(unnamed))})")
        return self

    def can_read(self, fingerprint: str) -> bool:
        """Whether it is sealed for the key with this fingerprint, as far as the header tells."""
        return sealing.tag(fingerprint) in sealing.readers(self.sealed)

    def problems_after(
        self, before: Spec | None, file: str, holder: Callable[[str, str], Spec | None]
    ) -> Iterator[Problem]:
        """Versions only go up; who could once read a version stays named, as it may know the value; and only a node
        that could open the text before says that another one holds the same."""
        if not isinstance(before, SecretSpec):
            return
        if self.version not in (before.version, before.version + 1):
            yield Problem(
                f"the version goes from {before.version} to {self.version}: no value comes back or is left out",
                file,
                "$.version",
                "set the value anew: owsgit secret set",
            )
        gone = sorted(set(before.readers) - set(self.readers))
        if self.version == before.version and gone:
            yield Problem(
                f"{gone[0]} ({before.readers[gone[0]]}) could read version {self.version}, and has to stay named",
                file,
                "$.readers",
                "only a new value ends that: owsgit secret rotate",
            )
        if self.version == before.version and self.sealed != before.sealed:
            yield from self._not_rewrapped(before, file, holder)

    def _not_rewrapped(
        self, before: "SecretSpec", file: str, holder: Callable[[str, str], Spec | None]
    ) -> Iterator[Problem]:
        told = self.rewrapped
        node = holder("key", told.by) if told is not None else None
        try:
            known = told is not None and told.by in before.readers and before.can_read(told.by)
            if told is None or not isinstance(node, NodeSpec) or not known:
                raise BadSignatureError("it is no node's that could open what was sealed before")
            key = keys.parse_ssh(node.key)
            payload = sealing.statement(file, self.version, before.sealed, self.sealed)
            sshsig.verify_bare(key, sealing.NAMESPACE, payload, base64.b64decode(told.signature))
        except BadSignatureError as error:
            yield Problem(
                f"another text is sealed under version {self.version}, and no node says that the value is the same: "
                f"{error.problems[0].message}",
                file,
                "$.sealed",
                "owsgit secret rewrap has a node do it; for a new value: owsgit secret set",
            )
