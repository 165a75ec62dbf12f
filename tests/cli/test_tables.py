"""`owsgit tables`: items go out of tables and into tables, through a real node."""

import base64
import gzip
import json
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import click
import pytest
import zstandard
from botocore.credentials import Credentials

from owsgit.cli import dynamodb, item_files, tables
from owsgit.cli import owsgit as group
from owsgit.cli.dynamodb import ApiError, DynamoDb
from owsgit.model.errors import InvalidError, OwsgitError, UnavailableError
from tests.services.tables.api import document
from tests.support.nodes import OWSGIT, Node
from tests.support.people import Person
from tests.support.projects import Project
from tests.support.sdk import endpoint, node_for_sdks, serving, session

NAMES = ("orders", "copy", "other", "again", "wide", "moved", "bad", "piped", "profiled", "cut")
EVERY_TYPE = {
    "pk": {"S": 'Ω\u2028\n"'},
    "sk": {"S": "all"},
    "n": {"N": "-12345678901234567890123456789012345678"},
    "b": {"B": base64.b64encode(bytes(range(256))).decode()},
    "m": {"M": {"l": {"L": [{"NULL": True}, {"BOOL": False}, {"SS": ["a", "b"]}]}}},
    "ns": {"NS": ["1", "2.5"]},
    "bs": {"BS": ["AA==", "/w=="]},
}


def item(number: int, **more: Any) -> dict[str, Any]:
    return {"pk": {"S": f"shop {number % 7}"}, "sk": {"S": f"{number:05}"}, **more}


def lines(*items: Any) -> bytes:
    return b"".join(json.dumps({"Item": each}).encode() + b"\n" for each in items)


class Shop:
    """Calls the command line as alice would in her clone, in this process."""

    def __init__(self, project: Project, node: Node) -> None:
        self.project, self.node = project, node

    def __call__(self, *words: str) -> Any:
        return group.main(["tables", *words[:1], "-C", str(self.project.folder), *words[1:]], standalone_mode=False)

    def items(self, table: str) -> list[Any]:
        """All that is in a table, by key."""
        from owsgit.ledger.repository import Clone

        api = dynamodb.of_node(Clone(self.project.folder), None, None)
        found: list[Any] = []
        after: dict[str, Any] = {}
        while True:
            page = api.call("Scan", {"TableName": table, **after})
            found += page["Items"]
            if "LastEvaluatedKey" not in page:
                return ordered(found)
            after = {"ExclusiveStartKey": page["LastEvaluatedKey"]}


def ordered(items: list[Any]) -> list[Any]:
    return sorted(items, key=lambda each: (each["pk"]["S"], each["sk"]["S"]))


def exported(file: Path) -> list[Any]:
    data = file.read_bytes()
    if file.name.endswith(".gz"):
        data = gzip.decompress(data)
    elif file.name.endswith(".zst"):
        data = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()
    return ordered([json.loads(line)["Item"] for line in data.splitlines()])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, alice: Person) -> Iterator[tuple[Project, Node]]:
    folder = tmp_path_factory.mktemp("moving")
    node = node_for_sdks(folder, alice)
    with serving(folder, node, {f"tables/{name}.json": document() for name in NAMES}) as project:
        yield project, node


@pytest.fixture
def shop(place: tuple[Project, Node], alice: Person, monkeypatch: pytest.MonkeyPatch) -> Shop:
    for name, value in alice.environment.items():
        monkeypatch.setenv(name, value)
    return Shop(*place)


class Line:
    """The line to the node: it counts requests, and breaks after so many of one operation."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.operation, self.most = "", 0

    def breaks_after(self, operation: str, most: int) -> None:
        self.operation, self.most = operation, most
        self.requests.clear()

    def take(self, operation: str, body: bytes) -> None:
        if operation == self.operation:
            if len(self.requests) >= self.most:
                raise ApiError("AccessDeniedException", "so far, and no further")
            self.requests.append(json.loads(body))


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Line:
    made, answer = Line(), DynamoDb._answer

    def answered(self: DynamoDb, operation: str, body: bytes) -> dict[str, Any]:
        made.take(operation, body)
        return answer(self, operation, body)

    monkeypatch.setattr(DynamoDb, "_answer", answered)
    monkeypatch.setattr(tables, "CHECKPOINT_SECONDS", 0.0)
    return made


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_what_is_exported_is_imported_as_it_was(shop: Shop, tmp_path: Path, suffix: str) -> None:
    source, there, back = tmp_path / "given", tmp_path / f"orders{suffix}", tmp_path / f"copy{suffix}"
    items = ordered([EVERY_TYPE, *(item(number) for number in range(60))])
    source.write_bytes(lines(*items))
    shop("import", "orders", str(source))
    shop("export", "orders", str(there))
    shop("import", "copy", str(there))
    shop("export", "copy", str(back), "--segments", "1")
    assert exported(there) == exported(back) == items
    assert sorted(tmp_path.iterdir()) == sorted([source, there, back]), "nothing else is left"
    with pytest.raises(InvalidError, match="the file is there"):
        shop("export", "orders", str(there))


def test_an_export_that_was_interrupted_goes_on(shop: Shop, tmp_path: Path, line: Line) -> None:
    source, file = tmp_path / "given", tmp_path / "wide.json.gz"
    items = [item(number, fat={"S": "x" * 200_000}) for number in range(24)]
    source.write_bytes(lines(*items))
    shop("import", "wide", str(source))
    line.breaks_after("Scan", 3)
    with pytest.raises(ApiError, match="so far"):
        shop("export", "wide", str(file), "--segments", "2")
    part = tmp_path / "wide.json.gz.part"
    assert not file.exists() and part.stat().st_mode & 0o077 == 0
    part.write_bytes(part.read_bytes() + b"what a crash leaves")
    with pytest.raises(InvalidError, match="compression differs"):
        shop("export", "wide", str(file), "--compression", "none")
    kept = part.read_bytes()
    part.unlink()
    with pytest.raises(InvalidError, match="before is gone"):
        shop("export", "wide", str(file))
    part.write_bytes(kept)
    line.breaks_after("Scan", 100)
    shop("export", "wide", str(file))
    assert exported(file) == ordered(items)
    assert any("ExclusiveStartKey" in each for each in line.requests[:2]), "not from the beginning"
    assert {each["TotalSegments"] for each in line.requests} == {2}, "in the segments that it was begun in"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["given", "wide.json.gz"]


def test_an_export_may_be_interrupted_within_a_line(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, file = tmp_path / "given", tmp_path / "orders"
    source.write_bytes(lines(item(1), item(2)))
    shop("import", "cut", str(source))
    write = item_files.Writing.write

    def cut(self: item_files.Writing, items: Any) -> None:
        self._raw.write(b'{"Item": {"pk"')
        raise KeyboardInterrupt

    monkeypatch.setattr(item_files.Writing, "write", cut)
    with pytest.raises(click.Abort):
        shop("export", "cut", str(file))
    monkeypatch.setattr(item_files.Writing, "write", write)
    shop("export", "cut", str(file))
    assert exported(file) == ordered([item(1), item(2)])


def test_an_import_that_was_interrupted_goes_on(shop: Shop, tmp_path: Path, line: Line) -> None:
    file, checkpoint = tmp_path / "given.gz", tmp_path / "given.gz.again.checkpoint"
    items = [item(number) for number in range(1000)]
    file.write_bytes(gzip.compress(lines(*items)))
    line.breaks_after("BatchWriteItem", 30)
    with pytest.raises(ApiError, match="so far"):
        shop("import", "again", str(file))
    reached = json.loads(checkpoint.read_bytes())["reached"]
    assert 0 < reached["items"] == reached["line"] <= 750
    line.breaks_after("BatchWriteItem", 1000)
    shop("import", "again", str(file))
    assert len(line.requests) == (1000 - reached["items"]) // 25, "what is there is not written again"
    assert shop.items("again") == ordered(items)
    assert not checkpoint.exists()
    line.breaks_after("BatchWriteItem", 30)
    with pytest.raises(ApiError):
        shop("import", "again", str(file))
    file.write_bytes(gzip.compress(lines(*items[1:])))
    with pytest.raises(InvalidError, match="another thing: file differs"):
        shop("import", "again", str(file))
    line.breaks_after("BatchWriteItem", 1000)
    shop("import", "again", str(file), "--restart")
    assert len(line.requests) == 40


def test_of_lines_about_one_item_the_last_one_counts(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "given"
    file.write_bytes(lines(*(item(number % 3, times={"N": str(number)}) for number in range(40))))
    shop("import", "other", str(file))
    assert [each["times"]["N"] for each in shop.items("other")] == ["39", "37", "38"]


def manifest(folder: Path, **files: Any) -> None:
    """An export of DynamoDB's to S3, as it lies in its folder."""
    (folder / "data").mkdir(parents=True)
    entries = []
    for name, given in files.items():
        (folder / f"data/{name}.json.gz").write_bytes(
            gzip.compress(b"".join(json.dumps(each).encode() + b"\n" for each in given))
        )
        key = f"AWSDynamoDB/01693685827463-2d8752fd/data/{name}.json.gz"
        entries.append(json.dumps({"itemCount": len(given), "md5Checksum": "", "etag": "", "dataFileS3Key": key}))
    (folder / "manifest-files.json").write_text("\n".join(entries) + "\n")
    (folder / "manifest-summary.json").write_text(
        json.dumps({"version": "2020-06-30", "outputFormat": "DYNAMODB_JSON"})
    )


def test_exports_of_dynamodb_are_imported_full_and_incremental(shop: Shop, tmp_path: Path) -> None:
    full, later = tmp_path / "full", tmp_path / "later"
    manifest(full, a=[{"Item": item(1)}, {"Item": item(2)}], b=[{"Item": item(3)}], empty=[])
    shop("import", "moved", str(full))
    assert shop.items("moved") == ordered([item(1), item(2), item(3)])
    stamp = {"Metadata": {"WriteTimestampMicros": "1680109764000000"}}
    changed = {**stamp, "Keys": item(1), "OldImage": item(1), "NewImage": item(1, new={"BOOL": True})}
    manifest(
        later,
        c=[changed, {**stamp, "Keys": item(2), "OldImage": item(2)}, {**stamp, "Keys": item(4), "NewImage": item(4)}],
    )
    shop("import", "moved", str(later))
    assert shop.items("moved") == ordered([item(1, new={"BOOL": True}), item(3), item(4)])


def test_an_export_that_is_not_whole_or_not_readable_is_refused(shop: Shop, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    manifest(folder, a=[{"Item": item(1)}, {"Item": item(2)}])
    data, listed = folder / "data/a.json.gz", folder / "manifest-files.json"
    listed.write_text(listed.read_text().replace('"itemCount": 2', '"itemCount": 3'))
    with pytest.raises(InvalidError, match="2 items, and the manifest says 3"):
        shop("import", "bad", str(folder))
    data.unlink()
    with pytest.raises(InvalidError, match="no such file"):
        item_files.parts(folder)
    (folder / "manifest-summary.json").write_text('{"outputFormat": "ION"}')
    with pytest.raises(InvalidError, match="the format 'ION'"):
        item_files.parts(folder)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InvalidError, match="no files of items"):
        item_files.parts(tmp_path / "nothing")


GOOD = lines(item(1))


@pytest.mark.parametrize(
    ("content", "where", "told"),
    [
        (GOOD + b"{", ":2", "this is not JSON"),
        (GOOD + b"\n[1]\n", ":3", "no object"),
        (b'{"Items": []}\n', ":1", "it has 'Items'"),
        (GOOD + lines({"pk": {"S": "a"}}), ":2", "no key attribute 'sk' of type S"),
        (GOOD + lines(item(2) | {"sk": {"N": "2"}}), ":2", "no key attribute 'sk' of type S"),
        (GOOD * 2 + lines(item(2, a={"N": "one"}), item(3)), ":3", "cannot be converted to a numeric value"),
        (GOOD + lines(item(2, a={"S": "x" * 410_000})), ":2", "Item size has exceeded"),
        (gzip.compress(GOOD * 100)[:-9], "", "cut off"),
        (zstandard.compress(GOOD * 100)[:-9], "", "cut off"),
        (zstandard.compress(GOOD) + b"\x28\xb5\x2f\xfd\xff\xff\xff\xff", "", "damaged"),
        (b'{"Item": {"pk": {"S": "' + b"x" * item_files.LINE_BYTES_MAX, ":1", "which no item has"),
    ],
    ids=["json", "object", "Item", "key", "type", "number", "size", "gzip", "zstd", "frame", "line"],
)
def test_what_is_wrong_is_told_with_its_file_and_line(
    shop: Shop, tmp_path: Path, content: bytes, where: str, told: str
) -> None:
    file = tmp_path / "given.json"
    file.write_bytes(content)
    with pytest.raises(InvalidError) as caught:
        shop("import", "bad", str(file))
    (problem,) = caught.value.problems
    assert problem.file == f"{file}{where}" and told in problem.message, problem


def test_a_table_that_is_not_there_has_to_be_committed(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="no table 'nope'") as caught:
        shop("export", "nope", str(tmp_path / "nope"))
    assert "commit tables/nope.json" in caught.value.problems[0].remedy
    with pytest.raises(InvalidError, match="a profile says itself"):
        shop("export", "orders", "-", "--profile", "aws", "--node", "a")
    with pytest.raises(InvalidError, match="the profile 'nowhere' cannot be used"):
        shop("export", "orders", "-", "--profile", "nowhere")


def test_a_profile_of_the_aws_cli_says_where_and_as_whom(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session(tmp_path, shop.project, shop.project.owner, monkeypatch)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint(shop.node))
    source, file = tmp_path / "given", tmp_path / "profiled.zst"
    source.write_bytes(lines(item(1), item(2)))
    shop("import", "profiled", str(source), "--profile", "shop")
    shop("export", "profiled", str(file), "--profile", "shop")
    assert exported(file) == ordered([item(1), item(2)])


def test_a_table_goes_through_a_pipe(shop: Shop, tmp_path: Path) -> None:
    source = tmp_path / "given"
    items = ordered([item(number) for number in range(40)])
    source.write_bytes(lines(*items))
    shop("import", "piped", str(source))
    folder, environment = shop.project.folder, shop.project.owner.environment
    first = subprocess.Popen(
        [*OWSGIT, "tables", "export", "piped", "-", "--compression", "zstd"],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    second = subprocess.run(
        [*OWSGIT, "tables", "import", "other", "/dev/stdin"],
        cwd=folder,
        env=environment,
        stdin=first.stdout,
        capture_output=True,
    )
    assert first.stderr is not None
    assert first.stderr.read() == b"exported 40 items of piped\n" and first.wait() == 0
    assert second.returncode == 0, second.stderr
    assert second.stdout.decode().startswith("imported 40 items of /dev/stdin into other") and not second.stderr
    assert [each for each in shop.items("other") if "times" not in each] == items


class Busy(BaseHTTPRequestHandler):
    """Answers as DynamoDB does when it has too much to do."""

    answers: ClassVar[list[tuple[int, dict[str, Any]]]] = []
    asked: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        self.asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        status, answer = self.answers.pop(0)
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *words: Any) -> None:
        pass


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> Iterator[DynamoDb]:
    monkeypatch.setattr(dynamodb, "PAUSE_SECONDS", 0.001)
    Busy.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Busy)
    Thread(target=server.serve_forever, daemon=True).start()
    yield DynamoDb(f"http://127.0.0.1:{server.server_port}", "us-east-1", Credentials("a", "b"))
    server.shutdown()
    server.server_close()


def test_what_passes_is_tried_again_and_what_is_not_processed_too(busy: DynamoDb, tmp_path: Path) -> None:
    from owsgit.cli.tables_import import _Import, _Reached

    described = {
        "TableArn": "arn", "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
        "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
    }  # fmt: skip
    puts = [{"PutRequest": {"Item": {"pk": {"S": name}}}} for name in ("a", "b")]
    Busy.answers = [
        (200, {"Table": described}),
        (400, {"__type": "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException", "message": "slow"}),
        (500, {"__type": "InternalServerError"}),
        (200, {"UnprocessedItems": {"orders": puts[1:]}}),
        (200, {"UnprocessedItems": {}}),
    ]
    file = tmp_path / "given"
    file.write_bytes(lines({"pk": {"S": "a"}}, {"pk": {"S": "b"}}))
    work = _Import(dynamodb.Table(busy, "orders"), item_files.Reading(item_files.parts(file)), None, _Reached(0, 0, 0))
    work.run()
    assert [each["RequestItems"]["orders"] for each in Busy.asked[1:]] == [puts, puts, puts, puts[1:]]
    Busy.answers = [(400, {"__type": "x#AccessDeniedException", "Message": "no"}), (200, {}), (503, {})]
    with pytest.raises(ApiError, match="AccessDeniedException: no"):
        busy.call("Scan", {})
    assert busy.call("Scan", {}) == {}
    with pytest.raises(UnavailableError):
        busy.call("Scan", {}, attempts=1)


def test_a_node_that_is_away_is_told(shop: Shop) -> None:
    away = DynamoDb("http://127.0.0.1:1", "us-east-1", Credentials("a", "b"))
    with pytest.raises(OwsgitError, match="does not answer"):
        away.call("Scan", {}, attempts=1)
