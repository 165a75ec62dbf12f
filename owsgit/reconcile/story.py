"""What the reconciler does, in words: for the pusher's screen and for `owsgit up`."""

from collections.abc import Iterator

from owsgit.reconcile.inventory import Phase
from owsgit.reconcile.loop import Event, Planned, Settled, Stepped

_WORDS = {Phase.READY: "ready", Phase.FAILED: "FAILED", Phase.SUSPENDED: "suspended"}


def lines(event: Event) -> Iterator[str]:
    """The lines that tell of `event`."""
    if isinstance(event, Planned):
        yield f"owsgit: plan: {event.plan.summary()}"
        yield from (f"  {line}" for line in event.plan.lines())
    elif isinstance(event, Settled):
        yield f"owsgit: done, but {event.failed} failed: owsgit status shows why" if event.failed else "owsgit: done"
    else:
        yield from _outcome(event)


def _outcome(event: Stepped) -> Iterator[str]:
    name = f"{event.step.resource.kind.name} {event.step.resource.name}"
    if event.row is None:
        yield f"  deleted   {name}"
        return
    first, *more = event.row.message.split("\n")
    where = "".join(f"  {url}" for url in event.row.urls) if event.row.phase is Phase.READY else ""
    yield f"  {_WORDS.get(event.row.phase, str(event.row.phase)):<9} {name}{where}  ({first}; {event.seconds:.2f} s)"
    yield from (f"            {line}" for line in more)
