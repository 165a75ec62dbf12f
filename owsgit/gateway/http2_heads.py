"""Heads over HTTP/2: of requests as HTTP/1.1 would have them, and of responses in HPACK (RFC 7541)."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from hpack import Encoder

from owsgit.gateway.exchange import Headers

VALUES_MAX = 16
"""Of a header that are put into the table of a connection; then it is taken for one that changes each time."""

NAMES_MAX = 256
"""Of headers whose values are counted."""

TABLE_BYTES_MAX = 4096
"""Of HPACK's table of what was sent (RFC 7541 4.2)."""

_METHOD = re.compile(rb"[A-Z][A-Z-]{0,31}")
"""As HTTP/1.1's parser takes them: `post` would match no policy of POST, and be POST to what takes capitals of it."""

_TARGET = re.compile(rb"[\x21-\x7e]+")
_NAMES = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]*")
_VALUES = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
"""Bytes that HTTP/1.1's parser takes: a service behind a gateway gets them over HTTP/1.1, where a space would end the
target of a request. h2 refuses some of the others."""

_INDEXED = 0x80
"""The bit of a header that is in the table (RFC 7541 6.1)."""


class HeadEncoder(Encoder):
    """hpack's encoder, which finds again what it made of a header: most of a head is that of the one before it. What
    changes with each response (ids, lengths, dates) stays out of the table, from which it would push the rest."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[tuple[bytes, bytes], bytes] = {}  # what is in the tables, as they are now
        self._values: Counter[bytes] = Counter()  # how many of each name came into the table

    @property
    def header_table_size(self) -> int:
        """In bytes. A client may allow gigabytes, and has nothing to lose."""
        return self.header_table.maxsize

    @header_table_size.setter
    def header_table_size(self, value: int) -> None:
        size = min(value, TABLE_BYTES_MAX)
        if size != self.header_table.maxsize:  # the same again, and hpack forgets that its client has to be told
            self.header_table.maxsize = size
            self.table_size_changes.append(size)

    def encode(self, headers: Iterable[Any], huffman: bool = True) -> bytes:
        """Headers as pairs of bytes; never as Huffman's code, which takes longer than the bytes that it saves."""
        if self.header_table.resized:
            self._known.clear()
            return super().encode(headers, huffman=False)
        known = self._known
        return b"".join([known.get(pair) or self._encode(pair) for pair in headers])

    def _encode(self, pair: tuple[bytes, bytes]) -> bytes:
        values = self._values
        changes = values[pair[0]] >= VALUES_MAX or len(values) >= NAMES_MAX
        made = self.add(pair, sensitive=changes)
        if made[0] & _INDEXED:
            self._known[pair] = made
        elif not changes:  # it is new in the table, and all that is there has another number now
            self._known.clear()
            values[pair[0]] += 1
        return made


def read_head(pairs: Iterable[tuple[bytes, bytes]]) -> tuple[str, bytes, Headers] | None:
    """Method, target and headers of a request, as HTTP/1.1 would have them; None if they cannot be that."""
    pseudo: dict[bytes, bytes] = {}
    headers: Headers = []
    cookies: list[bytes] = []
    for name, value in pairs:
        name, value = bytes(name), bytes(value)  # noqa: PLW2901 - hpack's own kinds of tuples and bytes
        if name.startswith(b":"):
            pseudo[name] = value
        elif name == b"cookie":  # RFC 9113 8.2.3: in pieces, for the sake of compression
            cookies.append(value)
        else:
            headers.append((name, value))
    method, target = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
    if not _METHOD.fullmatch(method) or not _TARGET.fullmatch(target) or b":protocol" in pseudo:
        return None
    names, values = b"".join([name for name, _ in headers]), b"".join([value for _, value in headers])
    if not _NAMES.fullmatch(names) or not _VALUES.fullmatch(values + b"".join(cookies)):
        return None
    hosts = {value.lower() for name, value in headers if name == b"host"}
    if authority := pseudo.get(b":authority"):
        hosts.add(authority.lower())
    if len(hosts) != 1:
        return None
    headers = [(b"host", authority or hosts.pop()), *(pair for pair in headers if pair[0] != b"host")]
    if cookies:
        headers.append((b"cookie", b"; ".join(cookies)))
    return method.decode(), target, headers
