"""What can answer a route, other than a function: the fields of a route, and what has to be true of them together.

Whoever reads a ledger imports this file, the hook too: what checks a field is loaded where a file has that field.
"""

import base64
import binascii
import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from owsgit.gateway.table import DEFAULT, parse_key
from owsgit.model.names import NAME
from owsgit.model.spec import Document, Name, PlacedError
from owsgit.services.gateways.stages import resolved

if TYPE_CHECKING:
    import ssl

    from owsgit.services.gateways.spec import RouteSpec

BODY_CHARACTERS_MAX = 1024 * 1024
_ADDRESS = re.compile(
    r"https?://(?P<host>[A-Za-z0-9]([A-Za-z0-9._-]{0,252})|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(?P<rest>[/?][\x21-\x7e]*)?"
)
_NUMERIC = re.compile(r"(.*\.)?([0-9]+|0[xX][0-9A-Fa-f]*)")
_PATH = r"^/[\x21-\x7e]*$"

Path = Annotated[str, StringConstraints(pattern=_PATH, max_length=2048)]
FilePath = Annotated[
    str,
    StringConstraints(
        pattern=r"^([^/.\x00][^/\x00]*|\.well-known)(/([^/.\x00][^/\x00]*|\.well-known))*$", max_length=1024
    ),
]
Mapped = dict[Annotated[str, StringConstraints(max_length=256)], Annotated[str, StringConstraints(max_length=1024)]]


def _header_names(headers: dict[str, str]) -> dict[str, str]:
    from owsgit.gateway.mapping import HEADER_NAME, RESERVED, Expression  # noqa: PLC0415 - see above

    for name, value in headers.items():
        if not HEADER_NAME.fullmatch(name) or name.lower() in RESERVED:
            raise ValueError(f"{name!r} is no header that a response can set")
        if re.search(r"[\x00-\x08\x0a-\x1f\x7f]", value):
            raise ValueError(f"the header {name!r} has a control character")
        Expression(value)
    return headers


class TlsSpec(Document):
    """How the certificate of an https service is verified."""

    verify: bool = Field(True, description="Whether the certificate has to be valid, and of this name.")
    ca: str | None = Field(
        None, max_length=65_536, description="Certificates (PEM) of the authorities to trust instead of the system's."
    )

    @model_validator(mode="after")
    def _readable(self) -> Self:
        if self.ca is not None:
            if not self.verify:
                raise ValueError("ca is of no use where verify is false: remove one of the two")
            self.context()
        return self

    def context(self) -> "ssl.SSLContext | bool":
        """Raises ValueError if the certificates cannot be read."""
        import ssl  # noqa: PLC0415 - see above

        if self.ca is None:
            return self.verify
        try:
            return ssl.create_default_context(cadata=self.ca)
        except (ssl.SSLError, ValueError):
            raise ValueError("ca is not a certificate in PEM: -----BEGIN CERTIFICATE----- ...") from None


class HttpSpec(Document):
    """Another HTTP service: requests and responses are passed on as they come, in both directions."""

    uri: Annotated[str, StringConstraints(pattern=r"^(https?|\$\{)[\x21-\x7e]*$", max_length=2048)] = Field(
        description="Where requests go: http://10.0.0.5:9000/base/{proxy}. Path and query may have the {parameters} of "
        "the route ({proxy} of $default: the whole path), everything may have ${stageVariables.name}."
    )
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] | None = Field(
        None, description="The method of the request that is sent; without it, the client's."
    )
    connect_timeout: float = Field(5.0, gt=0, le=60, description="Seconds to connect in.")
    retries: int = Field(
        0,
        ge=0,
        le=5,
        description="Further attempts if there was no connection, or, for GET, HEAD, OPTIONS, PUT and DELETE, if it "
        "ended before anything of the response came.",
    )
    preserve_host: bool = Field(False, description="Whether the service sees the client's Host in place of its own.")
    tls: TlsSpec = Field(default_factory=TlsSpec, description="How an https service is verified.")


class ResponseSpec(Document):
    """A fixed response. Headers, and strings in a JSON body, may have ${context.requestId} and the like."""

    status_code: int = Field(200, ge=200, le=599, description="The status.")
    headers: Annotated[dict[str, str], AfterValidator(_header_names)] = Field(
        default_factory=dict, max_length=100, description="The headers."
    )
    body: str | dict[str, Any] | list[Any] = Field(
        "", description="The body: a text that is sent as it is, or a JSON object or list."
    )
    is_base64_encoded: bool = Field(False, description="Whether the text is base64 of the body.")

    @model_validator(mode="after")
    def _body(self) -> Self:
        from owsgit.gateway.fixed import FixedResponse  # noqa: PLC0415 - see above

        FixedResponse(self.status_code, self.headers, self.content())
        return self

    def content(self) -> bytes | dict[str, Any] | list[Any]:
        """Raises ValueError if it is not what it says."""
        if not isinstance(self.body, str):
            if self.is_base64_encoded:
                raise ValueError("only a text can be base64: remove isBase64Encoded")
            return self.body
        if len(self.body) > BODY_CHARACTERS_MAX:
            raise ValueError(f"the body has more than {BODY_CHARACTERS_MAX:,} characters: serve it from a website")
        if not self.is_base64_encoded:
            return self.body.encode()
        try:
            return base64.b64decode(self.body, validate=True)
        except binascii.Error:
            raise ValueError("body is not base64 although isBase64Encoded is true") from None


class RedirectSpec(Document):
    """Sends clients elsewhere."""

    location: Annotated[str, StringConstraints(pattern=r"^(https?://|/|\$\{)[\x21-\x7e]*$", max_length=2048)] = Field(
        description="An address, https://x.example/{proxy}, or a path of this host, /{proxy}."
    )
    status_code: Literal[301, 302, 303, 307, 308] = Field(
        302, description="301 and 308 are for good, 307 and 308 keep the method."
    )
    keep_query: bool = Field(True, description="Whether the query of the request is added.")


class FilesSpec(Document):
    """Static files of a website: GET and HEAD, with ranges, ETags and what is compressed beforehand (x.css.br, .gz)."""

    website: Name = Field(description="The website: websites/<name>/website.json with the files beside it.")
    path: FilePath | None = Field(
        None, description="The file that is served, or, where the route takes the rest of the path, the folder."
    )
    index: Annotated[str, StringConstraints(pattern=r"^[^/.\x00][^/\x00]*$", max_length=255)] = Field(
        "index.html", description="The file that is served for a folder."
    )
    not_found: FilePath | None = Field(None, description="The file that is served, with 404, for those there are not.")
    spa: bool = Field(
        False, description="Single-page application: a path without a dot that is no file is answered with the index."
    )
    cache_control: Annotated[str, StringConstraints(pattern=r"^[\x20-\x7e]*$", max_length=256)] | None = Field(
        None, description="The header Cache-Control, such as public, max-age=3600."
    )

    def needed(self, key: str) -> Iterator[tuple[str, tuple[str, ...]]]:
        """What the website has to have for the route `key`: by field, paths of which one is enough."""
        parsed = parse_key(key)
        index = f"{self.path}/{self.index}" if self.path else self.index
        if parsed.greedy or parsed.text == DEFAULT:
            if self.path is not None:
                yield "path", (f"{self.path}/",)
            if self.spa:
                yield "index", (index,)
        elif self.path is not None:
            yield "path", (self.path, index)
        else:
            yield "index", (index,)
        if self.not_found is not None:
            yield "notFound", (self.not_found,)


class InvokeSpec(Document):
    """Anything that can be invoked, by its kind and name. It gets the events that functions get."""

    kind: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z-]{0,40}$")] = Field(
        description="The kind of resource, such as function."
    )
    name: Annotated[str, StringConstraints(pattern=f"^{NAME.pattern}$")] = Field(description="Its name.")


def checked_address(text: str, what: str) -> None:
    """Raises ValueError if it is no http address whose host is a fixed one that a gateway may connect to."""
    from owsgit.gateway.upstream import is_forbidden  # noqa: PLC0415 - see above

    match = _ADDRESS.fullmatch(text)
    if match is None or (what == "http.uri" and "#" in text):
        raise ValueError(f"{what} {text!r} is not http(s)://host:port/path, with parameters in path and query alone")
    host = match["host"].strip("[]")
    if not match["host"].startswith("[") and _NUMERIC.fullmatch(host) and not _is_address(host):
        raise ValueError(f"{what} {text!r}: {host} is neither a name nor an IPv4 address of four numbers")
    if is_forbidden(host):
        raise ValueError(f"{what} {text!r}: no gateway connects to {host}, a link-local or multicast address")


def _is_address(host: str) -> bool:
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True


def templates(route: "RouteSpec") -> Iterator[tuple[str, str]]:
    """The texts of a route that may hold parameters of its path, each with the name of its field."""
    if route.http is not None:
        yield "http.uri", route.http.uri
    if route.redirect is not None:
        yield "redirect.location", route.redirect.location
    if route.rewrite is not None:
        yield "rewrite", route.rewrite


def missing_variable(who: str, stage: str) -> str:
    """What is told of a text that asks for more than the stage says."""
    return f"{who} names a variable that the stage {stage!r} does not have: add it to the stage's variables"


def check(key: str, route: "RouteSpec", variables: Mapping[str, str], stage: str) -> None:
    """Raises ValueError for what does not fit a route's key, or a stage's variables."""
    for field, written in templates(route):
        from owsgit.gateway.template import PathTemplate  # noqa: PLC0415 - see above

        at = ("routes", key, *field.split("."))
        text = resolved(written, variables)
        if "${" in text:
            raise PlacedError(missing_variable(f"route {key!r}: {field}", stage), *at)
        try:
            PathTemplate(text, parse_key(key))
            if field == "http.uri" or (field == "redirect.location" and not text.startswith("/")):
                checked_address(text, field)
            if field == "redirect.location" and text.startswith("//"):
                raise ValueError("redirect.location begins with //, which is another host: write https://...")
        except ValueError as error:
            raise PlacedError(f"route {key!r}: {error}", *at) from None


def mapped(written: dict[str, str]) -> dict[str, str]:
    if written:
        from owsgit.gateway.mapping import Changes  # noqa: PLC0415 - see above

        Changes.of(written, "request")
    return written


def mapped_responses(written: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    for changes in written.values():
        from owsgit.gateway.mapping import Changes  # noqa: PLC0415 - see above

        Changes.of(changes, "response")
    return written
