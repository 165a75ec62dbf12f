"""What is written of a worker: its own output, Lambda's START, END and REPORT lines, all bounded and masked."""

import asyncio
import contextlib
import os
import re
import time
from collections import deque
from typing import Any

from owsgit.runtime.config import FunctionConfig
from owsgit.runtime.logs import LINE_BYTES_MAX, FunctionLog

LOG_BYTES_PER_REQUEST_MAX = 1024 * 1024
"""A handler that writes more is noisy by mistake or by malice; the rest of that request's output is dropped."""

LOG_LINES_PER_REQUEST_MAX = 10_000
"""Each becomes a line of JSON: a MiB of line ends would be a hundred MiB of log."""

LOG_TAIL_BYTES_MAX = 4096
"""What Lambda returns of the log with an answer."""

LOG_PAUSE_SECONDS = 0.004
"""How long a worker beyond its log limit waits for its next read: it slows itself down, and nobody else."""

MASKED = "***"
MASKED_CHARACTERS_MIN = 6
"""Shorter lines of a secret would be found everywhere."""


class Transcript:
    """The log of one worker, which reads the worker's output from a pipe as it comes."""

    def __init__(self, config: FunctionConfig, log: FunctionLog) -> None:
        self._config = config
        self._log = log
        self._mask = _mask(config)
        self.stream = f"{time.strftime('%Y/%m/%d')}/[{config.version}]{os.urandom(16).hex()}"
        self._request_id = ""
        self._began = 0.0
        self._output = b""
        self._output_bytes = 0
        self._output_lines = 0
        self._tail: deque[str] = deque()
        self._tail_bytes = 0
        self._fd = -1
        self._more = False  # whether the last read found anything
        self.init_ms: float | None = None  # told with the first request

    def open(self) -> int:
        """The descriptor that the worker writes to; the caller closes it once the worker has it."""
        self._fd, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        os.set_blocking(write, True)
        asyncio.get_running_loop().add_reader(self._fd, self._read_output)
        return write

    def begin(self, request_id: str) -> None:
        self._request_id = request_id
        self._output_bytes = self._output_lines = 0
        self._tail.clear()
        self._tail_bytes = 0
        self._began = time.monotonic()
        self.write([f"START RequestId: {request_id} Version: {self._config.version}"])

    def end(self, memory_peak_bytes: int) -> None:
        """Write what Lambda writes at the end of a request."""
        elapsed = (time.monotonic() - self._began) * 1000
        line = (
            f"REPORT RequestId: {self._request_id}\tDuration: {elapsed:.2f} ms\tBilled Duration: {int(elapsed) + 1} ms"
            f"\tMemory Size: {self._config.memory_size} MB\tMax Memory Used: {memory_peak_bytes >> 20} MB"
        )
        if self.init_ms is not None:
            line += f"\tInit Duration: {self.init_ms:.2f} ms"
            self.init_ms = None
        self.write([f"END RequestId: {self._request_id}", line])

    def tail(self) -> bytes:
        """The end of what was written of the present request."""
        return "\n".join(self._tail).encode("utf-8", "replace")[-LOG_TAIL_BYTES_MAX:]

    def write(self, lines: list[str]) -> None:
        if self._mask is not None:
            lines = [self._mask.sub(MASKED, line) for line in lines]
        self._log.write(self._request_id, lines)
        for line in lines:
            self._tail.append(line)
            self._tail_bytes += len(line) + 1
        while len(self._tail) > 1 and self._tail_bytes > LOG_TAIL_BYTES_MAX:
            self._tail_bytes -= len(self._tail.popleft()) + 1

    def masked(self, value: Any) -> Any:
        """A report in which no secret stands: it is shown in status, and kept on the disk."""
        if isinstance(value, str):
            return self._mask.sub(MASKED, value) if self._mask is not None else value
        if isinstance(value, dict):
            return {name: self.masked(each) for name, each in value.items()}
        return [self.masked(each) for each in value] if isinstance(value, list) else value

    def take(self, data: bytes) -> None:
        """Take output of the worker; nothing more comes if it is empty."""
        if self._output_bytes > LOG_BYTES_PER_REQUEST_MAX:
            return
        self._output_bytes += len(data)
        *lines, self._output = (self._output + data).split(b"\n", LOG_LINES_PER_REQUEST_MAX)
        self._output_lines += len(lines)
        if len(self._output) > LINE_BYTES_MAX or (not data and self._output):
            lines.append(self._output)
            self._output = b""
        if self._output_bytes > LOG_BYTES_PER_REQUEST_MAX or self._output_lines >= LOG_LINES_PER_REQUEST_MAX:
            self._output_bytes, self._output = LOG_BYTES_PER_REQUEST_MAX + 1, b""
            lines.append(b"[owsgit] this request wrote more than 1 MiB or 10,000 lines of log; the rest is dropped")
        if lines:
            self.write([line.decode("utf-8", "replace").replace("\r", "\n") for line in lines])

    def drain(self) -> None:
        """Take what was written before the answer, so that it stands in the log before END."""
        for _ in range(32):
            if self._fd < 0 or not self._read_once() or not self._more:
                break

    def close(self) -> None:
        self.drain()
        self._stop_reading()

    def _read_output(self) -> None:
        """Called by the loop when the worker wrote something; reads once, so that no worker keeps the loop busy."""
        if not self._read_once():
            self._stop_reading()
        elif self._output_bytes > LOG_BYTES_PER_REQUEST_MAX:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._fd)
            loop.call_later(LOG_PAUSE_SECONDS, self._resume_reading)

    def _resume_reading(self) -> None:
        if self._fd >= 0:
            asyncio.get_running_loop().add_reader(self._fd, self._read_output)

    def _read_once(self) -> bool:
        """Take what the worker wrote. False at the end of the output."""
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            self._more = False
            return True
        except OSError:
            return False
        self._more = True
        self.take(data)
        return bool(data)

    def _stop_reading(self) -> None:
        if self._fd >= 0:
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1


def _mask(config: FunctionConfig) -> re.Pattern[str] | None:
    """Finds a function's secrets in what it writes: each of their lines, the longest first."""
    texts = [*config.secrets.values(), *(each.decode("utf-8", "replace") for each in config.secret_files.values())]
    lines = {line.strip() for text in texts for line in text.splitlines()}
    wanted = sorted((line for line in lines if len(line) >= MASKED_CHARACTERS_MIN), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, wanted))) if wanted else None
