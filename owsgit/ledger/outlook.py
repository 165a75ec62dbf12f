"""What a node would say of commits, before they are pushed: for reviewers, CI and hooks of a clone."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from owsgit.ledger import changes, grants, verdicts, verify
from owsgit.ledger.commits import Commit
from owsgit.ledger.ledger import Proposed
from owsgit.ledger.objects import Objects
from owsgit.ledger.signatures import Signer
from owsgit.ledger.verdicts import Approvals
from owsgit.ledger.verify import NotFastForwardError, Review, Verified
from owsgit.model import keys
from owsgit.model.core import UserSpec
from owsgit.model.errors import OwsgitError, Problem
from owsgit.model.resource import Kinds


@dataclass(frozen=True)
class Outlook:
    """What was found; `proposed` is None where the commits cannot follow whatever is approved."""

    proposed: Proposed | None
    problems: tuple[Problem, ...] = ()
    overtaken: bool = False

    @property
    def accepted(self) -> bool:
        """Whether a node would take the commits as they are."""
        return self.proposed is not None and not self.proposed.missing and not self.problems


def look(objects: Objects, kinds: Kinds, base: Verified, tip: str, approvals: Approvals = verdicts.none) -> Outlook:
    """Verify the commits after `base` up to `tip`, as a node does to which they are pushed."""
    missing: list[tuple[Commit, Problem]] = []

    def note(commit: Commit, problems: Sequence[Problem]) -> None:
        missing.extend((commit, problem) for problem in problems)

    try:
        report = verify.push(objects, kinds, base, tip, Review(approvals, time.time(), note))
    except NotFastForwardError as error:
        return Outlook(None, error.problems, overtaken=True)
    except OwsgitError as error:
        return Outlook(None, error.problems)
    return Outlook(Proposed(base, report, tuple(missing)))


def merged_by(objects: Objects, base: Verified, tree: str, user: str) -> list[Problem]:
    """What `user`, as whom a forge signs merges, may not do of all that lies between `base` and `tree`.

    Raises InvalidError for a tree that is not valid.
    """
    holder = base.state.get("user", user)
    first = next(iter(holder.spec.keys), "") if holder is not None and isinstance(holder.spec, UserSpec) else ""
    algorithm = "openpgp" if not first or keys.is_openpgp(first) else keys.parse_ssh(first).algorithm
    found = changes.between(objects, base.state, base.tree, tree)
    base.state.after(found.resources)
    signatories = grants.Signatories(base.state, Signer(user, algorithm, ""))
    _, denied = verify.decisions(signatories, verify.needs(base.state, found, adds_history=True))
    return [*denied, *grants.root_problems(signatories, found.resources)]
