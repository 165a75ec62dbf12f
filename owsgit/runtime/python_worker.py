"""The managed Python runtime: runs inside of the sandbox, one request at a time.

Stand-alone on purpose: it is mounted alone into the sandbox and imports nothing but the standard library. The node
imports it for the constants of the protocol only.

Protocol (over an inherited unix socket): frames of a header (`HEADER`: length of the payload, kind, number of the
request) and a payload. The node sends INIT (JSON) once and gets READY or INIT_ERROR; then INVOKE (one line of JSON
about the request, then the event) gets RESULT or ERROR of the same number; before it may come CHUNKs, the pieces of a
streamed response, and before these its content type, HEAD. FATAL is an ERROR after which the worker ends by itself.

With a second socket, requests wait in it, several at once: packets of `PACKET` (kind, number) and what a frame's
payload would be. The worker takes one only to begin it, so the node can take back what was not begun. FRAMED stands for
an INVOKE that is too long for a packet and comes as a frame. Answers then come as RESULT, ERROR, or, if output of the
request is still unread, as RESULT_AND_OUTPUT, ERROR_AND_OUTPUT: then the worker waits for GO_ON, so that what it writes
next is not taken for that request's. The upper four bits of these kinds tell how long the handler took (`took`).

The behaviour towards handlers is AWS Lambda's:
https://docs.aws.amazon.com/lambda/latest/dg/python-handler.html and .../python-context.html
"""

from __future__ import annotations

import fcntl
import importlib
import importlib.machinery
import importlib.util
import json
import logging
import os
import socket
import struct
import sys
import termios
import time
import traceback
import types
from collections.abc import Callable, Iterable
from typing import Any

HEADER = struct.Struct("!IBI")
INIT, READY, INIT_ERROR, INVOKE, RESULT, ERROR, CHUNK, FATAL, FRAMED, GO_ON, RESULT_AND_OUTPUT, ERROR_AND_OUTPUT = (
    range(1, 13)
)
KIND_BITS = 4
WITH_OUTPUT = {RESULT: RESULT_AND_OUTPUT, ERROR: ERROR_AND_OUTPUT}
PACKET = struct.Struct("!BI")
HEAD = 15
RESPONSE_BYTES_MAX = 6 * 1024 * 1024 + 100
"""Lambda's limit for a synchronous response."""


OWN_FOLDERS = ("/opt/", "/var/lang/")
"""Where layers and packages are in the sandbox."""

NEEDED = frozenset(sys.modules) | {"python_worker"}
"""What this runtime itself has imported: a function's module of the same name comes too late, as on Lambda."""


PACKET_BYTES_MAX = 16 * 1024
"""Of a request that waits in the second socket."""

FIRST_READ_BYTES = 32 * 1024
"""What one call reads of a frame, its header included: most are smaller."""

DIGITS = bytes(ord("0") if ord("0") <= octet <= ord("9") else octet for octet in range(256))
LONG_NUMBER = b"0" * 19
"""A whole number may be larger than 64 bits hold if there is such a row of digits, once each digit is a 0."""

try:
    import orjson
except ImportError:  # a sandbox has it where this node's own interpreter runs
    orjson = None  # type: ignore[assignment]

LONG_TEXT_CHARACTERS = 4096

CHUNK_BYTES_MAX = 1024 * 1024
"""One piece of a streamed response; a larger one is cut, so that no frame is longer than an answer."""

HTTP_RESPONSE = "application/vnd.awslambda.http-integration-response"
"""The content type of a stream that begins with status and headers, as of Node's HttpResponseStream."""


class FunctionError(Exception):
    """An error of the function that Lambda names itself, such as Runtime.ImportModuleError."""

    def __init__(self, kind: str, message: str, stack: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.kind, self.message, self.stack = kind, message, list(stack)


class Record(dict):  # type: ignore[type-arg]  # subscripted only since Python 3.9
    """A dict whose items are attributes too: the context's identity and client."""

    __getattr__ = dict.get


class LambdaContext:
    """The `context` argument of a handler."""

    def __init__(self, about: Any, request: Any) -> None:
        self.function_name = about["functionName"]
        self.function_version = about["functionVersion"]
        self.invoked_function_arn = request["functionArn"]
        self.memory_limit_in_mb = str(about["memorySize"])
        self.aws_request_id = request["requestId"]
        self.log_group_name = about["logGroupName"]
        self.log_stream_name = about["logStreamName"]
        self.identity = Record(cognito_identity_id=None, cognito_identity_pool_id=None)
        given = request.get("clientContext")
        self.client_context = self._client_context(given) if given else None
        self.tenant_id = None
        self._deadline_ms = request.get("deadlineMs") or int(time.time() * 1000) + about["timeoutMs"]

    @staticmethod
    def _client_context(given: Any) -> Record:
        client = given.get("client") or {}
        names = ("installation_id", "app_title", "app_version_name", "app_version_code", "app_package_name")
        return Record(
            custom=given.get("custom"), env=given.get("env"), client=Record({name: client.get(name) for name in names})
        )

    def get_remaining_time_in_millis(self) -> int:
        return max(int(self._deadline_ms) - int(time.time() * 1000), 0)

    def log(self, message: object) -> None:
        sys.stdout.write(str(message))


class RequestFilter(logging.Filter):
    """Gives every log record the id of the request that is being served."""

    request_id = ""

    def filter(self, record: logging.LogRecord) -> bool:
        record.aws_request_id = self.request_id
        return True


class Channel:
    """The socket to the node, in whole frames."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(True)

    def receive(self) -> tuple[int, int, bytearray]:
        """The next frame. The node sends one only when the last is answered: nothing comes after it."""
        start = self._more(self._socket.recv(FIRST_READ_BYTES))
        while len(start) < HEADER.size:
            start += self._more(self._socket.recv(HEADER.size - len(start)))
        length, kind, number = HEADER.unpack_from(start)
        payload = bytearray(length)
        filled = len(start) - HEADER.size
        payload[:filled] = start[HEADER.size :]
        rest = memoryview(payload)[filled:]
        while rest:
            rest = rest[self._more(self._socket.recv_into(rest)) :]
        return kind, number, payload

    def go_on(self) -> None:
        """Wait for GO_ON. The next frame may lie behind it already."""
        start = b""
        while len(start) < HEADER.size:
            start += self._more(self._socket.recv(HEADER.size - len(start)))
        if HEADER.unpack(start)[1] != GO_ON:
            os._exit(2)

    @staticmethod
    def _more(received: Any) -> Any:
        if not received:
            os._exit(0)  # the node is gone, or has no more need of this worker
        return received

    def send(self, kind: int, number: int, payload: bytes) -> None:
        header = HEADER.pack(len(payload), kind, number)
        if len(payload) < FIRST_READ_BYTES:
            self._socket.sendall(header + payload)
        else:
            self._socket.sendall(header)
            self._socket.sendall(payload)


def load_handler(name: str) -> Callable[[Any, LambdaContext], Any]:
    """The handler that `module.function` (or `folder/module.function`) names. Raises FunctionError."""
    module_name, _, function_name = name.rpartition(".")
    if not module_name or not function_name:
        raise FunctionError("Runtime.MalformedHandlerName", f"Bad handler '{name}': not 'module.function'")
    try:
        module = importlib.import_module(module_name.replace("/", "."))
    except ImportError as error:
        raise FunctionError(
            "Runtime.ImportModuleError", f"Unable to import module '{module_name}': {error}", stack_of(error)
        ) from None
    except SyntaxError as error:
        text = f"Syntax error in module '{module_name}': {error}"
        raise FunctionError(
            "Runtime.UserCodeSyntaxError", text, [f'  File "{error.filename}" Line {error.lineno}\n    {error.text}']
        ) from None
    if not is_own(module):  # as os.getenv, which tells secrets
        text = f"Unable to import module '{module_name}': it is not part of the function's code"
        raise FunctionError("Runtime.ImportModuleError", text)
    try:
        handler: Callable[[Any, LambdaContext], Any] = getattr(module, function_name)
    except AttributeError:
        text = f"Handler '{function_name}' missing on module '{module_name}'"
        raise FunctionError("Runtime.HandlerNotFound", text) from None
    origin = sys.modules.get(getattr(handler, "__module__", None) or "")
    plain = isinstance(handler, (types.FunctionType, types.BuiltinFunctionType))
    if plain and origin is not None and not is_own(origin):
        text = f"Handler '{function_name}' of module '{module_name}' is not part of the function's code"
        raise FunctionError("Runtime.HandlerNotFound", text)
    return handler


def is_own(module: Any) -> bool:
    """Whether a module lies in the function's code, its layers or its packages."""
    more = [folder for folder in packages_folders() if folder.startswith(OWN_FOLDERS)]  # PYTHONPATH can say anything
    places = [os.environ.get("LAMBDA_TASK_ROOT") or ".", *more]
    roots = tuple(os.path.realpath(place) + os.sep for place in places)
    return os.path.realpath(getattr(module, "__file__", None) or "").startswith(roots)


def stack_of(error: BaseException) -> list[str]:
    """The traceback's frames that are the function's, as Lambda lists them."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename != __file__ and "importlib" not in frame.filename
    ]
    return traceback.format_list(frames)


def describe(error: BaseException, request_id: str) -> dict[str, Any]:
    """Lambda's error object."""
    if isinstance(error, FunctionError):
        kind, message, stack = error.kind, error.message, error.stack
    else:
        kind, message, stack = type(error).__name__, str(error), stack_of(error)
    return {"errorMessage": message, "errorType": kind, "requestId": request_id, "stackTrace": stack}


def encode(value: Any) -> bytes:
    """The response as JSON text; raises FunctionError as Lambda names it."""
    try:
        data = _encoded(value)
    except (TypeError, ValueError, RecursionError, UnicodeEncodeError) as error:
        raise FunctionError("Runtime.MarshalError", f"Unable to marshal response: {error}") from None
    if len(data) > RESPONSE_BYTES_MAX:
        limit = f"maximum allowed payload size ({RESPONSE_BYTES_MAX} bytes)"
        text = f"Response payload size ({len(data)} bytes) exceeded {limit}."
        raise FunctionError("Function.ResponseSizeTooLarge", text)
    return data


def _encoded(value: Any) -> bytes:
    """As json.dumps writes it. Long texts, as bodies of HTTP responses are, orjson writes alike and in a tenth of the
    time; the rest it would write without the spaces that clients get from Lambda."""
    if (
        type(value) is not dict
        or not any(map(_is_long, value.values()))
        or not all(type(name) is str for name in value)
    ):
        return _encoded_text(value)
    members = [_plainly(name) + b": " + _encoded_text(each) for name, each in value.items()]
    return b"{" + b", ".join(members) + b"}"


def _is_long(value: Any) -> bool:
    return type(value) is str and len(value) >= LONG_TEXT_CHARACTERS


def _encoded_text(value: Any) -> bytes:
    if orjson is not None and _is_long(value):
        try:
            return orjson.dumps(value)
        except TypeError:  # a lone surrogate, which json refuses in its own words
            pass
    return _plainly(value)


def _plainly(value: Any) -> bytes:
    return ENCODER.encode(value).encode("utf-8")


def decode(payload: bytes | bytearray, start: int) -> Any:
    """The event, as json.loads gives it. orjson is faster, but makes floats of whole numbers beyond 64 bits."""
    if orjson is None or LONG_NUMBER in payload.translate(DIGITS):
        return json.loads(payload[start:])
    try:
        return orjson.loads(memoryview(payload)[start:])
    except ValueError:  # NaN, lone surrogates, very deep: whatever json takes
        return json.loads(payload[start:])


def _unmarshalable(value: Any) -> Any:
    from decimal import Decimal  # noqa: PLC0415 - rarely needed, and a slow import

    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


ENCODER = json.JSONEncoder(ensure_ascii=False, default=_unmarshalable)  # made once, as json.dumps makes one a call


def log_error(report: dict[str, Any]) -> None:
    """What Lambda writes to the log for an unhandled error."""
    lines = [f"[ERROR] {report['errorType']}: {report['errorMessage']}"]
    if report["stackTrace"]:
        lines += ["Traceback (most recent call last):", "".join(report["stackTrace"]).rstrip("\n")]
    print("\r".join("\n".join(lines).split("\n")), flush=True)


def set_up_logging() -> RequestFilter:
    handler = logging.StreamHandler(sys.stdout)
    formatter = logging.Formatter(
        "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s", "%Y-%m-%dT%H:%M:%S"
    )
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    request_filter = RequestFilter()
    handler.addFilter(request_filter)
    logging.getLogger().addHandler(handler)
    return request_filter


def prepare_interpreter() -> None:
    """sys.path, output and builtins as a handler expects them."""
    import site  # noqa: PLC0415 - gives exit() and help(), which handlers may call; packages of the host stay out

    site.setquit()
    site.sethelper()
    runtime = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [
        os.environ["LAMBDA_TASK_ROOT"],
        *(folder for folder in packages_folders() if os.path.isdir(folder)),
        *(entry for entry in sys.path if entry and entry != runtime),
        *([runtime] if os.path.isdir(os.path.join(runtime, "boto3")) else []),
    ]
    sys.argv[:] = [""]
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]


class Ahead:
    """What was imported ahead of time, before there was a function: the names of top-level modules that a function may
    have itself, and the SDK's modules, which come back when they are asked for (`missed`: what they looked for before).

    Made once, by the fork server: a worker that went through all modules would have a copy of half of its memory.
    """

    def __init__(self, sdk: set[str], missed: set[str]) -> None:
        names = [name for name in sys.modules if name.partition(".")[0] in sdk]
        self.sdk = {name: sys.modules.pop(name) for name in names}
        self.names = frozenset(name.partition(".")[0] for name in sys.modules) - NEEDED
        self.missed = missed

    def give_way(self) -> None:
        """Forget what the function's own code or packages have under the same name."""
        own: set[str] = set()
        for folder in (os.environ["LAMBDA_TASK_ROOT"], *packages_folders()):
            if os.path.isdir(folder):
                own.update(name[:-3] if name.endswith(".py") else name for name in os.listdir(folder))
        taken = {name for name in own if name in self.names}
        for name in [each for each in sys.modules if each.partition(".")[0] in taken] if taken else ():
            del sys.modules[name]
        if self.sdk:
            sys.meta_path.insert(0, SetAside(self.sdk, self.missed))


class SetAside:
    """Finds modules that were imported ahead of time, all of them or none: none if the function's path now leads to
    another version of one of them, or to a package that they do without. Both a finder and a loader of importlib."""

    def __init__(self, modules: dict[str, types.ModuleType], missed: set[str]) -> None:
        self.modules = modules
        self.missed = missed

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name not in self.modules:
            return None
        sys.meta_path.remove(self)
        if not self._are_as_found_now():
            return None
        sys.modules.update(self.modules)
        del sys.modules[name]  # importlib puts it there itself
        return importlib.machinery.ModuleSpec(name, self)  # type: ignore[arg-type]

    def _are_as_found_now(self) -> bool:
        find = importlib.machinery.PathFinder.find_spec
        for name, module in self.modules.items():
            if "." not in name:
                found = find(name)
                if found is None or module.__spec__ is None or found.origin != module.__spec__.origin:
                    return False
        return not any(find(name) for name in self.missed)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        self.found = self.modules[spec.name].__spec__
        return self.modules[spec.name]

    def exec_module(self, module: types.ModuleType) -> None:
        module.__spec__ = self.found


def packages_folders() -> list[str]:
    """Where packages beside the code are, the first one first: layers, and what requirements.txt asked for."""
    return [folder for folder in os.environ.get("PYTHONPATH", "").split(":") if folder]


class Requests:
    """The requests of a worker that are sent to it as frames, one at a time."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def take(self) -> tuple[int, bytes | bytearray, int]:
        """The next one's number, and what is said of it, from which place on."""
        kind, number, payload = self._channel.receive()
        if kind != INVOKE:
            os._exit(2)
        return number, payload, 0

    def answer(self, kind: int, number: int, payload: bytes) -> None:
        self._channel.send(kind, number, payload)

    def send(self, kind: int, number: int, payload: bytes) -> None:
        """What comes before the answer."""
        self._channel.send(kind, number, payload)


class Queue(Requests):
    """The requests of a worker that wait for it in a socket of their own."""

    def __init__(self, channel: Channel, fd: int) -> None:
        super().__init__(channel)
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(True)
        self._output = os.dup(1)  # whatever a handler makes of its own
        os.set_inheritable(self._output, False)

    def take(self) -> tuple[int, bytes | bytearray, int]:
        packet = self._next()
        self._began = time.monotonic()
        if not packet:
            os._exit(0)  # the node is gone, or has no more need of this worker
        kind, number = PACKET.unpack_from(packet)
        return super().take() if kind == FRAMED else (number, packet, PACKET.size)

    def _next(self) -> bytes:
        """The next packet. It is waited for without taking it: a process that is killed while it sleeps in recv(2)
        wakes once more, and would take along what has come by then; the node could not give it to another worker."""
        while True:
            try:
                return self._socket.recv(PACKET_BYTES_MAX, socket.MSG_DONTWAIT)
            except BlockingIOError:
                self._socket.recv(1, socket.MSG_PEEK)

    def answer(self, kind: int, number: int, payload: bytes) -> None:
        duration = took(time.monotonic() - self._began) << KIND_BITS
        if not self._has_output():
            self._channel.send(kind | duration, number, payload)
            return
        self._channel.send(WITH_OUTPUT[kind] | duration, number, payload)
        self._channel.go_on()

    def _has_output(self) -> bool:
        """Whether the node has output of this worker to read, whoever in it wrote that."""
        try:
            return fcntl.ioctl(self._output, termios.FIONREAD, NOTHING_TO_READ) != NOTHING_TO_READ
        except OSError:
            return True


NOTHING_TO_READ = bytes(4)


def took(seconds: float) -> int:
    """A duration in four bits: n for less than 2 ** n times 16 microseconds, and 15 for whatever is longer."""
    return min(15, (int(seconds * 1e6) >> 4).bit_length())


def stream(requests: Requests, number: int, pieces: Iterable[Any]) -> bytes:
    """Send what a handler yields, piece by piece: text or bytes; first of all a dict with status and headers, if it
    wants to say them. Lambda's Python cannot do this: there a handler that yields gives an error. Returns what is left
    to answer: nothing."""
    for index, piece in enumerate(pieces):
        if isinstance(piece, dict) and index == 0:
            requests.send(HEAD, number, HTTP_RESPONSE.encode())
            data = encode(piece) + bytes(8)
        elif isinstance(piece, str):
            data = piece.encode("utf-8")
        elif isinstance(piece, (bytes, bytearray, memoryview)):
            data = bytes(piece)
        else:
            kind = type(piece).__name__
            raise FunctionError("Runtime.MarshalError", f"Unable to stream a {kind}: yield text or bytes")
        for start in range(0, len(data), CHUNK_BYTES_MAX):
            requests.send(CHUNK, number, data[start : start + CHUNK_BYTES_MAX])
    return b""


def serve(
    requests: Requests, about: Any, handler: Callable[[Any, LambdaContext], Any], request_filter: RequestFilter
) -> None:
    while True:
        number, payload, start = requests.take()
        end = payload.index(b"\n", start)
        request = (orjson or json).loads(payload[start:end])
        request_filter.request_id = request["requestId"]
        if request.get("traceId"):
            os.environ["_X_AMZN_TRACE_ID"] = request["traceId"]
        try:
            given = handler(decode(payload, end + 1), LambdaContext(about, request))
            answer = RESULT, stream(requests, number, given) if type(given) is types.GeneratorType else encode(given)
            del given
        except Exception as error:
            report = describe(error, request["requestId"])
            log_error(report)
            answer = ERROR, json.dumps(report, default=str).encode()
        sys.stdout.flush()
        sys.stderr.flush()
        requests.answer(answer[0], number, answer[1])


def main() -> None:
    fds = [int(number) for number in sys.argv[1].split(",")]
    for fd in fds:
        os.set_inheritable(fd, False)
    channel = Channel(fds[0])
    _, number, payload = channel.receive()
    about = json.loads(payload)
    prepare_interpreter()
    request_filter = set_up_logging()
    try:
        handler = load_handler(about["handler"])
    except BaseException as error:
        if isinstance(error, (SystemExit, KeyboardInterrupt)):
            error = FunctionError("Runtime.ExitError", "the module called exit() while it was imported")
        report = describe(error, "")
        log_error(report)
        channel.send(INIT_ERROR, number, json.dumps(report, default=str).encode())
        os._exit(1)
    channel.send(READY, number, b"")
    requests = Requests(channel) if len(fds) == 1 else Queue(channel, fds[1])
    serve(requests, about, handler, request_filter)


if __name__ == "__main__":
    main()
