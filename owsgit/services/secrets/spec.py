"""The spec of a secret: `secrets/<name>.json`."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from owsgit.model.errors import Problem
from owsgit.model.iam.document import Guarded
from owsgit.model.spec import Name, Spec
from owsgit.services.secrets import sealing

VERSION_MAX = 1_000_000
Fingerprint = Annotated[str, StringConstraints(pattern=r"^SHA256:[A-Za-z0-9+/]{43}$")]


def _sealed(text: str) -> str:
    sealing.readers(text)
    return text


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

    @model_validator(mode="after")
    def _readers_are_named(self) -> Self:
        unnamed = sealing.readers(self.sealed) - {sealing.tag(fingerprint) for fingerprint in self.readers}
        if unnamed:
            raise ValueError(f"it is sealed for keys that readers does not name (tags {', '.join(sorted(unnamed))})")
        return self

    def can_read(self, fingerprint: str) -> bool:
        """Whether it is sealed for the key with this fingerprint, as far as the header tells."""
        return sealing.tag(fingerprint) in sealing.readers(self.sealed)

    def problems_after(self, before: Spec | None, file: str) -> Iterator[Problem]:
        """Versions only go up, and who could once read a version stays named: it may know the value."""
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
