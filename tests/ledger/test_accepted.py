"""What an earlier version took: this one reads it, verifies it, and makes nothing else of it."""

from pathlib import Path

import pytest

from owsgit.ledger import verify
from owsgit.ledger.objects import Objects
from owsgit.ledger.repository import run
from owsgit.services import KINDS
from tests.support import accepted, people

BUNDLES = sorted(accepted.FOLDER.glob("*.bundle"))


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.stem)
def test_a_ledger_that_was_taken_once_is_taken_for_ever(bundle: Path, tmp_path: Path) -> None:
    run(None, "clone", "-q", "--bare", str(bundle), str(tmp_path / "ledger.git"), env=people.CLEAN)
    objects, tip = Objects([tmp_path / "ledger.git/objects"]), run(tmp_path / "ledger.git", "rev-parse", "main")
    reports: list[verify.CommitReport] = []
    head = verify.walk(objects, KINDS, None, tip, reports.append)
    assert len(reports) > 1
    assert verify.load(objects, KINDS, head.state.genesis, tip).state.resources == head.state.resources
    verify.load_tree(objects, KINDS, head.state.genesis, head.tree)


def test_the_last_of_them_has_all_kinds(tmp_path: Path) -> None:
    run(None, "clone", "-q", "--bare", str(BUNDLES[-1]), str(tmp_path / "ledger.git"), env=people.CLEAN)
    objects, tip = Objects([tmp_path / "ledger.git/objects"]), run(tmp_path / "ledger.git", "rev-parse", "main")
    made: set[str] = set()

    def seen(report: verify.CommitReport) -> None:
        made.update(change.after.kind.name for change in report.changes if change.after is not None)

    verify.walk(objects, KINDS, None, tip, seen)
    assert made == {kind.name for kind in KINDS} - {"secret"}, "secrets are sealed for nodes' keys"
