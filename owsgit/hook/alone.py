"""The hook in a bare repository without a node: the same verification, in the hook's own process.

The old main is trusted, as this hook let it in; the first push is verified from its genesis commit. Approvals count
where the repository has the nodes' notes: git fetch <node> '+refs/notes/owsgit/*:refs/notes/owsgit/*'.
"""

import os
import time
from pathlib import Path

from owsgit.ledger import receive, verify
from owsgit.ledger.objects import Objects
from owsgit.ledger.repository import NODE_ENVIRONMENT, genesis
from owsgit.ledger.reviews import Reviews
from owsgit.ledger.verify import Review
from owsgit.model.errors import OwsgitError, RefusedError
from owsgit.peers import notes
from owsgit.services import KINDS


def pre_receive(commands: str) -> int:
    """Check the ref updates in `commands` (git's standard input of pre-receive). The exit status for git."""
    os.environ.update(NODE_ENVIRONMENT)
    try:
        update = receive.update(commands)
        if not isinstance(update, receive.RefUpdate):
            raise RefusedError(
                f"{update.ref}: there are proposals and approvals on nodes only, and this is a plain git repository",
                remedy="push to main, or to a node",
            )
        folders = [Path("objects")]
        if quarantine := os.environ.get("GIT_QUARANTINE_PATH"):
            folders.insert(0, Path(quarantine))
        objects = Objects(folders)
        base = None
        if update.old is not None:
            base = verify.load(objects, KINDS, genesis(Path(), update.old), update.old)
        said = Reviews()
        said.keep(notes.Notes(Path()).reviews())
        standing = base.state if base is not None else None
        review = Review(lambda commit: said.standing(commit, standing) if standing is not None else (), time.time())
        report = verify.push(objects, KINDS, base, update.new, review)
    except OwsgitError as error:
        print("\n".join(receive.refusal(error)), flush=True)
        return 1
    print("\n".join(receive.welcome(report)), flush=True)
    return 0
