"""What a gateway's file says of compression."""

from typing import Literal

from pydantic import Field

from owsgit.gateway.compression import Compression
from owsgit.model.spec import Document


class CompressionSpec(Document):
    """Responses are compressed for clients that accept it; requests that came compressed are decompressed."""

    minimum_size: int = Field(
        1024, ge=0, le=10_485_760, description="Bytes from which on a response is compressed; streams always are."
    )
    encodings: list[Literal["br", "zstd", "gzip"]] = Field(
        ["br", "zstd", "gzip"],
        min_length=1,
        max_length=3,
        description="Content codings, the preferred first; the client's own preferences count more.",
    )

    def step(self) -> Compression:
        return Compression(self.minimum_size, list(dict.fromkeys(self.encodings)))
