"""The log of a function as several nodes have it, each asked by an ssh of its own, in a thread of its own.

What a node sends is described in owsgit/node/log_stream.py. A batch counts when its cursor has come: of a batch that a
broken connection cut short, nothing is shown, and it is asked for again.
"""

import contextlib
import json
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter

from owsgit.cli.remote import Remote
from owsgit.model.core import Address
from owsgit.model.errors import OwsgitError, UnavailableError

RETRY_SECONDS_MIN, RETRY_SECONDS_MAX = 0.5, 10.0
LINE_BYTES_MAX = 4 * 1024 * 1024
"""No node's line is as long."""

BATCH_BYTES_MAX = 16 * 1024 * 1024
"""No node's batch is as large."""

GATHER_SECONDS = 0.2
"""Lines of several nodes that come within this time are put in order."""

LINES_MAX = 100_000
"""What a node gives at most."""

MEMBERS_MAX = 100
"""Nodes of one project that are asked."""

PATIENCE_SECONDS = 3.0
"""How long the first lines of a log that is followed wait for nodes that do not answer."""


_NOT_OURS = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""What may come of JSON that is none of a node's."""

_ADDRESS = TypeAdapter[str](Address)
"""A node may be hostile: what it calls an address must not be an option of ssh."""


def now() -> str:
    """The time, as lines of a log write it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True)
class Question:
    """What is asked of every node."""

    name: str
    lines: int
    follow: bool
    options: tuple[str, ...] = ()  # since=..., filter=... and the like

    def words(self, cursor: str | None, late: str | None) -> list[str]:
        """The command; `late` is the time since when a node that was not there at first is asked."""
        count, options = self.lines, list(self.options)
        if cursor is not None:
            options.append(f"after={cursor}")
        elif late is not None:
            count = LINES_MAX
            if not any(each.startswith("since=") for each in options):
                options.append(f"since={late}")
        return ["logs", self.name, str(count), *(["follow"] if self.follow else []), *options]


@dataclass(frozen=True)
class Hello:
    """The node told its name, where all nodes are, and why nothing is written to the log."""

    stream: "Stream"
    node: str
    members: dict[str, tuple[str, int]]
    hint: str


@dataclass(frozen=True)
class Batch:
    """Lines, all of them; `live` if there are no more for now."""

    stream: "Stream"
    lines: list[bytes]
    live: bool


@dataclass(frozen=True)
class Ended:
    """The connection has ended; with an error, unless the node had no more to say."""

    stream: "Stream"
    error: OwsgitError | None


Event = Hello | Batch | Ended
Line = tuple[str, str, bytes]
"""Its time, the node that sent it, itself."""


class Stream:
    """One node's log. Puts events; when it is followed, connects again for ever."""

    def __init__(
        self, remote: Remote, question: Question, put: Callable[[Event], None], late: str | None, node: str
    ) -> None:
        self.remote = remote
        self.node = node  # its name, "" until it has told it
        self.settled = False  # whether all that there was at first has come, or its first connection failed
        self.lost = ""  # why it is not connected
        self._question, self._put, self._late = question, put, late
        self._cursor: str | None = None
        self._stopped = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        threading.Thread(target=self._run, daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()
        if self._process is not None:
            self._process.kill()

    def _run(self) -> None:
        pause = RETRY_SECONDS_MIN
        began = now()
        while not self._stopped.is_set():
            told = False
            try:
                told, error = self._once()
            except OwsgitError as failed:
                error = failed
            if self._stopped.is_set():
                return
            if not self._question.follow:
                self._put(Ended(self, error))
                break
            self._put(Ended(self, error or UnavailableError(f"the node at {self.remote.url} ended the connection")))
            self._late = self._late or began
            pause = RETRY_SECONDS_MIN if told else min(2 * pause, RETRY_SECONDS_MAX)
            self._stopped.wait(pause)

    def _once(self) -> tuple[bool, OwsgitError | None]:
        """Read until the connection ends: whether the node said anything, and how it ended."""
        self._process = process = self.remote.start(*self._question.words(self._cursor, self._late))
        assert process.stdout is not None and process.stderr is not None
        told, lines, size = False, list[bytes](), 0
        if self._stopped.is_set():
            process.kill()
        try:
            while line := process.stdout.readline(LINE_BYTES_MAX):
                if self._stopped.is_set():
                    break
                if line.startswith(b'{"owsgit"'):
                    told, size = True, 0
                    lines = self._own(json.loads(line)["owsgit"], lines)
                elif line.endswith(b"\n"):
                    lines.append(line)
                    size += len(line)
                if size > BATCH_BYTES_MAX:
                    raise ValueError("too much without a cursor")
            err = process.stderr.read()
            return told, self.remote.failure(process.returncode, err) if process.wait() else None
        except _NOT_OURS as error:
            return told, OwsgitError(f"the node at {self.remote.url} does not speak as this client does: {error}")
        finally:
            process.kill()
            process.wait()

    def _own(self, said: dict[str, Any], lines: list[bytes]) -> list[bytes]:
        """Take what the node says of itself; the lines that still wait for their cursor."""
        if "members" in said:
            members = {
                str(each["name"]): (_ADDRESS.validate_python(each["address"]), int(each["port"]))
                for each in said["members"][:MEMBERS_MAX]
            }
            self._put(Hello(self, str(said["node"]), members, str(said.get("hint", ""))))
            return lines
        self._cursor = str(said["cursor"])
        self._put(Batch(self, lines, bool(said["live"])))
        return []


@dataclass
class Logs:
    """The lines of all nodes of a project, or of one. `note` is told who cannot be reached, and who is back."""

    question: Question
    every_node: bool
    note: Callable[[str], None]
    others: Callable[[], list[Remote]]  # more places to ask for the nodes, if the first is not there
    hint: str = ""  # why nothing is written to the log, if a node says so
    _events: "queue.Queue[Event]" = field(default_factory=queue.Queue)
    _streams: list[Stream] = field(default_factory=list)
    _before: list[Line] = field(default_factory=list)  # what was written before we asked
    _new: list[Line] = field(default_factory=list)
    _following: bool = False
    _asked_others: bool = False

    def batches(self, first: Remote) -> Iterator[list[dict[str, Any]]]:
        """Entries in the order of their times: at first all that there was, then, if followed, as they come.

        Raises OwsgitError if no node can tell.
        """
        try:
            self._start(first)
            self._gather_first()
            self._following = True
            yield _ordered(self._before)[-self.question.lines :] if self.question.lines else []
            while self.question.follow:
                if self._new:
                    entries, self._new = _ordered(self._new), []
                    yield entries
                self._take(self._events.get())
                time.sleep(GATHER_SECONDS)
                while not self._events.empty():
                    self._take(self._events.get())
        finally:
            for stream in self._streams:
                stream.stop()

    def _start(self, remote: Remote, node: str = "") -> None:
        late = now() if self._following else None
        self._streams.append(Stream(remote, self.question, self._events.put, late, node))

    def _gather_first(self) -> None:
        """Take events until every node has told what it had, or does not answer."""
        while not all(stream.settled for stream in self._streams):
            patient = not self.question.follow or not any(stream.settled for stream in self._streams)
            try:
                self._take(self._events.get(timeout=None if patient else PATIENCE_SECONDS))
            except queue.Empty:
                break

    def _take(self, event: Event) -> None:
        stream = event.stream
        if stream not in self._streams:
            return
        if isinstance(event, Hello):
            self._met(stream, event)
        elif isinstance(event, Batch):
            lines = [(line[10:34].decode("ascii", "replace"), stream.node, line) for line in event.lines]
            (self._new if stream.settled or self._following else self._before).extend(lines)
            stream.settled = stream.settled or event.live
        else:
            stream.settled = True
            if event.error is not None:
                self._lose(stream, event.error)

    def _met(self, stream: Stream, told: Hello) -> None:
        if stream.lost:
            self.note(f"owsgit: the node {told.node} is back")
        stream.node, stream.lost, self.hint = told.node, "", told.hint
        if not self.every_node:
            return
        user = stream.remote.host.rpartition("@")[0]
        for name, (address, port) in told.members.items():
            known = {each.node for each in self._streams}
            remote = stream.remote.at(address, port, user)
            same = [each for each in self._streams if not each.node and each.remote.is_at(address, port)]
            if name not in known and same:
                same[0].node = name
            elif name not in known:
                self._start(remote, name)
        for each in list(self._streams):  # another way to one that is asked already, or to none that we know
            if each is not stream and each.node in ("", stream.node):
                each.stop()
                self._streams.remove(each)

    def _lose(self, stream: Stream, error: OwsgitError) -> None:
        """A node cannot tell. Raises if no node can."""
        first = stream.lost == ""
        stream.lost = str(error.problems[0])
        away = error.exit_code == UnavailableError.exit_code
        if away and self.every_node and not self._asked_others and self._all_lost():
            self._asked_others = True
            for remote in self.others():
                if not any(each.remote.is_at(remote.host.rpartition("@")[2], remote.port) for each in self._streams):
                    self._start(remote)
        may_return = away and self._following
        if self._all_lost() and not may_return:
            raise error
        if first:
            again = "; trying again" if self.question.follow else ""
            self.note(f"owsgit: {f'{stream.node}: ' if stream.node else ''}{stream.lost}{again}")

    def _all_lost(self) -> bool:
        return all(each.lost for each in self._streams)


def _ordered(lines: list[Line]) -> list[dict[str, Any]]:
    """Entries by time. Which node wrote a line is known by who sent it."""
    entries = []
    for _, node, line in sorted(lines, key=lambda each: each[0]):
        with contextlib.suppress(ValueError, RecursionError):  # damaged on the node's disk
            entry = json.loads(line)
            if isinstance(entry, dict):
                entries.append({**entry, "node": node})
    return entries
