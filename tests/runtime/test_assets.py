"""Assets: files that are fetched by address, and believed by digest."""

import hashlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from owsgit.model.errors import InvalidError, UnavailableError
from owsgit.runtime import assets
from owsgit.runtime.assets import Asset, AssetStore, ForbiddenError

CONTENT = b"content" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Web:
    """A server that answers as its path says."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.asked.append(self.path)
                word, _, rest = self.path.strip("/").partition("/")
                if word == "to":
                    self.send_response(302)
                    self.send_header("location", rest if "://" in rest else f"/{rest}")
                    self.end_headers()
                elif word == "file":
                    self.send_response(200)
                    self.send_header("content-length", str(len(CONTENT)))
                    self.end_headers()
                    self.wfile.write(CONTENT)
                elif word == "short":
                    self.send_response(200)
                    self.send_header("content-length", str(len(CONTENT) + 1))
                    self.end_headers()
                    self.wfile.write(CONTENT)
                elif word == "loop":
                    self.send_response(301)
                    self.send_header("location", "/loop")
                    self.end_headers()
                else:
                    self.send_error(404)

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def web() -> Iterator[Web]:
    made = Web()
    yield made
    made.close()


@pytest.fixture
def store(tmp_path: Path) -> AssetStore:
    return AssetStore(tmp_path, private=True)


def test_an_asset_is_fetched_once_and_again_if_it_was_changed(web: Web, store: AssetStore) -> None:
    for _ in range(2):
        path = store.fetch(Asset(f"{web.url}/file", DIGEST))
    assert path.read_bytes() == CONTENT and web.asked == ["/file"]
    path.chmod(0o644)
    path.write_bytes(b"evil")
    assert store.fetch(Asset(f"{web.url}/to/file", DIGEST)).read_bytes() == CONTENT
    assert web.asked == ["/file", "/to/file", "/file"]


def test_another_content_than_the_digest_speaks_of_is_refused(web: Web, store: AssetStore) -> None:
    with pytest.raises(InvalidError, match=f"its sha256 is {DIGEST}"):
        store.fetch(Asset(f"{web.url}/file", "0" * 64))
    assert not list(store.folder.iterdir())


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/none", "the answer is 404"),
        ("/short", "ended too early"),
        ("/loop", "more than 5 redirects"),
    ],
)
def test_what_goes_wrong_is_told_with_the_address(web: Web, store: AssetStore, path: str, message: str) -> None:
    with pytest.raises(UnavailableError, match=f"{path} cannot be fetched: .*{message}"):
        store.fetch(Asset(web.url + path, DIGEST))
    assert not list(store.folder.iterdir())


def test_a_server_that_is_not_there_is_told(store: AssetStore) -> None:
    with pytest.raises(UnavailableError, match=r"cannot be fetched: .*refused"):
        store.fetch(Asset("http://127.0.0.1:9/x", DIGEST))


def test_what_is_too_large_is_not_fetched_whole(web: Web, store: AssetStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "UNPACKED_BYTES_MAX", 1000)
    with pytest.raises(UnavailableError, match="more than"):
        store.fetch(Asset(f"{web.url}/file", DIGEST))


def test_a_server_that_trickles_is_given_up(store: AssetStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "FETCH_SECONDS_MAX", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def trickle() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                try:
                    connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
                    while True:
                        connection.sendall(b"x")
                        threading.Event().wait(0.01)
                except OSError:
                    return

        thread = threading.Thread(target=trickle)
        thread.start()
        with pytest.raises(UnavailableError, match="not there after"):
            store.fetch(Asset(f"http://127.0.0.1:{server.getsockname()[1]}/x", DIGEST))
        thread.join()


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:1/", "http://localhost:1/", "http://[::1]:1/", "http://10.0.0.1/", "http://192.168.1.1/", "http://[::ffff:127.0.0.1]:1/", "http://2130706433:1/"],
)  # fmt: skip
def test_the_nodes_own_network_is_out_of_reach(tmp_path: Path, url: str) -> None:
    with pytest.raises(ForbiddenError, match="not of the internet"):
        AssetStore(tmp_path).fetch(Asset(url, DIGEST))


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://[::ffff:169.254.169.254]/",
        "http://[fe80::1]/",
        "http://[fd00:ec2::254]/",
        "http://0.0.0.0:1/",
    ],
)
def test_metadata_services_are_out_of_reach_always(store: AssetStore, web: Web, url: str) -> None:
    for start in (url, f"{web.url}/to/{url}"):
        with pytest.raises(ForbiddenError, match="metadata"):
            store.fetch(Asset(start, DIGEST))


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_a_redirect_leads_to_http_only(store: AssetStore, web: Web, url: str) -> None:
    with pytest.raises(ForbiddenError, match="not an address of HTTP"):
        store.fetch(Asset(f"{web.url}/to/{url}", DIGEST))


def test_old_assets_and_what_a_killed_node_left_are_swept(store: AssetStore) -> None:
    for number in range(assets.SPARE_MAX + 2):
        (store.folder / f"{number:064d}").touch()
    (store.folder / ".x.0.1.new").touch()
    store.sweep()
    assert len(list(store.folder.iterdir())) == assets.SPARE_MAX
