"""A client of the Debug Adapter Protocol, as an editor has one: raw JSON over a socket."""

import json
import socket
import time
from typing import Any

from tests.support import nodes


class DebugClient:
    """Attached to a port. Events that were not asked for yet are kept."""

    def __init__(self, port: int) -> None:
        self._socket = nodes.until(lambda: _connected(port))
        self._socket.settimeout(30)
        self._file = self._socket.makefile("rwb")
        self._number = 0
        self._events: list[dict[str, Any]] = []

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """The body of the answer to a request."""
        self._number += 1
        asked = {"seq": self._number, "type": "request", "command": command, "arguments": arguments}
        data = json.dumps(asked).encode()
        self._file.write(b"Content-Length: %d\r\n\r\n" % len(data) + data)
        self._file.flush()
        while True:
            message = self._receive()
            if message["type"] == "event":
                self._events.append(message)
            elif message.get("request_seq") == self._number:
                assert message["success"], message
                body: dict[str, Any] = message.get("body", {})
                return body

    def event(self, name: str) -> dict[str, Any]:
        """The body of the next event of that name."""
        deadline = time.monotonic() + 30
        while True:
            for index, message in enumerate(self._events):
                if message["event"] == name:
                    found: dict[str, Any] = self._events.pop(index).get("body", {})
                    return found
            assert time.monotonic() < deadline
            message = self._receive()
            if message["type"] == "event":
                self._events.append(message)

    def attach(self, path: str, *lines: int) -> None:
        """As an editor does, with breakpoints at lines of a file."""
        self.ask("initialize", adapterID="debugpy", linesStartAt1=True, columnsStartAt1=True, pathFormat="path")
        self.ask("attach", justMyCode=False)
        self.event("initialized")
        points = self.ask("setBreakpoints", source={"path": path}, breakpoints=[{"line": line} for line in lines])
        assert [each["line"] for each in points["breakpoints"]] == list(lines)
        self.ask("configurationDone")

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._file.close()
        self._socket.close()

    def _receive(self) -> dict[str, Any]:
        length = 0
        while (line := self._file.readline()) != b"\r\n":
            assert line, "the debugger is gone"
            length = int(line.partition(b":")[2])
        message: dict[str, Any] = json.loads(self._file.read(length))
        return message


def _connected(port: int) -> socket.socket | None:
    try:
        return socket.create_connection(("127.0.0.1", port), timeout=5)
    except OSError:
        return None
