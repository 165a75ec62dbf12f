"""The integration with files: a folder that was laid out before, and does not change.

What can be asked for is found when the folder is deployed: a request's path is looked up among the paths that there
are, and never given to the file system. So nothing outside can be reached, whatever a path looks like.
"""

import asyncio
import hashlib
import mimetypes
import os
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote

from owsgit.gateway import asgi
from owsgit.gateway.conditional import is_among
from owsgit.gateway.encodings import negotiated
from owsgit.gateway.exchange import Exchange, Headers, RefusedError, Response
from owsgit.gateway.table import RouteKey
from owsgit.gateway.template import rest_of

KEPT_BYTES_EACH_MAX = 256 * 1024
"""Larger files are read from the disk each time."""

KEPT_BYTES_MAX = 32 * 1024 * 1024
"""Of all small files of a node that were asked for lately, in memory."""

PIECE_BYTES = 256 * 1024

_ENCODINGS = (("br", ".br"), ("zstd", ".zst"), ("gzip", ".gz"))
"""Content codings, the best first, and how the files end that have them."""

_TYPES = {
    ".avif": "image/avif", ".ico": "image/x-icon", ".js": "text/javascript", ".json": "application/json",
    ".md": "text/markdown", ".mjs": "text/javascript", ".wasm": "application/wasm", ".webmanifest":
    "application/manifest+json", ".webp": "image/webp", ".woff": "font/woff", ".woff2": "font/woff2",
}  # fmt: skip
"""What mimetypes does not know everywhere: it reads the machine's own tables, and nodes must not differ."""

_guesses = mimetypes.MimeTypes()


@dataclass(frozen=True)
class Stored:
    """One file, and what is said of it."""

    path: Path
    size: int
    modified: str  # as an HTTP date
    tag: str  # a strong ETag, of its content
    type: str
    encodings: "Mapping[str, Stored]"  # the same, compressed beforehand

    def headers(self) -> Headers:
        """Without its type, which is that of the file of which it may be a compressed form."""
        return [
            (b"etag", self.tag.encode()),
            (b"last-modified", self.modified.encode()),
            (b"accept-ranges", b"bytes"),
        ]


@dataclass(frozen=True)
class Folder:
    """The files of a folder by their path below it, and the folders in it ('' for itself)."""

    files: Mapping[str, Stored]
    folders: frozenset[str]


@lru_cache(maxsize=16)
def indexed(folder: Path, key: str, left_out: frozenset[str] = frozenset()) -> Folder:
    """The folder whose content is named by `key`. Names with a dot in front are not served, but for .well-known."""
    files: dict[str, Stored] = {}
    for root, names, found in os.walk(folder):
        names[:] = [name for name in names if not name.startswith(".") or name == ".well-known"]
        for name in found:
            path = Path(root, name)
            below = path.relative_to(folder).as_posix()
            if not name.startswith(".") and below not in left_out and not path.is_symlink():
                files[below] = _stored(path)
    for below, stored in files.items():
        encoded = {coding: files[below + suffix] for coding, suffix in _ENCODINGS if below + suffix in files}
        if encoded:
            files[below] = Stored(stored.path, stored.size, stored.modified, stored.tag, stored.type, encoded)
    folders = {parent.as_posix() for below in files for parent in Path(below).parents}
    return Folder(files, frozenset("" if each == "." else each for each in folders))


def _stored(path: Path) -> Stored:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        status = os.fstat(file.fileno())
    return Stored(path, status.st_size, formatdate(status.st_mtime, usegmt=True), f'"{digest[:32]}"', _type(path), {})


def _type(path: Path) -> str:
    kind = _TYPES.get(path.suffix.lower()) or _guesses.guess_type(path.name)[0] or "application/octet-stream"
    if kind.startswith("text/") or kind in ("application/json", "application/manifest+json", "image/svg+xml"):
        kind += "; charset=utf-8"
    return kind


class Contents:
    """Small files that were asked for lately, those of all gateways of a node."""

    def __init__(self, most: int = KEPT_BYTES_MAX) -> None:
        self._most, self._size = most, 0
        self._kept: OrderedDict[Path, bytes] = OrderedDict()  # by the path of a file that never changes

    async def read(self, stored: Stored) -> bytes:
        content = self._kept.get(stored.path)
        if content is not None:
            self._kept.move_to_end(stored.path)
            return content
        content = await asyncio.to_thread(stored.path.read_bytes)
        if stored.path not in self._kept:
            self._kept[stored.path] = content
            self._size += len(content)
        while self._size > self._most:
            self._size -= len(self._kept.popitem(last=False)[1])
        return content


@dataclass(frozen=True)
class Shelf:
    """How the files of a folder are served."""

    folder: Folder
    path: str = ""  # of a file, or of the folder that the rest of a request's path is below
    index: str = "index.html"
    not_found: str = ""  # the file that answers for those that there are not
    single_page: bool = False  # paths that look like no file get the index of `path`
    cache_control: str = ""


class Files:
    """Answers GET and HEAD with files."""

    def __init__(self, shelf: Shelf, key: RouteKey, contents: Contents) -> None:
        self._shelf, self._key, self._contents = shelf, key, contents
        self._takes_rest = key.greedy or key.text == "$default"
        self._cache = [(b"cache-control", shelf.cache_control.encode())] if shelf.cache_control else []

    async def __call__(self, exchange: Exchange) -> Response:
        if exchange.method not in ("GET", "HEAD"):
            raise RefusedError(405, "Method Not Allowed", headers=[(b"allow", b"GET, HEAD")])
        path, slash = self._path(exchange)
        shelf = self._shelf
        if path in shelf.folder.folders and self._indexed(path) is not None and not slash and self._takes_rest:
            return self._with_slash(exchange)
        stored = self._indexed(path) if slash or path in shelf.folder.folders else shelf.folder.files.get(path)
        if stored is None and shelf.single_page and "." not in path.rpartition("/")[2]:
            stored = self._indexed(shelf.path)
        if stored is not None:
            return await self._answer(exchange, stored)
        missing = shelf.folder.files.get(shelf.not_found)
        if missing is None:
            raise RefusedError(404, "Not Found")
        return Response(404, [(b"content-type", missing.type.encode())], await self._contents.read(missing))

    def _path(self, exchange: Exchange) -> tuple[str, bool]:
        """What is asked for, and whether as a folder."""
        if not self._takes_rest:
            return self._shelf.path, False
        segments = rest_of(exchange, self._key)
        if any("/" in segment for segment in segments):  # an encoded slash is part of no name
            raise RefusedError(404, "Not Found")
        slash = segments[-1] == ""
        below = "/".join(segments[:-1] if slash else segments)
        return "/".join(part for part in (self._shelf.path, below) if part), slash

    def _indexed(self, path: str) -> Stored | None:
        return self._shelf.folder.files.get(f"{path}/{self._shelf.index}" if path else self._shelf.index)

    def _with_slash(self, exchange: Exchange) -> Response:
        """Links in an index are relative to its folder. Only the last name is told: no client can make it a host."""
        location = f"./{quote(exchange.segments[-1], '')}/"
        if exchange.query:
            location += f"?{quote(exchange.query, _IN_QUERY, 'latin-1')}"
        return Response(302, [(b"location", location.encode()), *self._cache])

    async def _answer(self, exchange: Exchange, stored: Stored) -> Response:
        chosen, more = stored, list(self._cache)
        if stored.encodings:
            more.append((b"vary", b"accept-encoding"))
            if coding := _preferred(exchange.header(b"accept-encoding"), stored):
                chosen = stored.encodings[coding]
                more.append((b"content-encoding", coding.encode()))
        headers = [(b"content-type", stored.type.encode()), *chosen.headers(), *more]
        if _unchanged(exchange, chosen):
            return Response(304, [pair for pair in headers if pair[0] not in (b"content-type", b"accept-ranges")])
        if exchange.header(b"range"):
            return await _ranges(exchange, chosen, headers)
        if exchange.method == "HEAD":
            return Response(200, headers, b"", chosen.size)
        if chosen.size <= KEPT_BYTES_EACH_MAX:
            return Response(200, headers, await self._contents.read(chosen))
        return Response(200, headers, _pieces(chosen.path), chosen.size)


_IN_QUERY = "!$%&'()*+,-./:;=?@_~"


def _unchanged(exchange: Exchange, stored: Stored) -> bool:
    """RFC 9110 13.2.2. A date has to be the very one that was told, as nginx has it: dates differ between nodes."""
    if tags := exchange.header(b"if-none-match"):
        return is_among(stored.tag.encode(), tags)
    return exchange.header(b"if-modified-since") == stored.modified.encode()


async def _ranges(exchange: Exchange, stored: Stored, headers: Headers) -> Response:
    from starlette.responses import FileResponse  # noqa: PLC0415 - with anyio, which only this needs

    status = await asyncio.to_thread(stored.path.stat)
    kind = next(value.decode() for name, value in headers if name == b"content-type")
    texts = {name.decode(): value.decode() for name, value in headers if name != b"content-type"}
    app = FileResponse(stored.path, 200, texts, kind, stat_result=status)
    return await asgi.response_of(app, exchange)


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    file = await asyncio.to_thread(path.open, "rb", 0)
    try:
        while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
            yield piece
    finally:
        file.close()


def _preferred(accepted: bytes, stored: Stored) -> str:
    """The best coding of those that there are; empty for the file itself, also for who takes nothing that there is."""
    try:
        return negotiated(accepted.decode("latin-1"), tuple(stored.encodings))
    except LookupError:
        return ""
