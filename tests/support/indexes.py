"""A package index on this machine: PEP 503's pages over plain HTTP."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class PackageIndex:
    """Serves wheels by name; `asked` are the paths that were asked for."""

    def __init__(self, wheels: dict[str, bytes]) -> None:
        self.wheels = wheels
        self.asked: list[str] = []
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index.asked.append(self.path)
                content = index.page(self.path)
                self.send_response(404 if content is None else 200)
                self.send_header("content-type", "text/html" if self.path.endswith("/") else "application/zip")
                self.end_headers()
                self.wfile.write(content or b"")

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/simple"

    def page(self, path: str) -> bytes | None:
        name = path.strip("/").split("/")[-1]
        if name in self.wheels:
            return self.wheels[name]
        found = [file for file in self.wheels if file.split("-")[0] == name.replace("-", "_")]
        links = "".join(f'<a href="/files/{file}">{file}</a>' for file in found)
        return f"<!DOCTYPE html><html><body>{links}</body></html>".encode() if found else None


@contextmanager
def serving(wheels: dict[str, bytes]) -> Iterator[PackageIndex]:
    index = PackageIndex(wheels)
    thread = threading.Thread(target=index.server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield index
    finally:
        index.server.shutdown()
        thread.join()
        index.server.server_close()
