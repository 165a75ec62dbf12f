"""Files of a folder, through real HTTP."""

import gzip
from pathlib import Path

import brotli
import pytest

from owsgit.gateway.files import KEPT_BYTES_EACH_MAX, Contents, Files, Folder, Shelf, indexed
from owsgit.gateway.table import parse_key
from owsgit.model.service import LaidOut
from tests.gateway.served import Served, raw
from tests.support.gateways import deployed

LARGE = bytes(range(251)) * 4000
SCRIPT = b"console.log(1);\n" * 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    root = tmp_path_factory.mktemp("www")
    for path, content in {
        "index.html": b"<h1>home</h1>", "docs/index.html": b"<h1>docs</h1>", "docs/a b.txt": b"spaced",
        "404.html": b"<h1>none</h1>", "large.bin": LARGE, "app.js": SCRIPT, "app.js.gz": gzip.compress(SCRIPT),
        "app.js.br": brotli.compress(SCRIPT), ".env": b"secret", ".git/config": b"secret", "site.json": b"{}",
        ".well-known/security.txt": b"Contact: x", "empty/only.txt": b"", "logo.svg": b"<svg/>",
    }.items():  # fmt: skip
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    (root / "link").symlink_to("/etc/passwd")
    return indexed(root, "content", frozenset({"site.json"}))


def served(gateway: Served, shelf: Shelf, *keys: str) -> None:
    contents = Contents()
    gateway.handle([(key, Files(shelf, parse_key(key), contents)) for key in keys or ("ANY /www/{path+}", "GET /")])


@pytest.mark.parametrize(
    ("path", "kind", "body"),
    [
        ("/", "text/html; charset=utf-8", b"<h1>home</h1>"),
        ("/www/index.html", "text/html; charset=utf-8", b"<h1>home</h1>"),
        ("/www/docs/", "text/html; charset=utf-8", b"<h1>docs</h1>"),
        ("/www/docs/a%20b.txt", "text/plain; charset=utf-8", b"spaced"),
        ("/www/logo.svg", "image/svg+xml; charset=utf-8", b"<svg/>"),
        ("/www/large.bin", "application/octet-stream", LARGE),
        ("/www/empty/only.txt", "text/plain; charset=utf-8", b""),
        ("/www/.well-known/security.txt", "text/plain; charset=utf-8", b"Contact: x"),
    ],
)
def test_files_are_served_with_their_types(gateway: Served, folder: Folder, path: str, kind: str, body: bytes) -> None:
    served(gateway, Shelf(folder, cache_control="public, max-age=60"))
    for _ in range(2):
        response = gateway.client.get(path)
        assert response.status_code == 200 and response.content == body
        assert response.headers["content-type"] == kind and response.headers["cache-control"] == "public, max-age=60"
        assert response.headers["content-length"] == str(len(body)) and response.headers["accept-ranges"] == "bytes"
    if path != "/":
        head = gateway.client.head(path)
        assert head.status_code == 200 and head.content == b"" and head.headers["content-length"] == str(len(body))


@pytest.mark.parametrize(
    "path",
    [
        "/www/none", "/www/.env", "/www/.git/config", "/www/site.json", "/www/link", "/www/docs%2Findex.html",
        "/www/empty/", "/www/empty", "/www/index.html/", "/www/%00",
        "/www/..%2f..%2fetc/passwd", "/www/%2e%2e/%2e%2e/etc/passwd", "/www/..\\\\x", "/www/INDEX.HTML",
    ],
)  # fmt: skip
def test_nothing_else_is(gateway: Served, folder: Folder, path: str) -> None:
    served(gateway, Shelf(folder))
    answer = raw(gateway.port, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert answer.split(b" ")[1] in (b"404", b"400") and b"secret" not in answer and b"root:" not in answer


def test_other_methods_are_refused(gateway: Served, folder: Folder) -> None:
    served(gateway, Shelf(folder))
    response = gateway.client.post("/www/index.html")
    assert response.status_code == 405 and response.headers["allow"] == "GET, HEAD"


def test_a_folder_without_a_slash_leads_to_the_one_with_it(gateway: Served, folder: Folder) -> None:
    served(gateway, Shelf(folder))
    response = gateway.client.get("/www/docs?a=1")
    assert response.status_code == 302 and response.headers["location"] == "./docs/?a=1"
    assert str(response.next_request.url).endswith("/www/docs/?a=1")  # type: ignore[union-attr]


def test_what_was_not_found_and_single_pages(gateway: Served, folder: Folder) -> None:
    served(gateway, Shelf(folder, not_found="404.html", single_page=True), "$default")
    assert gateway.client.get("/users/1").text == "<h1>home</h1>"
    missing = gateway.client.get("/users/1.js")
    assert missing.status_code == 404 and missing.text == "<h1>none</h1>"
    assert gateway.client.get("/docs/").text == "<h1>docs</h1>"
    served(gateway, Shelf(folder, "docs", single_page=True), "GET /{path+}")
    assert gateway.client.get("/users").text == "<h1>docs</h1>"


def test_a_route_may_serve_one_file(gateway: Served, folder: Folder) -> None:
    served(gateway, Shelf(folder, "logo.svg"), "GET /favicon.ico")
    assert gateway.client.get("/favicon.ico").text == "<svg/>"


def test_conditional_requests(gateway: Served, folder: Folder) -> None:
    served(gateway, Shelf(folder, cache_control="no-cache"))
    first = gateway.client.get("/www/index.html").headers
    tag, modified = first["etag"], first["last-modified"]
    for headers, status in [
        ({"if-none-match": tag}, 304),
        ({"if-none-match": f'"other", W/{tag}'}, 304),
        ({"if-none-match": "*"}, 304),
        ({"if-none-match": '"other"'}, 200),
        ({"if-none-match": '"other"', "if-modified-since": modified}, 200),
        ({"if-modified-since": modified}, 304),
        ({"if-modified-since": "Thu, 01 Jan 1970 00:00:00 GMT"}, 200),
    ]:
        response = gateway.client.get("/www/index.html", headers=headers)
        assert response.status_code == status, headers
        assert response.headers["etag"] == tag and response.headers["cache-control"] == "no-cache"
        assert (response.content == b"") == (status == 304)


def test_ranges(gateway: Served, folder: Folder) -> None:
    served(gateway, Shelf(folder))
    client, path = gateway.client, "/www/large.bin"
    part = client.get(path, headers={"range": "bytes=10-19"})
    assert part.status_code == 206 and part.content == LARGE[10:20]
    assert part.headers["content-range"] == f"bytes 10-19/{len(LARGE)}" and part.headers["content-length"] == "10"
    assert client.get(path, headers={"range": "bytes=-5"}).content == LARGE[-5:]
    several = client.get(path, headers={"range": "bytes=0-1,100-101"})
    assert several.status_code == 206 and several.headers["content-type"].startswith("multipart/byteranges")
    assert LARGE[100:102] in several.content
    beyond = client.get(path, headers={"range": f"bytes={len(LARGE)}-"})
    assert beyond.status_code == 416 and beyond.headers["content-range"] == f"bytes */{len(LARGE)}"
    tag = part.headers["etag"]
    assert client.get(path, headers={"range": "bytes=0-4", "if-range": tag}).status_code == 206
    assert client.get(path, headers={"range": "bytes=0-4", "if-range": '"old"'}).content == LARGE


def test_what_was_compressed_beforehand_is_served_to_whom_takes_it(gateway: Served, folder: Folder) -> None:
    served(gateway, Shelf(folder))
    tags = set()
    for accepted, coding in [
        ("gzip, deflate, br", "br"),
        ("gzip", "gzip"),
        ("br;q=0, gzip;q=0.5", "gzip"),
        ("*", "br"),
        ("identity", None),
        ("", None),
    ]:
        response = gateway.client.get("/www/app.js", headers={"accept-encoding": accepted})
        assert response.headers.get("content-encoding") == coding and response.content == SCRIPT, accepted
        assert response.headers["vary"] == "accept-encoding"
        assert response.headers["content-type"] == "text/javascript; charset=utf-8"
        tags.add(response.headers["etag"])
    assert len(tags) == 3


def test_contents_are_kept_within_bounds(gateway: Served, folder: Folder) -> None:
    contents = Contents(most=60)
    for name in ("index.html", "docs/index.html", "404.html", "index.html", "app.js"):
        stored = folder.files[name]
        assert gateway.do(contents.read(stored)) == stored.path.read_bytes()
    assert contents._size <= 60 and sum(map(len, contents._kept.values())) == contents._size
    assert folder.files["large.bin"].size > KEPT_BYTES_EACH_MAX


def test_a_folder_is_indexed_once(folder: Folder, tmp_path: Path) -> None:
    assert indexed(tmp_path, "key") is indexed(tmp_path, "key") and not indexed(tmp_path, "key").files


def test_heads_of_files_take_of_the_same_bucket(tmp_path: Path) -> None:
    gateways = deployed(tmp_path / "home", routes={"GET /a": {"response": {"statusCode": 204}}})
    try:
        (tmp_path / "www").mkdir()
        (tmp_path / "www/a.txt").write_text("a")
        gateways.handler._site.websites["w"] = LaidOut("0" * 40, tmp_path / "www")
        throttle = {"rate": 0.001, "burst": 2}
        gateways.serve(routes={"GET /{path+}": {"files": {"website": "w"}, "throttle": throttle}})
        found = [gateways.client.request(method, "/a.txt").status_code for method in ("HEAD", "GET", "HEAD", "GET")]
        assert found == [200, 200, 429, 429]
    finally:
        gateways.close()
