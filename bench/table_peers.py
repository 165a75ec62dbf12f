"""Nodes and peers that answer as DynamoDB does, each a process with tables in it, and requests to them that are signed.

Peers are installed at the first use, into `.peers/`.
"""

import base64
import hashlib
import hmac
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from bench.gateway_peers import installed, running
from tests.support import people, projects
from tests.support.nodes import Node, free_port, owsgit

EXTENDDB = ("@extenddb/linux-x64@0.1.10",)
DYNALITE = ("dynalite@4.0.0",)
DYNOXIDE = ("@dynoxide/linux-x64@1.2.1",)
MINISTACK = ("ministack==1.5.33",)
REGION = "us-east-1"

Tables = Mapping[str, Any]
"""What tables there are to be, by their names, in the shape of our files."""


@dataclass(frozen=True)
class Target:
    """A server, and who asks it."""

    name: str
    port: int
    pid: int
    access_key: str = "AKIAXXXXXXXXXXXXXXXX"
    secret: str = field(default="secret", repr=False)
    token: str = field(default="", repr=False)

    def request(self, operation: str, document: Any) -> bytes:
        """A whole request, signed (Signature Version 4)."""
        body = json.dumps(document, default=_base64).encode()
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        headers = {
            "content-type": "application/x-amz-json-1.0",
            "host": f"127.0.0.1:{self.port}",
            "x-amz-date": now,
            "x-amz-target": f"DynamoDB_20120810.{operation}",
        }
        if self.token:
            headers["x-amz-security-token"] = self.token
        names = ";".join(sorted(headers))
        lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
        canonical = f"POST\n/\n\n{lines}\n{names}\n{hashlib.sha256(body).hexdigest()}"
        scope = f"{now[:8]}/{REGION}/dynamodb/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        key = f"AWS4{self.secret}".encode()
        for part in (*scope.split("/"), text):
            key = hmac.digest(key, part.encode(), "sha256")
        signed = f"AWS4-HMAC-SHA256 Credential={self.access_key}/{scope}, SignedHeaders={names}, Signature={key.hex()}"
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return (
            f"POST / HTTP/1.1\r\n{head}authorization: {signed}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
        )

    def ask(self, operation: str, document: Any) -> "Answer":
        """One request, on a connection of its own."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            connection.sendall(self.request(operation, document))
            response = http.client.HTTPResponse(connection)
            try:
                response.begin()
                return Answer(response.status, response.read())
            except (http.client.HTTPException, OSError) as error:
                raise OSError(f"{self.name} did not answer {operation} {document}: {error}") from error


class Answer(NamedTuple):
    status: int
    body: bytes


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


@contextmanager
def ours(folder: Path, tables: Tables, name: str = "ours", processes: int | None = None) -> Iterator[Target]:
    """A node with tables, and a user's credentials. `processes`: further ones for the front door, if not as many as it
    has by itself."""
    folder.mkdir(exist_ok=True)
    alice = people.make(folder, "alice")
    node = Node(folder / "node", alice, aws_port=free_port())
    files = {"nodes/a.json": node.init(), **{f"tables/{table}.json": each for table, each in tables.items()}}
    if processes is not None:
        settings = node.home / "node.json"
        settings.write_text(json.dumps({**json.loads(settings.read_text()), "awsProcesses": processes}))
    project = projects.create(folder / "shop", alice, files=files)
    node.start()
    try:
        project.git("push", "-q", node.url(), "HEAD:main")
        project.git("remote", "add", "origin", node.url())
        given = json.loads(owsgit("credentials", by=alice, cwd=project.folder).text)
        assert node.process is not None
        keys = given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"]
        yield Target(name, node.aws_port, node.process.pid, *keys)
    finally:
        node.stop()


def _capital(document: Any) -> Any:
    """The shape of CreateTable, from the shape of our file."""
    if isinstance(document, dict):
        return {name[:1].upper() + name[1:]: _capital(value) for name, value in document.items()}
    return [_capital(each) for each in document] if isinstance(document, list) else document


READY_SECONDS_MAX = 30


def create(target: Target, tables: Tables) -> Target:
    """The tables, at a peer."""
    for name, table in tables.items():
        given = {"TableName": name, "BillingMode": "PAY_PER_REQUEST", **_capital(table)}
        for index in given.get("GlobalSecondaryIndexes", []) + given.get("LocalSecondaryIndexes", []):
            index.setdefault("Projection", {"ProjectionType": "ALL"})
        answer = target.ask("CreateTable", given)
        assert answer.status == 200, answer.body
        deadline = time.monotonic() + READY_SECONDS_MAX
        while b'"CREATING"' in target.ask("DescribeTable", {"TableName": name}).body:
            assert time.monotonic() < deadline, f"{target.name} does not make the table {name}"
            time.sleep(0.05)
    return target


NPM = ["npm", "install", "--prefix", ".", "--no-audit", "--no-fund", "--ignore-scripts"]


def _installed(name: str, versions: tuple[str, ...], *commands: list[str]) -> Path:
    home = installed(name, versions, commands or [[*NPM, *versions]])
    if home is None:
        raise OSError(f"{name} cannot be installed")
    return home


@contextmanager
def dynalite(folder: Path, tables: Tables) -> Iterator[Target]:
    home = _installed("dynalite", DYNALITE)
    port = free_port()
    program = str(home / "node_modules/dynalite/cli.js")
    with running(["node", program, "--port", str(port), "--createTableMs", "1"], folder, port) as server:
        yield create(Target("dynalite", port, server.pid), tables)


@contextmanager
def dynoxide(folder: Path, tables: Tables) -> Iterator[Target]:
    """In memory."""
    program = _installed("dynoxide", DYNOXIDE) / "node_modules/@dynoxide/linux-x64/dynoxide"
    program.chmod(0o755)
    port = free_port()
    with running([str(program), "serve", "--port", str(port)], folder, port) as server:
        yield create(Target("dynoxide", port, server.pid), tables)


@contextmanager
def ministack(folder: Path, tables: Tables) -> Iterator[Target]:
    """In memory."""
    pip = ["bin/python", "-m", "pip", "install", "--quiet", *MINISTACK]
    home = _installed("ministack", MINISTACK, [sys.executable, "-m", "venv", "."], pip)
    port = free_port()
    program = ["env", f"GATEWAY_PORT={port}", "MINISTACK_HOST=127.0.0.1", str(home / "bin/ministack")]
    with running(program, folder, port) as server:
        yield create(Target("ministack", port, server.pid), tables)


@contextmanager
def extenddb(folder: Path, tables: Tables) -> Iterator[Target]:
    """On SQLite, with an account, a user and a policy of its own."""
    program = _installed("extenddb", EXTENDDB) / "node_modules/@extenddb/linux-x64/extenddb"
    program.chmod(0o755)
    environment = os.environ | {"HOME": str(folder)}

    def call(*words: str) -> str:
        done = subprocess.run(
            [program, *words], cwd=folder, env=environment, check=True, capture_output=True, text=True, timeout=60
        )
        return done.stdout

    said = call("init", "--sqlite-path", str(folder / "data.sqlite"), "--config", "e.toml")
    environment["EXTENDDB_PASSWORD"] = said.partition("Password: ")[2].split()[0]
    port = free_port()
    serve = [str(program), "serve", "--config", "e.toml", "--port", str(port), "--foreground"]
    with running(serve, folder, port) as server:
        manage = ("manage", "--user", "admin", "--config", "e.toml", "--endpoint", f"http://127.0.0.1:{port}")
        account = "123456789012"
        call(*manage, "create-account", "--account-id", account, "--account-name", "bench")
        call(*manage, "create-user", "--account-id", account, "--user-name", "bench")
        policy = {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Action": "dynamodb:*", "Resource": "*"}],
        }
        named = ("--account-id", account, "--user-name", "bench")
        call(*manage, "put-user-policy", *named, "--policy-name", "all", "--policy-document", json.dumps(policy))
        made = json.loads(call(*manage, "create-access-key", *named))
        mine = Target("extenddb", port, server.pid, made["access_key_id"], made["secret_access_key"])
        yield create(mine, tables)


Peer = Callable[[Path, Tables], AbstractContextManager[Target]]
PEERS: Mapping[str, Peer] = {"extenddb": extenddb, "dynalite": dynalite, "dynoxide": dynoxide, "ministack": ministack}
