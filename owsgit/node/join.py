"""The ledger of a node that joins: fetched, verified from the genesis commit with all votes, and put into its home."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from owsgit.ledger.repository import MAIN, NODE_ENVIRONMENT, GitError, Repository, run
from owsgit.ledger.reviews import Reviews
from owsgit.ledger.verdicts import Verdict
from owsgit.ledger.verify import CommitReport, Verified
from owsgit.model.errors import InvalidError, OwsgitError, RefusedError, UnavailableError
from owsgit.model.names import genesis_of
from owsgit.node.home import Home
from owsgit.node.node import hooks_folder
from owsgit.peers import history, notes
from owsgit.peers.store import Store
from owsgit.services import KINDS


@contextmanager
def building(folder: Path) -> Iterator[Home]:
    """The home of a node in the making: at `folder` when it is whole, and gone if anything fails or is killed."""
    target = folder.absolute()
    if target.exists() and any(target.iterdir()):
        raise OwsgitError(f"{target} is not empty", remedy="choose another folder with --home")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
        home = Home(Path(scratch, "home"))
        home.folder.mkdir(mode=0o700)
        yield home
        home.folder.rename(target)


def install(
    home: Home,
    source: str,
    environment: Mapping[str, str],
    project: str,
    refspecs: Sequence[str] = (),
    seen: Callable[[CommitReport], None] = lambda _: None,
) -> Verified:
    """Fill `home` with the ledger at `source` (an address of git, or a bundle), if it is that of `project`.

    Raises UnavailableError without the source, RefusedError and its kin for whatever does not hold.
    """
    wanted = genesis_of(project)
    if wanted is None:
        raise InvalidError(
            f"{project!r} is not a project id", remedy="owsgit status shows it; check for a typing error"
        )
    repository = Repository.create(home.ledger, hooks_folder())
    incoming = "refs/owsgit/incoming"
    specs = [f"+{MAIN}:{incoming}", f"+{notes.FOLDER}/*:{notes.FOLDER}/*", *refspecs]
    fetch = ["-c", "fetch.fsckObjects=true", "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", source, *specs]
    try:
        run(home.ledger, *fetch, env={**NODE_ENVIRONMENT, **environment})
    except GitError as error:
        raise UnavailableError(error.problems[0].message, remedy="check the address, and your key") from None
    tip = run(home.ledger, "rev-parse", incoming, env=NODE_ENVIRONMENT)
    votes = notes.read_votes(home.ledger) or {}
    recoveries = notes.read_recoveries(home.ledger)
    tip = _last_decided(repository, tip, votes)
    used: list[Verdict] = []

    def told(report: CommitReport) -> None:
        used.extend(each.verdict for each in report.approvers)
        seen(report)

    approvals = notes.read_reviews(home.ledger)
    head, decided = history.walk(repository.objects, KINDS, tip, votes, recoveries, told, approvals)
    if head.state.genesis != wanted:
        raise RefusedError(
            f"this is the history of another project: it begins with {head.state.genesis[:10]}, not {wanted[:10]}",
            remedy="check the address, and the project id with whoever gave it to you",
        )
    if decided.fork:
        raise RefusedError(decided.fork, remedy="it is not what the nodes decided: join from another node")
    store = Store(home.votes)
    try:
        # only what was checked on the way: other notes may say anything
        for id_ in {certificate.instance.recovery for certificate in decided.chain} & recoveries.keys():
            store.put_recovery(recoveries[id_])
        store.put_decisions(list(decided.chain))
    finally:
        store.close()
    reviews = Reviews(home.reviews)
    reviews.keep(used)
    reviews.close()
    run(home.ledger, "update-ref", MAIN, head.commit, env=NODE_ENVIRONMENT)
    run(home.ledger, "update-ref", "-d", incoming, env=NODE_ENVIRONMENT)
    home.verified.write_text(head.commit + "\n")
    return head


def _last_decided(repository: Repository, tip: str, votes: Mapping[str, object]) -> str:
    """The newest head with votes: what is newer comes from the other nodes. Without any votes, the tip."""
    commits = run(repository.path, "rev-list", "--first-parent", tip, env=NODE_ENVIRONMENT).split("\n")
    return next((commit for commit in commits if commit in votes), tip)
