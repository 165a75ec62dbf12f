"""A registry of container images on the loopback address, with one small image. Engines take it without TLS there.

https://distribution.github.io/distribution/spec/api/
"""

import gzip
import hashlib
import http.server
import io
import json
import tarfile
import threading
from typing import Any

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


class Registry:
    """Serves the image `uri`; `asked` are the paths that were asked for. A `broken` one sends another layer."""

    def __init__(self, entry_point: str, *, broken: bool = False) -> None:
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as archive:
            archive.addfile(tarfile.TarInfo("empty"))
        layer = gzip.compress(file.getvalue())
        config = json.dumps(
            {
                "architecture": "amd64", "os": "linux", "config": {"Entrypoint": [entry_point]},
                "rootfs": {"type": "layers", "diff_ids": [_digest(file.getvalue())]},
            }
        ).encode()  # fmt: skip
        kinds = ("application/vnd.docker.container.image.v1+json", "application/vnd.docker.image.rootfs.diff.tar.gzip")
        described = [
            {"mediaType": kind, "size": len(content), "digest": _digest(content)}
            for kind, content in zip(kinds, (config, layer), strict=True)
        ]
        manifest = json.dumps(
            {"schemaVersion": 2, "mediaType": MANIFEST, "config": described[0], "layers": described[1:]}
        ).encode()
        contents = {_digest(content): content for content in (config, layer, manifest)}
        if broken:
            contents[_digest(layer)] = gzip.compress(bytes(len(layer)))[: len(layer)].ljust(len(layer))
        self.asked: list[str] = []
        asked = self.asked

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                name = self.path.rpartition("/")[2]
                content = b"{}" if self.path == "/v2/" else contents.get(name, b"")
                self.send_response(200 if content else 404)
                self.send_header("Content-Type", MANIFEST if "/manifests/" in self.path else "application/octet-stream")
                self.send_header("Content-Length", str(len(content)))
                if name in contents:
                    self.send_header("Docker-Content-Digest", name)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content)

            do_HEAD = do_GET

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.uri = f"127.0.0.1:{self._server.server_port}/tests/image@{_digest(manifest)}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
