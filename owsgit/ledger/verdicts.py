"""What somebody said of a commit: a signed git tag that approves or rejects it.

    object <commit>
    type commit
    tag approve/<commit>            (or reject/<commit>)
    tagger Name <email> seconds zone

    base <commit>                   what the approver compared it with: it covers all after that, up to the commit
    number <n>                      a later word of the same user has a higher number

    a comment, if any
    -----BEGIN SSH SIGNATURE-----   (or OpenPGP)

Plain git makes it: `git tag -s approve/<commit> <commit>`. The commit's id stands in what is signed, so no approval
can be moved to another commit; dates are never looked at.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from owsgit.ledger import openpgp, signatures, sshsig
from owsgit.ledger.signatures import Signer
from owsgit.model import terminal
from owsgit.model.errors import RefusedError
from owsgit.model.state import State

VERDICT_BYTES_MAX = 8 * 1024
NUMBER_MAX = 1_000_000
"""Each user counts alone: who uses the numbers up has no more to say of that commit, and keeps nobody else from it."""
REACH = 1000
"""How many commits before its own one approval can cover: as many as a push has at most."""

APPROVE, REJECT = "approve", "reject"

_TAG = re.compile(
    rb"object ([0-9a-f]{40})\ntype commit\ntag (approve|reject)/([0-9a-f]{40})\n"
    rb"tagger [^<>\n\0]*<[^<>\n\0]*> [0-9]{1,15} [+-][0-9]{4}\n\n"
    rb"base ([0-9a-f]{40})\nnumber ([1-9][0-9]{0,6})\n([^\0]*)",
)
_BEGINS = (sshsig.BEGIN, openpgp.BEGIN)
_ENDS = tuple(begin.replace(b"BEGIN", b"END") + b"\n" for begin in _BEGINS)


class BadVerdictError(RefusedError):
    """A tag that is no approval and no rejection."""


@dataclass(frozen=True)
class Verdict:
    """An approval or a rejection, of which nothing is proven yet."""

    commit: str
    base: str
    kind: str  # approve | reject
    number: int
    comment: str
    payload: bytes
    signature: bytes

    @property
    def data(self) -> bytes:
        """The tag object's content."""
        return self.payload + self.signature

    def signer(self, state: State) -> Signer:
        """The user of `state` who signed it. Raises BadSignatureError."""
        return signatures.signed_by(self.payload, self.signature, state)


Approvals = Callable[[str], Sequence[Verdict]]
"""The approvals that are known of a commit."""


def none(commit: str) -> Sequence[Verdict]:
    """Nobody has approved of anything."""
    return ()


def nothing() -> Sequence[Verdict]:
    """Nobody has approved of this."""
    return ()


def message(base: str, number: int, comment: str) -> str:
    """The tag's message."""
    return f"base {base}\nnumber {number}\n" + (f"\n{comment.strip()}\n" if comment.strip() else "")


def parse(data: bytes) -> Verdict:
    """Raises BadVerdictError."""
    at = min((found for begin in _BEGINS if (found := data.find(b"\n" + begin)) >= 0), default=-1)
    if len(data) > VERDICT_BYTES_MAX:
        raise BadVerdictError(f"an approval has at most {VERDICT_BYTES_MAX:,} bytes")
    if at < 0:
        raise BadVerdictError("the approval is not signed", remedy="owsgit approve signs it, or git tag -s")
    if not data.endswith(_ENDS):  # without the last line end it would be another object that says the same
        raise BadVerdictError("the approval does not end with its signature and one line end")
    payload, signature = data[: at + 1], data[at + 1 :]
    match = _TAG.fullmatch(payload)
    if match is None or match[1] != match[3]:
        raise BadVerdictError(
            "the tag is not an approval: it names its commit twice (object, approve/<commit>), its base and its number",
            remedy="owsgit approve makes it",
        )
    commit, kind, _, base, number, comment = match.groups()
    if int(number) > NUMBER_MAX:
        raise BadVerdictError(f"number {int(number):,} is more than the {NUMBER_MAX:,} that there are")
    return Verdict(
        commit.decode(),
        base.decode(),
        kind.decode(),
        int(number),
        terminal.safe(comment.decode("utf-8", "replace").strip(), 2000),
        payload,
        signature,
    )


class Covers:
    """For each commit of a chain, the approvals that cover it: made of it or of a later one, from a base before it."""

    def __init__(
        self, chain: Sequence[str], start: str | None, approvals: Approvals, is_past: Callable[[str], bool]
    ) -> None:
        self._chain = chain
        self._start = start
        self._approvals = approvals
        self._is_past = is_past
        self._positions: dict[str, int] | None = None

    def of(self, index: int) -> Iterator[Verdict]:
        """Those that cover the commit at `index`, made of it or of one of the REACH commits after it."""
        for later in range(index, min(index + REACH, len(self._chain))):
            for verdict in self._approvals(self._chain[later]):
                if verdict.kind == APPROVE and verdict.commit == self._chain[later] and self._before(verdict, index):
                    yield verdict

    def _before(self, verdict: Verdict, index: int) -> bool:
        if self._positions is None:
            self._positions = {commit: at for at, commit in enumerate(self._chain)}
        at = self._positions.get(verdict.base)
        if at is not None:
            return at < index
        return verdict.base == self._start or self._is_past(verdict.base)
