"""Kept connections to a node's front door, and in which of its processes they are."""

import http.client
import io
import json
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.support.nodes import Node, owsgit, until
from tests.support.people import Person
from tests.support.processes import descendants
from tests.support.projects import Project

Document = Mapping[str, Any]


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def said(self) -> Any:
        return json.loads(self.body)


def keys(project: Project, by: Person) -> Credentials:
    """Of a user, for an hour."""
    done = owsgit("credentials", by=by, cwd=project.folder)
    assert done.status == 0, done.text
    given = json.loads(done.text)
    return Credentials(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])


class Kept:
    """One connection, for one request after the other."""

    def __init__(self, node: Node, credentials: Credentials, context: ssl.SSLContext | None = None) -> None:
        """`context`: with TLS."""
        self.node, self._credentials = node, credentials
        self._socket = socket.create_connection(("127.0.0.1", node.aws_port), timeout=30)
        if context is not None:
            self._socket = context.wrap_socket(self._socket, server_hostname="127.0.0.1")
        self._stream = _Stream(self._socket)

    def signed(self, operation: str, document: Document, target: str = "DynamoDB_20120810.") -> bytes:
        """A request of DynamoDB's, in the bytes that go over the wire: good for five minutes, as often as one likes."""
        headers = {"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": target + operation}
        return self.signed_for("dynamodb", "POST", "/", json.dumps(document).encode(), headers)

    def signed_for(self, service: str, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
        request = AWSRequest(method, f"http://127.0.0.1:{self.node.aws_port}{path}", dict(headers), body)
        SigV4Auth(self._credentials, service, "us-east-1").add_auth(request)
        lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{self.node.aws_port}"]
        lines += [f"{name}: {value}" for name, value in request.headers.items()]
        return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body

    def send(self, request: bytes) -> None:
        self._socket.sendall(request)

    def receive(self) -> Answer:
        response = http.client.HTTPResponse(self._socket)
        response.fp.close()
        response.fp = self._stream  # which may hold some of the next answer already
        response.begin()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())

    def ask(self, operation: str, document: Document, target: str = "DynamoDB_20120810.") -> Answer:
        self.send(self.signed(operation, document, target))
        return self.receive()

    @property
    def shown(self) -> bytes:
        """The certificate of the other end."""
        assert isinstance(self._socket, ssl.SSLSocket)
        return self._socket.getpeercert(binary_form=True) or b""

    @property
    def holder(self) -> int:
        """The process that has the other end."""
        return int(until(self._holder))

    def _holder(self) -> int:
        """0 for a moment in which it is none, or two: it is not accepted yet, or on its way from one to another."""
        own, theirs = self._socket.getsockname()[1], self.node.aws_port
        inodes = [
            fields[9]
            for fields in map(str.split, Path("/proc/net/tcp").read_text().splitlines()[1:])
            if fields[1].endswith(f":{theirs:04X}") and fields[2].endswith(f":{own:04X}")
        ]
        assert self.node.process is not None
        node = self.node.process.pid
        files = {f"socket:[{inode}]" for inode in inodes}
        found = [pid for pid in (node, *descendants(node)) if files & _open_files(pid)]
        return found[0] if len(found) == 1 else 0

    def close(self) -> None:
        self._socket.close()


class _Stream(io.BufferedReader):
    """What comes over a connection; a response does not close it at its end."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(socket.SocketIO(connection, "r"))

    def close(self) -> None:
        pass


def _open_files(pid: int) -> set[str]:
    found = set()
    for each in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.add(str(each.readlink()))
        except OSError:  # closed meanwhile
            continue
    return found


def press(wires: Sequence[Kept], request: bytes, over: Callable[[], bool]) -> None:
    """Send a request on all of them, again and again, until it is over; each has to be answered well."""
    while not over():
        for _ in range(20):
            for wire in wires:
                wire.send(request)
            for wire in wires:
                assert wire.receive().status == 200


def processes(node: Node) -> list[int]:
    """The further processes of a node's front door."""
    assert node.process is not None
    found = []
    for pid in descendants(node.process.pid):
        if b"owsgit.node.door_process" in Path(f"/proc/{pid}/cmdline").read_bytes():
            found.append(pid)
    return found


def moved(node: Node, credentials: Credentials, request: tuple[str, Document], count: int = 8) -> list[Kept]:
    """Connections that a further process has, by now; others are closed."""
    wires = [Kept(node, credentials) for _ in range(count)]
    assert node.process is not None
    own = node.process.pid
    press(wires, wires[0].signed(*request), lambda: any(wire.holder != own for wire in wires))
    there = until(lambda: [wire for wire in wires if wire.holder != own])
    for wire in wires:
        if wire not in there:
            wire.close()
    return list(there)
