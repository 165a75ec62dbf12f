"""How a container is asked: by HTTP on its port, or by the Lambda Runtime API that it asks itself."""

import asyncio
import itertools
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import orjson

from owsgit.model.service import Invocation
from owsgit.runtime import exchange, failures
from owsgit.runtime.config import FunctionConfig
from owsgit.runtime.namespace import LOOPBACK, NetworkNamespace
from owsgit.runtime.python_worker import RESPONSE_BYTES_MAX
from owsgit.runtime.runtime_api import RuntimeApi

READY_PAUSES_SECONDS = (0.001, 0.002, 0.004, 0.008, 0.016)
"""How long to wait for a port before it is tried again; the last one for ever."""

RUNTIME_API_PORT = 9001
"""Where Lambda has it."""

LAST_WORDS_SECONDS = 0.005
"""For what a server sent before its end, and nobody has read yet."""

GONE_SECONDS_MAX = 1.0
"""How long is waited for the end of a container that has closed its connection, or takes none: mostly it has ended, and
on a busy machine that is seen later."""

UNHANDLED = "Unhandled"
WORDS_MAX = 1000
"""Characters of an error page that are told."""


@dataclass(frozen=True)
class Reply:
    """What a container answered; one that is `broken` is not asked again."""

    payload: bytes
    error: str | None = None  # as in an Answer
    broken: bool = False


class Front(Protocol):
    """How one container is asked. Made before the container is started."""

    environment: Mapping[str, str]  # what the container has to know of it

    @property
    def begun(self) -> bool:
        """Whether the container may have begun the last request."""
        ...

    async def ready(self) -> failures.Report | None:
        """Return when the container takes requests, or with the error that it reports instead."""
        ...

    async def ask(self, config: FunctionConfig, invocation: Invocation, deadline: float) -> Reply:
        """Have one request answered; `deadline` is in seconds since 1970. Limiting the time is the caller's."""
        ...

    async def end(self) -> None:
        """The container has ended: take in what it said last, then no more."""
        ...

    def close(self) -> None: ...


class HttpFront:
    """A server of HTTP: each event is posted to it, the answer is the body of a response of 2xx."""

    environment: Mapping[str, str]

    def __init__(self, network: NetworkNamespace, port: int, path: str) -> None:
        self._network, self._port, self._path = network, port, path
        self.environment = {"PORT": str(port)}
        self.begun = False

    async def ready(self) -> None:
        for attempt in itertools.count():
            try:
                (await self._connect()).close()
            except ConnectionRefusedError:
                await asyncio.sleep(READY_PAUSES_SECONDS[min(attempt, len(READY_PAUSES_SECONDS) - 1)])
            else:
                return

    async def ask(self, config: FunctionConfig, invocation: Invocation, deadline: float) -> Reply:
        headers = {
            "Content-Type": "application/json",
            "Lambda-Runtime-Aws-Request-Id": invocation.request_id,
            "Lambda-Runtime-Deadline-Ms": str(int(deadline * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": config.arn,
        }
        if invocation.trace_id:
            headers["Lambda-Runtime-Trace-Id"] = invocation.trace_id
        if invocation.client_context:
            headers["Lambda-Runtime-Client-Context"] = invocation.client_context.decode("latin-1")
        self.begun = True
        try:
            response = await exchange.post(
                await self._connect(), f"{LOOPBACK}:{self._port}", self._path, headers, invocation.payload,
                RESPONSE_BYTES_MAX,
            )  # fmt: skip
        except exchange.TooLargeError as error:
            return Reply(failures.dump(failures.too_large(error.size)), error=UNHANDLED)
        except (OSError, exchange.ExchangeError) as error:
            self.begun = not isinstance(error, ConnectionError)  # refused, or reset: it has not read the whole of it
            # if it is because the container ended, the caller notices now
            hung_up = isinstance(error, OSError | exchange.ClosedError)
            await asyncio.sleep(GONE_SECONDS_MAX if hung_up else 10 * LAST_WORDS_SECONDS)
            report = {"errorType": "Runtime.InvalidResponse", "errorMessage": f"The container broke HTTP: {error}"}
            return Reply(failures.dump(report), error=UNHANDLED, broken=True)
        return _reply(response)

    async def _connect(self) -> socket.socket:
        made = self._network.tcp_socket()
        try:
            await asyncio.get_running_loop().sock_connect(made, (LOOPBACK, self._port))
        except BaseException:
            made.close()
            raise
        return made

    async def end(self) -> None:
        await asyncio.sleep(LAST_WORDS_SECONDS)

    def close(self) -> None:
        pass


class LambdaFront:
    """An image of AWS Lambda: it asks the Runtime API, which the node serves inside of the container's network."""

    environment: Mapping[str, str] = {"AWS_LAMBDA_RUNTIME_API": f"{LOOPBACK}:{RUNTIME_API_PORT}"}

    def __init__(self, network: NetworkNamespace) -> None:
        self._api = RuntimeApi(network.listener(RUNTIME_API_PORT))

    @property
    def begun(self) -> bool:
        return self._api.begun

    async def ready(self) -> failures.Report | None:
        return await self._api.ready()

    async def ask(self, config: FunctionConfig, invocation: Invocation, deadline: float) -> Reply:
        return Reply(*await self._api.invoke(invocation, config.arn, deadline))

    async def end(self) -> None:
        await self._api.end()

    def close(self) -> None:
        self._api.close()


def _reply(response: exchange.Response) -> Reply:
    """The answer of a function, whose form is Lambda's, from a server's."""
    body = bytes(response.body) or b"null"
    try:
        document, is_json = orjson.loads(body), True
    except orjson.JSONDecodeError:
        document, is_json = None, False
    if 200 <= response.status < 300:
        if is_json:
            return Reply(body)
        report = {"errorType": "Runtime.MarshalError", "errorMessage": "Unable to marshal response: it is not JSON"}
        return Reply(failures.dump(report), error=UNHANDLED)
    if isinstance(document, dict) and isinstance(document.get("errorMessage"), str):
        return Reply(body, error=UNHANDLED)  # Lambda's error object, of the function's own making
    words = f"{response.status} {response.reason}: {response.body[:WORDS_MAX].decode('utf-8', 'replace')}".rstrip(": ")
    return Reply(failures.dump({"errorType": "Runtime.HttpError", "errorMessage": words}), error=UNHANDLED)
