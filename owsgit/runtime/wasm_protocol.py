"""What a node and its host of WebAssembly functions say to each other, and the limits that both keep.

Imported by the node and, alone with the other `wasm_` files that run in there, inside of the host's sandbox: standard
library only.

Frames over an inherited unix socket: a header (`HEADER`: length of the payload, kind, number of the request) and a
payload, which is one line of JSON and what follows it. The node sends LOAD (a module by its hash; the module itself if
the first answer was ABSENT) and gets READY, ABSENT or INIT_ERROR; and INVOKE (what the request may use, then the event)
and gets LOG any number of times (what the module wrote to stderr), then RESULT, FAILED or ABSENT. Answers come in any
order.
"""

import json
import struct
from typing import Any

BOOTSTRAP = "import sys; sys.path[:0] = sys.argv[3:]; from owsgit.runtime.wasm_host import main; main()"
"""What an interpreter runs to be a host: `-c BOOTSTRAP MODE FD FOLDER...`, with the folders of packages."""

SERVE, COMPILE, COMPILE_WITH_FUEL = "serve", "compile", "compile-with-fuel"
"""The modes."""

HEADER = struct.Struct("!IBI")
LOAD, READY, ABSENT, INIT_ERROR, INVOKE, LOG, RESULT, FAILED = range(1, 9)

MODULE_BYTES_MAX = 32 * 1024 * 1024
"""A module: whole language runtimes compiled to WebAssembly have about so much."""

RESPONSE_BYTES_MAX = 6 * 1024 * 1024 + 100
"""Lambda's limit for a synchronous response."""

OUTPUT_BYTES_MAX = 16 * 1024 * 1024
"""What a module can write to stdout, and to stderr, in one request; then writing fails in it with EFBIG."""

LOG_BYTES_MAX = 1024 * 1024 + 65536
"""Of stderr so much is handed on for one request: a little more than a node keeps, so that it says that it was cut."""

FRAME_BYTES_MAX = MODULE_BYTES_MAX + 1024 * 1024
COMPILE_SECONDS_MAX = 60
"""Compilation of one module; 32 MiB of plain code took 7 seconds on two busy cores."""

THREADS_MAX = 256
"""Requests that run at once in one host; a node has fewer workers."""

REQUEST_BYTES = 3 * OUTPUT_BYTES_MAX
"""What a request may use beside the module's memory: event, stdout, stderr and the copies that are sent."""


def pack(kind: int, number: int, about: Any, rest: bytes = b"") -> bytes:
    """A whole frame."""
    line = json.dumps(about).encode() + b"\n"
    return HEADER.pack(len(line) + len(rest), kind, number) + line + rest


def unpack(payload: bytes) -> tuple[Any, bytes]:
    """The line of JSON and what follows it. Raises ValueError."""
    line, _, rest = payload.partition(b"\n")
    return json.loads(line), rest
