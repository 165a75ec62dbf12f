"""What a route's file says of caching, and the steps that it is made into."""

import hashlib
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Literal

import orjson
from pydantic import Field, StringConstraints

from owsgit.gateway.cache import Cached, CacheRule, Part, Store
from owsgit.gateway.conditional import conditional, tagged
from owsgit.gateway.exchange import Exchange, Step
from owsgit.gateway.payload import query_pairs
from owsgit.model.spec import Document

KEYS_MAX = 32
_KINDS = r"(method\.request\.|request\.)?(querystring|header|path)\."

KeyPart = Annotated[str, StringConstraints(pattern=rf"^{_KINDS}[A-Za-z0-9._~!$&'*+^`|%\[\]-]+$", max_length=200)]


class CacheSpec(Document):
    """How the responses of a route are kept, in the memory of each node."""

    ttl: int = Field(
        300, ge=0, le=3600, description="Seconds for which a response is answered again, unless it says less; 0 is off."
    )
    key: list[KeyPart] | None = Field(
        None,
        max_length=KEYS_MAX,
        description="What tells requests apart beside stage, host, method and path: querystring.page, "
        "header.accept-language, also with method.request. before; the whole query string by default.",
    )
    methods: list[Literal["GET", "HEAD", "OPTIONS"]] = Field(
        ["GET"], min_length=1, max_length=3, description="Methods whose responses are kept."
    )
    per_authorizer: bool = Field(
        True, description="Whether callers that the gateway told apart (authorizer, key, certificate) share nothing."
    )
    max_bytes: int = Field(1024 * 1024, ge=0, le=10 * 1024 * 1024, description="Larger responses are not kept.")
    invalidation: Literal["ignore", "authorized", "allow"] = Field(
        "ignore",
        description="Whose Cache-Control: max-age=0 has the response fetched anew: nobody's, that of callers whom an "
        "authorizer or a key let in, or everybody's.",
    )


def _of_query(name: str, exchange: Exchange) -> object:
    return tuple(value for key, value in query_pairs(exchange) if key == name)


def _of_header(name: bytes, exchange: Exchange) -> object:
    return tuple(value for key, value in exchange.headers if key == name)


def _of_path(name: str, exchange: Exchange) -> object:
    return exchange.parameters.get(name)


def _whole_query(exchange: Exchange) -> object:
    return exchange.query


def _part(text: str) -> Part:
    kind, _, name = text.removeprefix("method.").removeprefix("request.").partition(".")
    if kind == "querystring":
        return partial(_of_query, name)
    return partial(_of_header, name.lower().encode()) if kind == "header" else partial(_of_path, name)


def fingerprint(about: Sequence[object]) -> str:
    """A name for all that decides what a route answers: what is stored under another is not answered."""
    text = orjson.dumps(about, option=orjson.OPT_SORT_KEYS, default=str)
    return hashlib.blake2b(text, digest_size=16).hexdigest()


def steps(spec: CacheSpec | None, etag: bool, store: Store, api: str, print_: str) -> list[Step]:
    """The steps of a route, the outermost first; none for a route that asks for neither."""
    found: list[Step] = []
    caches = spec is not None and spec.ttl > 0
    if etag or caches:
        found.append(conditional)
    if spec is not None and caches:
        rule = CacheRule(
            api=api,
            fingerprint=print_,
            ttl=float(spec.ttl),
            parts=[_whole_query] if spec.key is None else [_part(text) for text in spec.key],
            methods=frozenset(spec.methods),
            per_caller=spec.per_authorizer,
            keyed_headers=frozenset(
                text.rpartition("header.")[2].lower().encode() for text in spec.key or () if "header." in text
            ),
            bytes_max=spec.max_bytes,
            invalidation=spec.invalidation,
        )
        found.append(Cached(store, rule))
    return [*found, tagged] if etag else found
