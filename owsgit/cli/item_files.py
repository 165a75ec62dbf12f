"""Files of items: DynamoDB JSON, an item a line, as DynamoDB's exports to S3 have them.

    {"Item": {"shop": {"S": "mine"}, "number": {"N": "1"}}}

An incremental export has changes instead: Keys, with the NewImage of the item, or without it if it was deleted.
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/S3DataExport.Output.html
"""

import gzip
import io
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import orjson
import zstandard

from owsgit.model.errors import InvalidError, UnavailableError

LINE_BYTES_MAX = 16 << 20
"""An item has 400 KB, as DynamoDB counts; its JSON has more, but a request has to have room for it."""
BUFFER_BYTES = 1 << 20
ZSTANDARD_WINDOW_BYTES_MAX = 128 << 20
"""What a frame may ask this machine to remember."""
ZSTANDARD_PIECE_BYTES = 2048
"""What is decompressed at once: at worst it becomes thirty thousand times as long."""
STDIO = "-"

Compression = Literal["none", "gzip", "zstd"]
SUFFIXES: Mapping[str, Compression] = {".gz": "gzip", ".zst": "zstd"}
_MAGIC: Mapping[bytes, Compression] = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}


@dataclass(frozen=True)
class Change:
    """What a line says: an item to put, or the key of one to delete. `place`: its file and line."""

    place: str
    line: int
    item: Mapping[str, Any] | None
    key: Mapping[str, Any] | None

    def request(self) -> dict[str, Any]:
        """As BatchWriteItem takes it."""
        return {"PutRequest": {"Item": self.item}} if self.item is not None else {"DeleteRequest": {"Key": self.key}}


@dataclass(frozen=True)
class Part:
    """A file of items; `items`: how many it has, where an export's manifest says that."""

    path: Path
    name: str
    items: int | None = None


def is_stream(path: Path) -> bool:
    """Whether it can be read once: standard input, or a pipe."""
    return str(path) == STDIO or (path.exists() and not path.is_file() and not path.is_dir())


def parts(path: Path) -> list[Part]:
    """The files of what is imported: one, or those of the folder of an export. Raises InvalidError."""
    if is_stream(path):
        return [Part(path, "standard input" if str(path) == STDIO else str(path))]
    if path.is_dir():
        found = list(_of_export(path))
        if not found:
            raise InvalidError(
                "the folder has no files of items", file=str(path), remedy="name the folder with manifest-files.json"
            )
    else:
        found = [Part(path, str(path))]
    for part in found:
        if not part.path.is_file():
            raise InvalidError("there is no such file", file=str(part.path), remedy="copy the export whole, or again")
    return found


def _of_export(folder: Path) -> Iterator[Part]:
    """By the manifest; where somebody has kept the data alone, all of that."""
    summary, manifest = folder / "manifest-summary.json", folder / "manifest-files.json"
    if summary.exists():
        form = _document(summary, summary.read_bytes()).get("outputFormat", "DYNAMODB_JSON")
        if form != "DYNAMODB_JSON":
            raise InvalidError(
                f"the export is in the format {form!r}",
                file=str(summary),
                path="$.outputFormat",
                remedy="export the table again with --export-format DYNAMODB_JSON",
            )
    if manifest.exists():
        for number, line in enumerate(manifest.read_bytes().splitlines(), 1):
            entry = _document(f"{manifest}:{number}", line)
            name, items = str(entry.get("dataFileS3Key", "")).rpartition("/")[2], entry.get("itemCount")
            if not name or not isinstance(items, int):
                raise InvalidError(
                    "this names no file with its dataFileS3Key and itemCount", file=f"{manifest}:{number}"
                )
            path = folder / "data" / name
            yield Part(path, str(path), items)
        return
    for place in (folder / "data", folder):
        found = [each for pattern in ("*.json", "*.json.gz", "*.json.zst") for each in place.glob(pattern)]
        if found:
            yield from (Part(each, str(each)) for each in sorted(found) if not each.name.startswith("manifest-"))
            return


class Reading:
    """Goes through the lines of files, one at a time. `bytes`: how much was read of the files, as they lie there."""

    def __init__(self, found: Iterable[Part]) -> None:
        self.parts = list(found)
        self.bytes = 0

    def changes(self, part: Part, after: int = 0) -> Iterator[Change]:
        """What the lines behind the `after` first ones say. Raises InvalidError that names file and line."""
        number = items = 0
        with _opened(part) as raw, _decompressed(raw) as stream:
            before = self.bytes
            for line in _lines(part, stream):
                number += 1
                if not line.strip():
                    continue
                items += 1
                self.bytes = before + (raw.tell() if raw.seekable() else 0)
                if number > after:
                    yield _change(f"{part.name}:{number}", number, line)
        if part.items is not None and items != part.items:
            raise InvalidError(
                f"the file has {items:,} items, and the manifest says {part.items:,}",
                file=part.name,
                remedy="copy the export whole, or again",
            )


@contextmanager
def _opened(part: Part) -> Iterator[io.BufferedReader]:
    if str(part.path) == STDIO:
        yield cast(io.BufferedReader, sys.stdin.buffer)
        return
    try:
        raw = part.path.open("rb")
    except OSError as error:
        raise UnavailableError(f"it cannot be read: {error.strerror}", file=part.name) from None
    with raw:
        yield raw


@contextmanager
def _decompressed(raw: io.BufferedReader) -> Iterator[BinaryIO]:
    """By how it begins, whatever it is called."""
    head = raw.peek(4)[:4]
    form = next((form for magic, form in _MAGIC.items() if head.startswith(magic)), "none")
    if form == "gzip":
        yield cast(BinaryIO, io.BufferedReader(gzip.GzipFile(fileobj=raw), BUFFER_BYTES))
    elif form == "zstd":
        yield cast(BinaryIO, io.BufferedReader(_Zstandard(raw), BUFFER_BYTES))
    else:
        yield raw


class _Zstandard(io.RawIOBase):
    """Reads frames behind each other. The library's own reader takes a file that was cut off for a whole one."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw, self._rest, self._out = raw, b"", b""
        self._frame: Any = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._out:
            if not self._more():
                return 0
        size = min(len(buffer), len(self._out))
        buffer[:size], self._out = self._out[:size], self._out[size:]
        return size

    def _more(self) -> bool:
        """Raises EOFError, ZstdError."""
        given = self._rest or self._raw.read(ZSTANDARD_PIECE_BYTES)
        self._rest = b""
        if not given:
            if self._frame is not None:
                raise EOFError("a frame has no end")
            return False
        if self._frame is None:
            self._frame = _DECOMPRESSOR.decompressobj()
        self._out = self._frame.decompress(given)
        if self._frame.eof:
            self._rest, self._frame = self._frame.unused_data, None
        return True


_DECOMPRESSOR = zstandard.ZstdDecompressor(max_window_size=ZSTANDARD_WINDOW_BYTES_MAX)


def _lines(part: Part, stream: BinaryIO) -> Iterator[bytes]:
    number = 0
    while True:
        try:
            line = stream.readline(LINE_BYTES_MAX + 1)
        except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
            raise InvalidError(
                f"the file is damaged, or was cut off, behind line {number}: {error}",
                file=part.name,
                remedy="copy it again",
            ) from None
        if not line:
            return
        number += 1
        if len(line) > LINE_BYTES_MAX:
            raise InvalidError(
                f"the line has more than {LINE_BYTES_MAX:,} bytes, which no item has",
                file=f"{part.name}:{number}",
                remedy='write one {"Item": ...} a line',
            )
        yield line


def _change(place: str, number: int, line: bytes) -> Change:
    document = _document(place, line)
    match document:
        case {"Item": dict(item)}:
            return Change(place, number, item, None)
        case {"Keys": dict(key), **rest}:
            image = rest.get("NewImage")
            return Change(place, number, image, None if image is not None else key)
    raise InvalidError(
        f"this is no item: it has {', '.join(sorted(map(repr, document))[:5]) or 'nothing'}",
        file=place,
        remedy='a line is {"Item": {...}}, as exports of DynamoDB in the format DYNAMODB_JSON have them',
    )


def _document(place: object, line: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise InvalidError(f"this is not JSON: {error}", file=str(place), remedy="write one object a line") from None
    if not isinstance(document, dict):
        raise InvalidError("this is JSON, but no object", file=str(place), remedy='write one {"Item": ...} a line')
    return document


def compression_of(name: str) -> Compression:
    """What a file is called for."""
    return next((form for suffix, form in SUFFIXES.items() if name.endswith(suffix)), "none")


class Writing:
    """Writes items into a file, which is good up to each `cut`: there a compressed member ends, and another begins."""

    def __init__(self, raw: BinaryIO, form: Compression) -> None:
        self._raw, self._form = raw, form
        self._member: Any = None

    def write(self, items: Iterable[Any]) -> None:
        """Raises OSError."""
        lines = b"".join(orjson.dumps({"Item": item}, option=orjson.OPT_APPEND_NEWLINE) for item in items)
        if self._form == "none":
            self._raw.write(lines)
            return
        if self._member is None:
            self._member = (
                gzip.GzipFile(filename="", fileobj=self._raw, mode="wb", compresslevel=6, mtime=0)
                if self._form == "gzip"
                else zstandard.ZstdCompressor().stream_writer(self._raw, closefd=False)
            )
        self._member.write(lines)

    def cut(self) -> None:
        """Have all that was written in the file, to be read on its own. Raises OSError."""
        if self._member is not None:
            self._member.close()
            self._member = None
        self._raw.flush()
