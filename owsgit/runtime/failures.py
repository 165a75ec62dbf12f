"""Lambda's error objects for what goes wrong with a worker, word for word.

https://docs.aws.amazon.com/lambda/latest/dg/troubleshooting-invocation.html and .../runtimes-api.html
"""

import json
import signal
import time
from typing import Any

from owsgit.runtime.log_lines import timestamp
from owsgit.runtime.python_worker import RESPONSE_BYTES_MAX

Report = dict[str, Any]
"""`errorType`, `errorMessage`, and maybe `stackTrace` and `requestId`."""


def timed_out(request_id: str, timeout: float) -> Report:
    text = f"{timestamp(time.time())} {request_id} Task timed out after {timeout:.2f} seconds"
    return {"errorType": "Sandbox.Timedout", "errorMessage": text}


def init_timed_out(seconds: float) -> Report:
    return {"errorType": "Sandbox.Timedout", "errorMessage": f"Init phase timed out after {seconds:.2f} seconds"}


def no_bootstrap(reason: str) -> Report:
    """For a custom runtime whose program cannot be started."""
    return {"errorType": "Runtime.InvalidEntrypoint", "errorMessage": reason}


def exited(request_id: str, status: int, out_of_memory: bool) -> Report:
    """For a worker that ended by itself: `status` is its exit status, negative for a signal."""
    prefix = f"RequestId: {request_id} Error: " if request_id else ""
    if out_of_memory:
        reason = "Runtime exited with error: signal: killed"
    elif status < 0:
        reason = f"Runtime exited with error: signal: {_signal_name(-status)}"
    elif status > 0:
        reason = f"Runtime exited with error: exit status {status}"
    else:
        reason = "Runtime exited without providing a reason"
    kind = "Runtime.OutOfMemory" if out_of_memory else "Runtime.ExitError"
    return {"errorType": kind, "errorMessage": prefix + reason}


def fuel_exhausted(request_id: str, fuel: int, frames: list[str]) -> Report:
    """For a WebAssembly module that has to do more than it may; Lambda has no such thing."""
    text = f"RequestId: {request_id} Error: all {fuel:,} units of fuel were used up"
    return {"errorType": "Runtime.FuelExhausted", "errorMessage": text, "stackTrace": frames}


def too_large(size: int, size_max: int = RESPONSE_BYTES_MAX) -> Report:
    """For an answer that is longer than Lambda lets through."""
    limit = f"maximum allowed payload size ({size_max} bytes)"
    text = f"Response payload size ({size} bytes) exceeded {limit}."
    return {"errorType": "Function.ResponseSizeTooLarge", "errorMessage": text}


def read(body: bytes, kind: str) -> Report:
    """The error object that a runtime sent, of `kind` if it names none. Only what Lambda knows of it is kept: depth and
    types are bounded."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    given = found if isinstance(found, dict) else {"errorMessage": body.decode("utf-8", "replace")}
    texts = {
        name: given[name] for name in ("errorType", "errorMessage", "requestId") if isinstance(given.get(name), str)
    }
    report: Report = {"errorType": kind, "errorMessage": "", **texts}
    for name in ("stackTrace", "trace"):  # Python's and Node.js's
        if isinstance(given.get(name), list):
            report[name] = [line for line in given[name] if isinstance(line, str)]
    return report


def dump(report: Report) -> bytes:
    return json.dumps(report, ensure_ascii=False).encode("utf-8", "backslashreplace")


def _signal_name(number: int) -> str:
    try:
        return signal.strsignal(number) or str(number)
    except ValueError:
        return str(number)
