"""Issuers of tokens: OpenID Connect over real HTTP."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt import algorithms


class Issuer:
    """An OpenID Connect issuer: `keys` by id, as JWKs; `answers` overrides what a path is answered with."""

    def __init__(self) -> None:
        self.keys: dict[str, dict[str, Any]] = {}
        self.hits: list[str] = []
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.hits.append(self.path)
                status, headers, body = issuer.answers.get(self.path) or issuer.answer(self.path)
                self.send_response(status)
                for name, value in {**headers, "content-length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        if path == "/.well-known/openid-configuration":
            return 200, {}, json.dumps({"issuer": self.url, "jwks_uri": f"{self.url}/keys"}).encode()
        if path == "/keys":
            return (
                200,
                {"cache-control": "public, max-age=600"},
                json.dumps({"keys": list(self.keys.values())}).encode(),
            )
        return 404, {}, b""

    def add(self, id_: str, key: Any, **more: Any) -> None:
        made: dict[str, Any]
        if isinstance(key, rsa.RSAPrivateKey):
            made = algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
        elif isinstance(key, ec.EllipticCurvePrivateKey):
            made = algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
        else:
            made = algorithms.OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
        self.keys[id_] = {**made, "kid": id_, "use": "sig", **more}
        self.keys[id_].pop("key_ops", None)
