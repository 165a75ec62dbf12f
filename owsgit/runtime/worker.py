"""The contract of workers: one warm instance of a function, asked one request at a time.

Each runtime has a class of its own: `framed` for the managed ones, and others beside it. The pool knows only this.
"""

from typing import Protocol

from owsgit.model.service import Answer, Invocation

INIT_SECONDS_MAX = 10.0
"""Lambda's limit for the init phase."""

PROCESSES_MAX = 1024
"""Lambda's limit for processes and threads."""

MEBIBYTE = 1024 * 1024


class NotBegunError(EOFError):
    """The worker ended before it took the whole of a request: another can answer it, and nothing is done twice."""


def given_to_another(request_id: str) -> str:
    """What the log tells of a request whose worker had ended."""
    return f"RequestId: {request_id} its worker had ended: it is given to another"


class Worker(Protocol):
    """A started worker. Not for concurrent use: the pool hands it to one request at a time."""

    alive: bool  # whether it can be asked
    last_used: float  # by time.monotonic()
    memory_bytes: int  # the most that it was seen to use; 0 if that is not known

    async def invoke(self, invocation: Invocation) -> Answer:
        """Answer one request. Never raises for what the function does; a worker that failed is not `alive` after.
        Raises NotBegunError."""
        ...

    def exited(self) -> bool:
        """Whether it has ended on its own."""
        ...

    def close(self) -> None:
        """End it at once; idempotent."""
        ...
