"""What a node keeps of reviews, and what neighbours tell of them."""

import pytest

from owsgit.ledger import reviews
from owsgit.ledger.reviews import Reviews
from owsgit.ledger.verdicts import APPROVE, Verdict


def verdict(commit: int, number: int) -> Verdict:
    payload = f"{commit} {number}".encode()
    return Verdict(f"{commit:040x}", "0" * 40, APPROVE, number, "", payload, b"")


def test_what_one_neighbour_makes_up_is_bounded_and_crowds_out_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reviews, "TOLD_MAX", 1_000)
    known = Reviews()
    honest = verdict(7, 1)
    known.tell([honest], "honest")
    known.tell((verdict(7, number) for number in range(2, 2_000)), "evil")
    assert honest in known.approvals(honest.commit)
    assert len(known.approvals(honest.commit)) <= 1 + reviews.TOLD_OF_ONE_COMMIT_MAX
    known.tell((verdict(commit, 1) for commit in range(100, 5_000)), "evil")
    told = [each for commit in range(100, 5_000) for each in known.approvals(f"{commit:040x}")]
    assert len(told) <= 1_000 and verdict(4_999, 1) in told, "the newest are kept"
    assert list(known.approvals(honest.commit)) == [honest]
    known.forget_told()
    assert not known.approvals(honest.commit) and not known.approvals(f"{4_999:040x}")
