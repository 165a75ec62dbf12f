"""What a gateway tells people of itself: `info` and `docs`, and `documentation` of a route."""

from typing import Annotated

from pydantic import Field, StringConstraints

from owsgit.model.spec import Document
from owsgit.services.gateways.requests import TYPES_MAX, ContentType, JsonSchema, ModelName

Text = Annotated[str, StringConstraints(max_length=8192)]
ShortText = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Status = Annotated[str, StringConstraints(pattern=r"^([1-5](\d\d|XX)|default)$")]


class InfoSpec(Document):
    """What the API is called, in its OpenAPI document."""

    title: ShortText | None = Field(None, description="By default the gateway's name.")
    version: ShortText = Field("1.0", description="Of the API.")


class DocsSpec(Document):
    """An interactive page of the API, and its OpenAPI document at <path>/openapi.json."""

    path: Annotated[str, StringConstraints(pattern=r"^(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+$", max_length=256)] = Field(
        description="Path of the page, such as /docs."
    )
    auth: str | None = Field(
        None,
        max_length=128,
        description="Who may see it, as auth of a route, without a key; by default what the gateway says.",
    )

    @property
    def route_keys(self) -> tuple[str, str]:
        """Of the page, and of its files."""
        return f"GET {self.path}", f"GET {self.path}/{{file}}"


class ResponseDoc(Document):
    """What one answer of a route is."""

    description: Text = Field("", description="When it is given.")
    body: dict[ContentType, ModelName | JsonSchema] = Field(
        default_factory=dict,
        max_length=TYPES_MAX,
        description="By content type: a model's name, or a JSON Schema.",
    )


class DocumentationSpec(Document):
    """What OpenAPI documents say of a route. Nothing of it changes what the route does."""

    operation_id: ShortText | None = Field(None, description="A name for the operation, for generated clients.")
    summary: ShortText | None = Field(None, description="What it does, in a few words.")
    description: Text | None = Field(None, description="What it does, in CommonMark.")
    tags: list[ShortText] = Field(default_factory=list, max_length=20, description="Groups that it belongs to.")
    deprecated: bool = Field(False, description="Whether clients should stop using it.")
    responses: dict[Status, ResponseDoc] = Field(
        default_factory=dict, max_length=50, description="By status, 4XX or default: what it answers."
    )
