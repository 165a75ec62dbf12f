"""A client of Node.js's inspector (Chrome DevTools Protocol): raw JSON in frames of a web socket, RFC 6455."""

import base64
import json
import os
import socket
import struct
from typing import Any

import httpx

from tests.support import nodes


class InspectorClient:
    """Attached to a port. Events that were not asked for yet are kept."""

    def __init__(self, port: int) -> None:
        (target,) = nodes.until(lambda: _targets(port))
        assert target["webSocketDebuggerUrl"].startswith(f"ws://127.0.0.1:{port}/"), target
        path = "/" + target["webSocketDebuggerUrl"].partition("//")[2].partition("/")[2]
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._file = self._socket.makefile("rwb")
        key = base64.b64encode(os.urandom(16)).decode()
        headers = [
            f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Upgrade: websocket", "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "", "",
        ]  # fmt: skip
        self._file.write("\r\n".join(headers).encode())
        self._file.flush()
        assert b" 101 " in self._file.readline()
        while self._file.readline() != b"\r\n":
            pass
        self._number = 0
        self._events: list[dict[str, Any]] = []

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a call."""
        self._number += 1
        data = json.dumps({"id": self._number, "method": method, "params": parameters}).encode()
        assert len(data) < 65536
        length = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + struct.pack("!H", len(data))
        self._file.write(b"\x81" + length + bytes(4) + data)  # a mask of zeros is one too
        self._file.flush()
        while True:
            message = self._receive()
            if message.get("id") == self._number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result
            self._events.append(message)

    def event(self, method: str) -> dict[str, Any]:
        """The parameters of the next event of that name."""
        while True:
            for index, message in enumerate(self._events):
                if message.get("method") == method:
                    found: dict[str, Any] = self._events.pop(index)["params"]
                    return found
            self._events.append(self._receive())

    def url_of(self, script: str) -> str:
        """Of a script that was told of."""
        while (found := self.event("Debugger.scriptParsed"))["scriptId"] != script:
            pass
        return str(found["url"])

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._file.close()
        self._socket.close()

    def _receive(self) -> dict[str, Any]:
        first = self._file.read(2)
        assert len(first) == 2, "the inspector is gone"
        length = first[1] & 0x7F
        if length == 126:
            (length,) = struct.unpack("!H", self._file.read(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self._file.read(8))
        message: dict[str, Any] = json.loads(self._file.read(length))
        return message


def _targets(port: int) -> Any:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/json", timeout=20).json()
    except httpx.HTTPError:
        return None
