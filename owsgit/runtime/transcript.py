"""What is written of a worker: its own output, Lambda's START, END and REPORT lines, all bounded and masked."""

import asyncio
import contextlib
import json
import os
import time
from collections import deque
from typing import Any

from owsgit.model.service import Invocation
from owsgit.model.strictjson import JSON_DEPTH_MAX
from owsgit.runtime import log_lines, masking
from owsgit.runtime.allowance import Allowance
from owsgit.runtime.config import FunctionConfig
from owsgit.runtime.log_lines import Entry, Run
from owsgit.runtime.logs import LINE_BYTES_MAX, FunctionLog, Report

LOG_BYTES_PER_REQUEST_MAX = 1024 * 1024
"""A handler that writes more is noisy by mistake or by malice; the rest of that request's output is dropped."""

LOG_LINES_PER_REQUEST_MAX = 10_000
"""Each becomes a line of JSON: a MiB of line ends would be a hundred MiB of log."""

LOG_TAIL_BYTES_MAX = 4096
"""What Lambda returns of the log with an answer."""

LOG_PAUSE_SECONDS = 0.004
"""How long a worker beyond its log limit waits for its next read: it slows itself down, and nobody else."""

REST_BYTES_PER_SECOND_MAX = 32 * 1024
REST_BURST_BYTES_MAX = 512 * 1024
REST_LINE_BYTES = 200
"""What a worker may write between requests, as its threads may go on for ever; each line counts for so much more, as it
does on the disk. Lambda freezes a worker meanwhile."""

REST_PAUSE_SECONDS = 0.1
"""As LOG_PAUSE_SECONDS, between requests: nobody waits for this worker."""


class Transcript:
    """The log of one worker, which reads the worker's output from a pipe as it comes."""

    def __init__(self, config: FunctionConfig, log: FunctionLog) -> None:
        self._config = config
        self._log = log
        self._mask = masking.of(config)
        self.stream = f"{time.strftime('%Y/%m/%d')}/[{config.version}]{os.urandom(16).hex()}"
        self._request_id = ""
        self._began = 0.0
        self._start: float | None = None  # when the request began, if that is not written yet: seconds since 1970
        self._tails = False  # whether the end of what is written is wanted
        self._output = bytearray()  # of a line that has not ended
        self._output_bytes = 0
        self._output_lines = 0
        self._tail: deque[str] = deque()
        self._tail_bytes = 0
        self._fd = -1
        self.talked = False  # whether the worker ever wrote anything
        self.listens = False  # whether output is read as it comes
        self._more = False  # whether the last read found anything
        self._resting = False  # whether no request is under way
        self._dropping = False  # whether what comes is dropped
        self._spare = Allowance(REST_BYTES_PER_SECOND_MAX, REST_BURST_BYTES_MAX)
        self._pause: asyncio.TimerHandle | None = None
        self._init_ms: float | None = None

    @property
    def init_ms(self) -> float | None:
        """How long the init phase took; set as it ends, told with the first request."""
        return self._init_ms

    @init_ms.setter
    def init_ms(self, value: float | None) -> None:
        self._init_ms = value
        self._resting = True

    def open(self) -> int:
        """The descriptor that the worker writes to; the caller closes it once the worker has it."""
        self._fd, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        os.set_blocking(write, True)
        self.listen(True)
        return write

    def listen(self, wanted: bool) -> None:
        """Read the worker's output as it comes, or only when it is drained."""
        if wanted == self.listens or self._fd < 0 or self._pause is not None:
            return
        self.listens = wanted
        if wanted:
            asyncio.get_running_loop().add_reader(self._fd, self._read_output)
        else:
            asyncio.get_running_loop().remove_reader(self._fd)

    def begin(self, invocation: Invocation, *, rested: bool = True, soon: bool = False) -> None:
        """`rested`: the worker had nothing to do before, so that what lies in the pipe is not this request's. `soon`:
        it may well be over at once; what is to be written of its start is written with the next line, or by
        `tell_start`."""
        if rested and self._fd >= 0 and self.talked:
            self._read_once()  # what was written before is not this request's
        self._request_id = invocation.request_id
        self._tails = invocation.wants_log
        self._resting = self._dropping = False
        self._output_bytes = self._output_lines = 0
        if self._tail:
            self._tail.clear()
            self._tail_bytes = 0
        self._began = time.monotonic()
        if self._pause is not None:
            self._resume_reading()
        self._start = time.time()
        if not soon:
            self.tell_start()

    def tell_start(self) -> None:
        """Write that the request has begun, if that is not written yet."""
        if self._start is not None:
            start, self._start = self._start, None
            self._platform([log_lines.start(self._run(start))])

    def _run(self, began: float, milliseconds: float = 0.0, memory_bytes: int = 0) -> Run:
        config = self._config
        return Run(self._request_id, config.version, began, time.time(), milliseconds, config.memory_size, memory_bytes)

    def end(self, memory_peak_bytes: int, fuel_used: int | None = None) -> None:
        """Write what Lambda writes at the end of a request, and the fuel that was used where it is counted."""
        elapsed = (time.monotonic() - self._began) * 1000
        start, self._start = self._start, None
        init_ms, self._init_ms = self._init_ms, None
        run = self._run(start or 0.0, elapsed, memory_peak_bytes)
        more = "" if init_ms is None else f"\tInit Duration: {init_ms:.2f} ms"
        if fuel_used is not None:
            more += f"\tFuel Used: {fuel_used}"
        if start is not None and not more and self._mask is None and not self._tails:  # as most are
            self._log.ran(run)
        else:
            lines = log_lines.end(run, more)
            self._platform(lines if start is None else [log_lines.start(run), *lines])
        self._resting, self._dropping = True, False
        self._log.report(Report(elapsed / 1000, None if init_ms is None else init_ms / 1000, memory_peak_bytes))

    def tail(self) -> bytes:
        """The end of what was written of the present request, if that is wanted."""
        if not self._tail:
            return b""
        return "\n".join(self._tail).encode("utf-8", "replace")[-LOG_TAIL_BYTES_MAX:]

    def write(self, lines: list[str], level: str = "ERROR") -> None:
        """Write lines of the node's own: by default, of what the function did wrong."""
        self._write([Entry(self._mask_line(line), level, platform=True) for line in lines])

    def _platform(self, lines: list[log_lines.Dated]) -> None:
        """Write lines that Lambda writes as well."""
        if self._mask is not None:
            lines = [(at, self._mask_line(line)) for at, line in lines]
        self._log.platform(self._request_id, lines)
        if self._tails:
            self._trail([line for _, line in lines])

    def _write(self, entries: list[Entry]) -> None:
        self.tell_start()
        self._log.append(self._request_id, entries)
        if self._tails:
            self._trail([entry.message for entry in entries])

    def _trail(self, lines: list[str]) -> None:
        for line in lines:
            self._tail.append(line)
            self._tail_bytes += len(line) + 1
        while len(self._tail) > 1 and self._tail_bytes > LOG_TAIL_BYTES_MAX:
            self._tail_bytes -= len(self._tail.popleft()) + 1

    def _mask_line(self, line: str) -> str:
        return self._mask.over(line) if self._mask is not None else line

    def _entry(self, line: bytes) -> Entry:
        """A line of the function's own. In a JSON object, secrets are looked for behind its escapes as well."""
        entry = log_lines.classify(self._mask_line(line.decode("utf-8", "replace").replace("\r", "\n")))
        if self._mask is not None and entry.record is not None:
            record = self.masked(entry.record)
            if record != entry.record:
                return Entry(json.dumps(record, ensure_ascii=False), entry.level, record)
        return entry

    def masked(self, value: Any, depth: int = JSON_DEPTH_MAX) -> Any:
        """A report in which no secret stands: it is shown in status, and kept on the disk. What is nested too deep is
        left out: nobody watches the stack of compiled code."""
        if isinstance(value, str):
            return self._mask_line(value)
        if depth == 0 and isinstance(value, dict | list):
            return None
        if isinstance(value, dict):
            return {self._mask_line(name): self.masked(each, depth - 1) for name, each in value.items()}
        return [self.masked(each, depth - 1) for each in value] if isinstance(value, list) else value

    def take(self, data: bytes) -> None:
        """Take output of the worker; nothing more comes if it is empty."""
        if self._resting:
            allowed = self._spare.take(len(data) + REST_LINE_BYTES * data.count(b"\n"))
            if not allowed and not self._dropping:
                self._drop("this function writes more than 32 KiB of log a second between requests")
            self._dropping = not allowed
        if self._dropping:
            return
        self._output_bytes += len(data)
        ended, *lines = data.split(b"\n", LOG_LINES_PER_REQUEST_MAX)
        self._output += ended  # which alone is looked at: it may come byte by byte
        if lines:
            *lines, rest = bytes(self._output), *lines
            self._output = bytearray(rest)
        self._output_lines += len(lines)
        if len(self._output) > LINE_BYTES_MAX or (not data and self._output):
            lines.append(bytes(self._output))
            self._output = bytearray()
        if lines:
            self._write([self._entry(line) for line in lines])
        if self._resting:
            return
        if self._output_bytes > LOG_BYTES_PER_REQUEST_MAX or self._output_lines >= LOG_LINES_PER_REQUEST_MAX:
            self._drop("this request wrote more than 1 MiB or 10,000 lines of log")

    @property
    def pause_seconds(self) -> float:
        """How long a worker whose output is dropped waits until more of it is read."""
        if not self._dropping:
            return 0.0
        return REST_PAUSE_SECONDS if self._resting else LOG_PAUSE_SECONDS

    def _drop(self, why: str) -> None:
        self._dropping, self._output = True, bytearray()
        self._write([Entry(f"[owsgit] {why}; the rest is dropped", "WARN", platform=True)])

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
        elif self._dropping:
            loop = asyncio.get_running_loop()
            self.listen(False)
            self._pause = loop.call_later(self.pause_seconds, self._resume_reading)

    def _resume_reading(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
            self.listen(True)

    def _read_once(self) -> bool:
        """Take what the worker wrote. False at the end of the output."""
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            self._more = False
            return True
        except OSError:
            return False
        self._more = self.talked = True
        self.take(data)
        return bool(data)

    def _stop_reading(self) -> None:
        if self._fd >= 0:
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
