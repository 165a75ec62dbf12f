"""A node that was restored from a backup: when it may vote again."""

import json
from collections.abc import Mapping
from typing import Any

from owsgit.peers.paxos import Instance
from owsgit.peers.store import RESTORED, Store

DECISIONS_UNTIL_VOTING = 2
"""Of the others, that a restored node sees before it votes again; see `abstains`."""


def abstains(store: Store, own: str, instance: Instance, electorate: frozenset[str]) -> bool:
    """A node from a backup may have forgotten what it voted for since, so it votes only where it cannot have.

    It may have taken part in deciding on the successor of the newest head that a majority knows, or of the one
    after it, and no further: nobody takes part before the head is decided by a majority that is at the one before.
    """
    text = store.fact(RESTORED)
    if text is None:
        return False
    fact = json.loads(text)
    if instance.recovery and instance.recovery not in fact["recoveries"]:
        return False  # the roots say so, and nobody can have voted under their statement before
    if fact.get("only") and electorate == {own}:
        return False
    if not _has_seen_enough(store, instance.head, fact, electorate):
        return True
    store.drop_fact(RESTORED)
    return False


def _has_seen_enough(store: Store, head: str, fact: Mapping[str, Any], electorate: frozenset[str]) -> bool:
    """Whether two decisions came after the newest head, or one under a recovery that is newer than the backup."""
    newest = fact.get("newest") if fact.get("members") == sorted(electorate) else None
    at, steps = head, 0
    while at != newest:
        decided = store.decision_for(at)
        if decided is None or at == fact.get("head"):
            return False
        if decided.instance.recovery and decided.instance.recovery not in fact["recoveries"]:
            return True
        at, steps = decided.instance.head, steps + 1
    return steps >= DECISIONS_UNTIL_VOTING


def note_newest(store: Store, head: str, electorate: frozenset[str], told: int) -> bool:
    """Remember that `head` is the newest, as `told` others of `electorate` say; whether there was need to.

    So many have to say it that they share a member with any majority.
    """
    text = store.fact(RESTORED)
    if text is None:
        return False
    fact = json.loads(text)
    present = sorted(electorate)
    majority = len(present) // 2 + 1
    known = fact.get("newest") is not None and fact.get("members") == present
    if known or told < len(present) - majority + 1:
        return False
    store.put_fact(RESTORED, json.dumps({**fact, "newest": head, "members": present}))
    return True
