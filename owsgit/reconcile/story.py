"""What the reconciler does, in words: for the pusher's screen and for `owsgit up`."""

from collections.abc import Iterator
from dataclasses import replace

from owsgit.ledger import receive
from owsgit.ledger.ledger import Proposed
from owsgit.ledger.proposals import Proposal
from owsgit.reconcile import plan
from owsgit.reconcile.inventory import Phase
from owsgit.reconcile.loop import Event, Planned, Progress, Settled, Stepped

MISSING_SHOWN_MAX = 30
_WORDS = {Phase.READY: "ready", Phase.FAILED: "FAILED", Phase.SUSPENDED: "suspended"}


def lines(event: Event, failed: str = ": owsgit status shows why") -> Iterator[str]:
    """The lines that tell of `event`; `failed` says where failures are looked at."""
    if isinstance(event, Planned):
        yield f"owsgit: plan: {event.plan.summary()}"
        yield from (f"  {line}" for line in event.plan.lines())
    elif isinstance(event, Progress):
        yield f"  {event.key}: {event.text}"
    elif isinstance(event, Settled):
        yield f"owsgit: done, but {event.failed} failed{failed}" if event.failed else "owsgit: done"
    else:
        yield from _outcome(event)


def _outcome(event: Stepped) -> Iterator[str]:
    name = f"{event.step.resource.kind.name} {event.step.resource.name}"
    if event.row is None:
        yield f"  deleted   {name}"
        return
    first, *more = event.row.message.split("\n")
    where = "".join(f"  {url}" for url in event.row.urls) if event.row.phase is Phase.READY else ""
    told = "; ".join(filter(None, (first, f"{event.seconds:.2f} s")))
    yield f"  {_WORDS.get(event.row.phase, str(event.row.phase)):<9} {name}{where}  ({told})"
    yield from (f"            {line}" for line in more)


def proposed(what: Proposed, complete: str = "nothing is missing but somebody's approval") -> list[str]:
    """A proposal: who signed what, what it would do, and what is not allowed yet; `complete` is said if nothing is."""
    found = list(receive.welcome(what.report))
    made = plan.make(what.base.state.resources, what.report.head.state.resources)
    found += [f"owsgit: plan: {made.summary()}", *(f"  {line}" for line in made.lines())]
    if not what.missing:
        return [*found, f"owsgit: {complete}"]
    found.append("owsgit: not allowed yet:")
    for commit, problem in what.missing[:MISSING_SHOWN_MAX]:
        found += [f"  {line}" for line in replace(problem, message=f"{problem.message} [{commit.short}]").lines()]
    if len(what.missing) > MISSING_SHOWN_MAX:
        found.append(f"  and {len(what.missing) - MISSING_SHOWN_MAX} more")
    return found


def opened(proposal: Proposal) -> list[str]:
    """How it goes on with a proposal that a node has taken."""
    return [
        f"owsgit: proposal {proposal.number} ({proposal.name}, version {proposal.version}) is open; main is as it was",
        f"  to look at it: owsgit show {proposal.number}; then owsgit approve {proposal.number}, or owsgit reject "
        f"{proposal.number}",
    ]
