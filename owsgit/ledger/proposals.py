"""Proposals: commits that may become the next head once enough people have approved of them.

Each is a ref of the node's repository, `refs/proposals/<user>/<topic>/<version>`: user and topic name it, and a push
for the same topic is its next version. Of two versions with one number, as when two nodes took one each, the greater
commit id counts, everywhere.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pygit2

from owsgit.model.errors import InvalidError
from owsgit.model.names import is_name

FOLDER = "refs/proposals"
VERSION_MAX = 10**6
OF_ONE_USER_MAX = 100
"""Open proposals of one user."""

_REF = re.compile(rf"{FOLDER}/([^/]+)/([a-z0-9][a-z0-9-]{{0,63}})/([1-9][0-9]{{0,6}})")
_TOPIC = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


@dataclass(frozen=True, order=True)
class Proposal:
    """A commit that `user` proposes."""

    user: str
    topic: str
    version: int
    tip: str

    @property
    def name(self) -> str:
        return f"{self.user}/{self.topic}"

    @property
    def number(self) -> int:
        """Five digits that stand for the name, the same on every node."""
        return 10_000 + int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:8], "big") % 90_000

    @property
    def ref(self) -> str:
        return f"{FOLDER}/{self.name}/{self.version}"

    def is_newer_than(self, other: "Proposal | None") -> bool:
        return other is None or (self.version, self.tip) > (other.version, other.tip)


def topic_of(text: str) -> str:
    """A commit's subject as a topic. Raises InvalidError where nothing is left of it."""
    topic = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:64].strip("-")
    if not topic:
        raise InvalidError(f"{text!r:.80} makes no topic", remedy="name one: git push -o topic=NAME ...")
    return topic


def check_topic(text: str) -> str:
    """Raises InvalidError unless `text` can be a topic."""
    if _TOPIC.fullmatch(text) is None:
        raise InvalidError(
            f"{text!r:.80} is not a topic",
            remedy="lower case letters, digits and '-', starting with a letter or digit, at most 64",
        )
    return text


def parse(ref: str, tip: str) -> Proposal | None:
    """The proposal that a ref stands for; None if it stands for none."""
    match = _REF.fullmatch(ref)
    if match is None or not is_name(match[1]) or not re.fullmatch("[0-9a-f]{40}", tip):
        return None
    if int(match[3]) > VERSION_MAX:
        return None
    return Proposal(match[1], match[2], int(match[3]), tip)


class Proposals:
    """The proposals in a repository: a node's, or a clone's."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def all(self) -> list[Proposal]:
        """The newest version of each, by name."""
        newest: dict[str, Proposal] = {}
        for proposal in self._refs():
            if proposal.is_newer_than(newest.get(proposal.name)):
                newest[proposal.name] = proposal
        return [newest[name] for name in sorted(newest)]

    def get(self, name: str) -> Proposal | None:
        return next((each for each in self.all() if each.name == name), None)

    def _refs(self) -> Iterator[Proposal]:
        repository = pygit2.Repository(str(self._path))
        for name in repository.references:
            if name.startswith(f"{FOLDER}/"):
                target = repository.references[name].target
                found = parse(name, str(target))
                if found is not None:
                    yield found

    def put(self, proposal: Proposal) -> None:
        """Durable when it returns; versions before it are gone then."""
        repository = pygit2.Repository(str(self._path))
        repository.references.create(proposal.ref, proposal.tip, force=True)
        for other in list(self._refs()):
            if other.name == proposal.name and other.ref != proposal.ref and proposal.is_newer_than(other):
                repository.references.delete(other.ref)

    def drop(self, proposal: Proposal) -> None:
        """Every version of it."""
        repository = pygit2.Repository(str(self._path))
        for other in list(self._refs()):
            if other.name == proposal.name:
                repository.references.delete(other.ref)


def find(proposals: list[Proposal], wanted: str) -> Proposal:
    """The proposal that a number, a name or a commit id stands for. Raises InvalidError."""
    fits = [
        each for each in proposals
        if wanted in (str(each.number), each.name, each.topic) or (len(wanted) >= 7 and each.tip.startswith(wanted))
    ]  # fmt: skip
    if len(fits) == 1:
        return fits[0]
    if fits:
        names = ", ".join(each.name for each in fits)
        raise InvalidError(f"{wanted!r} stands for several proposals: {names}", remedy="use the name")
    known = ", ".join(f"{each.number} ({each.name})" for each in proposals[:20])
    raise InvalidError(
        f"there is no open proposal {wanted!r:.80}", remedy=f"there are: {known}" if known else "there is none at all"
    )
