"""The commands on the asynchronous invocations of a function: to list them, and to redrive and drop dead letters."""

import json
from collections.abc import Mapping
from typing import Protocol

import asyncssh

from owsgit.model.errors import InvalidError
from owsgit.model.names import unqualified
from owsgit.model.service import Target
from owsgit.node.ssh import Session

ACTIONS = {
    "list": "lambda:GetFunctionEventInvokeConfig",
    "redrive": "lambda:InvokeFunction",
    "drop": "lambda:DeleteFunctionEventInvokeConfig",
}
"""What each needs on the function. AWS has dead letters in queues of their own, so it has no nearer names."""

REQUEST_IDS_MAX = 1000
"""Of one command."""

Process = asyncssh.SSHServerProcess[bytes]


class Allow(Protocol):
    """Raises NotAllowedError unless the session's user, or the role, may do the action."""

    def __call__(
        self, session: Session, action: str, kind: str, name: str, process: Process, role: str | None = None
    ) -> None: ...


class EventCommands:
    """Runs `events` for a session."""

    def __init__(self, targets: Mapping[str, Target], allow: Allow) -> None:
        self._targets = targets
        self._allow = allow

    async def run(self, session: Session, words: list[str], process: Process) -> int:
        """Words: list, redrive or drop; the function's name; role=NAME if wanted; request ids, none for all."""
        verb, name, *rest = (*words, "", "")[: max(len(words), 2)]
        if verb not in ACTIONS:
            raise InvalidError(f"{verb!r:.40} is nothing to do with events", remedy=f"one of: {', '.join(ACTIONS)}")
        role = next((word.removeprefix("role=") for word in rest if word.startswith("role=")), None)
        request_ids = [word for word in rest if not word.startswith("role=")]
        if len(request_ids) > REQUEST_IDS_MAX:
            raise InvalidError(f"more than {REQUEST_IDS_MAX:,} request ids", remedy="name fewer, or none for all")
        function = unqualified(name)
        self._allow(session, ACTIONS[verb], "function", function, process, role)
        process.stdout.write(json.dumps(await self._done(verb, function, request_ids)).encode() + b"\n")
        return 0

    async def _done(self, verb: str, function: str, request_ids: list[str]) -> object:
        target = self._targets["function"]
        if verb == "list":
            return dict(target.events(function))
        done = await (target.redrive if verb == "redrive" else target.drop)(function, request_ids)
        return {"function": function, "requestIds": done}
