"""Cross-origin resource sharing of a gateway, as HTTP APIs have it."""

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from owsgit.gateway.table import METHODS
from owsgit.model.spec import Document

if TYPE_CHECKING:
    from owsgit.gateway.cors import Sharing

Origin = Annotated[
    str,
    StringConstraints(
        pattern=r"^(\*|null|[a-z][a-z0-9+.-]{0,30}://(\*|(\*\.)?[a-zA-Z0-9.-]{1,253}|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?)$"
    ),
]
HeaderName = Annotated[str, StringConstraints(pattern=r"^(\*|[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128})$")]
Method = Literal["*", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


class CorsSpec(Document):
    """What pages of other origins may do. Preflights are answered for every path, without invoking or authorizing."""

    allow_origins: list[Origin] = Field(
        default_factory=list,
        max_length=100,
        description="Origins such as https://www.example.com, https://*.example.com, https://*, or * for all.",
    )
    allow_methods: list[Method] = Field(default_factory=list, max_length=8, description="Methods, or * for all.")
    allow_headers: list[HeaderName] = Field(
        default_factory=list, max_length=100, description="Headers that requests may have, or * for all."
    )
    expose_headers: list[HeaderName] = Field(
        default_factory=list, max_length=100, description="Headers of responses that pages may read, or * for all."
    )
    max_age: int | None = Field(
        None, ge=-1, le=86_400, description="Seconds for which browsers may keep the answer to a preflight."
    )
    allow_credentials: bool = Field(False, description="Whether requests may have cookies and authorization.")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.allow_credentials:
            for name, values in (("allowOrigins", self.allow_origins), ("exposeHeaders", self.expose_headers)):
                if "*" in values:
                    raise ValueError(f"browsers take no * in {name} with allowCredentials: name them one by one")
        return self

    def sharing(self) -> "Sharing":
        from owsgit.gateway.cors import Sharing  # noqa: PLC0415 - whoever only reads a ledger needs no web server

        return Sharing(
            self.allow_origins,
            METHODS if "*" in self.allow_methods else self.allow_methods,
            self.allow_headers,
            self.expose_headers,
            self.max_age,
            self.allow_credentials,
        )
