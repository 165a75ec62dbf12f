"""A whole history, verified with its votes: what anybody with a clone can check, and a new node does check."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from owsgit.ledger import commits, verdicts, verify
from owsgit.ledger.objects import Objects
from owsgit.ledger.verdicts import Approvals
from owsgit.ledger.verify import CommitReport, Review, Verified
from owsgit.model.errors import OwsgitError
from owsgit.model.resource import Kinds
from owsgit.model.state import State
from owsgit.peers import members, recovery
from owsgit.peers.certificates import Certificate, CertificateError
from owsgit.peers.recovery import SignedRecovery

_FETCH = "fetch the notes of another node: git fetch <node> '+refs/notes/owsgit/*:refs/notes/owsgit/*'"


@dataclass(frozen=True)
class Decided:
    """How far the votes reach."""

    head: str | None  # the last head that was decided; the first one that names nodes needs no votes
    chain: tuple[Certificate, ...]  # those that were checked, oldest first
    open: int  # commits after it
    fork: str = ""  # where the nodes decided on something else than this history goes on with, in words

    @property
    def heads(self) -> int:
        """How many heads have a certificate."""
        return len(self.chain)


def walk(
    objects: Objects,
    kinds: Kinds,
    tip: str,
    votes: Mapping[str, Certificate],
    recoveries: Mapping[str, SignedRecovery],
    seen: Callable[[CommitReport], None],
    approvals: Approvals = verdicts.none,
) -> tuple[Verified, Decided]:
    """Verify everything up to `tip`, and the certificates in `votes` (by head) along the way.

    Commits at the end may be undecided: a user's own. Between two decided heads there is always a certificate. Raises
    OwsgitError for the first thing that is wrong.
    """
    review = Review(approvals)
    order: list[str] = []
    first: list[str] = []

    def note(report: CommitReport) -> None:
        order.append(report.commit.id)
        if not first and any(change.resource.kind.name == "node" and change.after for change in report.changes):
            first.append(report.commit.id)
        seen(report)

    chain = _chain(votes, tip, objects)
    head: Verified | None = None
    if chain:
        head = verify.walk(objects, kinds, None, chain[0].instance.head, note, review)
        _check_first(first, chain[0])
    for certificate in chain:
        assert head is not None
        if certificate.instance.head != head.commit:
            raise CertificateError(
                f"commit {certificate.value[:10]} was decided after {certificate.instance.head[:10]}, and the votes "
                f"for what lies between that and {head.commit[:10]} are missing",
                remedy=_FETCH,
            )
        check(certificate, head.state, recoveries)
        head = verify.walk(objects, kinds, head, certificate.value, note, review)
    decided = chain[-1].value if chain else None
    if head is None or head.commit != tip:
        head = verify.walk(objects, kinds, head, tip, note, review)
    if decided is None and first:
        decided = first[0]
    count = len(order) - 1 - order.index(decided) if decided else 0
    return head, Decided(decided, tuple(chain), count, _fork(objects, votes, order))


def _fork(objects: Objects, votes: Mapping[str, Certificate], order: list[str]) -> str:
    """Where the nodes decided on another successor of a commit: one's own work, while main moved on; or a server that
    made this history up."""
    places = {commit: index for index, commit in enumerate(order)}
    for certificate in votes.values():
        head, value = certificate.instance.head, certificate.value
        if head in places and value not in places and not _leads_to(objects, value, order[-1], head):
            here = order[places[head] + 1][:10]
            return f"the nodes decided on {value[:10]} after {head[:10]}, and this history goes on with {here}"
    return ""


def _leads_to(objects: Objects, value: str, tip: str, head: str) -> bool:
    """Whether `tip` lies between `head` and `value`, as an older revision does."""
    at: str | None = value
    for _ in range(verify.PUSH_COMMITS_MAX + 1):
        if at == tip:
            return True
        if at is None or at == head:
            return tip == head
        try:
            at = commits.parse(at, objects.commit(at)).first_parent
        except OwsgitError:  # what was decided is not even here
            break
    return tip == head


def _chain(votes: Mapping[str, Certificate], tip: str, objects: Objects) -> list[Certificate]:
    """The certificates of the heads on the way to `tip`, oldest first."""
    chain: list[Certificate] = []
    passed: set[str] = set()
    at: str | None = tip
    while at is not None:
        if at in passed:
            raise CertificateError(f"the certificates lead in a circle, by way of {at[:10]}", remedy=_FETCH)
        passed.add(at)
        certificate = votes.get(at)
        if certificate is not None:
            chain.append(certificate)
            at = certificate.instance.head
            continue
        at = commits.parse(at, objects.commit(at)).first_parent
    return chain[::-1]


def _check_first(first: list[str], certificate: Certificate) -> None:
    """The first decision is on the successor of the first commit that names nodes; whatever came before needs none."""
    if not first or certificate.instance.head != first[0]:
        raise CertificateError(
            f"the first decision is on the successor of {certificate.instance.head[:10]}, and has to be on that of "
            f"{first[0][:10] if first else 'a commit that names nodes'}: votes are missing",
            remedy=_FETCH,
        )


def check(certificate: Certificate, state: State, recoveries: Mapping[str, SignedRecovery]) -> None:
    """Check one certificate by the state at the head that it is about. Raises CertificateError."""
    lost = None
    if certificate.instance.recovery:
        signed = recoveries.get(certificate.instance.recovery)
        if signed is None or signed.recovery.head != certificate.instance.head:
            raise CertificateError(
                f"commit {certificate.value[:10]} was decided under a recovery whose statement is not here",
                remedy=_FETCH,
            )
        try:
            lost = recovery.check(signed, state).lost
        except OwsgitError as error:
            raise CertificateError(f"the recovery does not hold: {error.problems[0].message}") from None
    certificate.check(members.electorate(state, lost), members.of(state))
