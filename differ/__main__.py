"""A node's tables and other implementations of DynamoDB's API are sent the same requests: their answers are compared.

The requests are those of tests/services/tables/validation.yaml, of scenarios.yaml, and random ones. What may differ is
left out of answers (times, ids, ARNs, the order of sets and of scans). The peers are not AWS: each lasting difference
stands in differences.yaml, with the reason why ours is AWS's answer and where that is documented. A difference that is
not listed there, or an entry that no difference matches any more, is a failure.

    .venv/bin/python -m differ [--peer extenddb] [--cases 600] [--seed 1] [--all]
"""

import argparse
import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from bench.table_peers import PEERS, Answer, Target, ours
from differ.generated import Generator, Step
from tests.services.tables import cases

FOLDER = Path(__file__).resolve().parent
CASES = 600
"""Random scenarios that show every listed difference: with fewer, or with another seed, none is missed."""

SHOWN_CHARACTERS_MAX = 600
UNSTABLE = re.compile(
    r"(Arn|Id|DateTime|ProvisionedThroughput|WarmThroughput|OnDemandThroughput|TableThroughputModeSummary|BillingModeSummary"
    r"|TableSizeBytes|ItemCount|IndexSizeBytes|DeletionProtectionEnabled|SizeEstimateRangeGB)$"
)
"""Members that differ from server to server, or from moment to moment."""


class Difference(NamedTuple):
    peer: str
    case: str
    step: Step
    mine: str
    theirs: str

    def __str__(self) -> str:
        operation, asked = self.step
        request = json.dumps(asked, default=repr, ensure_ascii=False)[:SHOWN_CHARACTERS_MAX]
        mine, theirs = self.mine[:SHOWN_CHARACTERS_MAX], self.theirs[:SHOWN_CHARACTERS_MAX]
        return f"{self.case}\n  {operation} {request}\n  ours: {mine}\n  {self.peer}: {theirs}"


@dataclass
class Known:
    """An entry of differences.yaml: patterns of the case (operation, name and request) and of both answers.

    `sometimes`: whether it is seen is a matter of time.
    """

    reason: str
    source: str
    peers: list[str]
    case: str = ""
    answers: str = ""
    sometimes: bool = False
    found: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._case, self._answers = (re.compile(each, re.MULTILINE) for each in (self.case, self.answers))

    def covers(self, given: Difference) -> bool:
        operation, asked = given.step
        return (
            given.peer in self.peers
            and self._case.search(f"{operation}: {given.case}\n{json.dumps(asked, default=repr)}") is not None
            and self._answers.search(f"{given.mine}\n{given.theirs}") is not None
        )


def scenarios(count: int, seed: int) -> Iterator[tuple[str, list[Step]]]:
    for case in cases.validation():
        yield f"validation {case}", [(case.operation, case.ask)]
    for name, steps in yaml.load((FOLDER / "scenarios.yaml").read_text(), yaml.CSafeLoader).items():
        yield name, [(operation, cases.expanded(asked)) for operation, asked in steps]
    yield from Generator(seed).scenarios(count)


def comparable(operation: str, answer: Answer) -> str:
    """What of an answer has to be the same: of an error its code, its message and its reasons."""
    try:
        body = json.loads(answer.body)
    except ValueError:
        return f"{answer.status} {answer.body[:SHOWN_CHARACTERS_MAX]!r}"
    if answer.status != 200:
        code = str(body.get("__type", "")).rpartition("#")[2]
        message = body.get("message", body.get("Message"))
        rest = {name: _steady(body[name]) for name in ("CancellationReasons", "Item") if name in body}
        return f"{answer.status} {code} {message} {json.dumps(rest, sort_keys=True) if rest else ''}".rstrip()
    if operation == "Scan" and isinstance(body.get("Items"), list):
        body["Items"].sort(key=lambda item: json.dumps(_steady(item), sort_keys=True))
        del body["ScannedCount"]  # other scenarios may have left more at one of them
    return f"{answer.status} {json.dumps(_steady(body), sort_keys=True, ensure_ascii=False)}"


def _steady(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _steady(each, key) for key, each in value.items() if not UNSTABLE.search(key)}
    if isinstance(value, list):
        steady = [_steady(each) for each in value]
        unordered = name in ("SS", "NS", "BS", "AttributeDefinitions", "GlobalSecondaryIndexes", "ConsumedCapacity")
        return sorted(steady, key=lambda each: json.dumps(each, sort_keys=True)) if unordered else steady
    return value


class Restarting:
    """A peer that is started again, with empty tables, once it is gone: dynalite ends with its first fault."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._folder = folder
        self._starts = 0
        self._stack = ExitStack()
        self._start()

    def _start(self) -> None:
        self._starts += 1
        folder = self._folder / str(self._starts)
        folder.mkdir(parents=True)
        self._target = self._stack.enter_context(PEERS[self.name](folder, cases.TABLES))

    def ask(self, operation: str, document: Any) -> Answer:
        try:
            return self._target.ask(operation, document)
        except OSError:
            self.close()
            self._start()
            return Answer(0, b"no answer")

    def close(self) -> None:
        self._stack.close()


def compared(mine: Target, theirs: Restarting, given: Iterable[tuple[str, list[Step]]]) -> Iterator[Difference | None]:
    """None for each scenario without a difference. After the first, the rest of a scenario says no more."""
    for name, steps in given:
        for step in steps:
            one, other = (comparable(step[0], target.ask(*step)) for target in (mine, theirs))
            if one != other:
                yield Difference(theirs.name, name, step, one, other)
                break
        else:
            yield None


def main() -> None:
    parser = argparse.ArgumentParser(prog="differ")
    parser.add_argument("--peer", action="append", choices=PEERS, help="all, where none is given")
    parser.add_argument("--cases", type=int, default=CASES, help="random scenarios")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--all", action="store_true", help="show differences that are listed, too")
    given = parser.parse_args()
    known = [Known(**each) for each in yaml.load((FOLDER / "differences.yaml").read_text(), yaml.CSafeLoader)]
    unlisted = 0
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name in given.peer or PEERS:
            (folder / name / "ours").mkdir(parents=True)
            with ExitStack() as pair:
                mine = pair.enter_context(ours(folder / name / "ours", cases.TABLES))
                theirs = pair.enter_context(closing(Restarting(name, folder / name)))
                unlisted += _tell(compared(mine, theirs, scenarios(given.cases, given.seed)), known, name, given.all)
    asked = set(given.peer or PEERS)
    stale = [
        f"{peer}: {each.reason}"
        for each in known
        for peer in each.peers
        if peer in asked and not each.found[peer] and not each.sometimes
    ]
    if given.cases < CASES or given.seed != 1:
        stale = []
    if stale:
        print("listed in differences.yaml, but not seen any more:", *stale, sep="\n  ")
    sys.exit(bool(unlisted or stale))


def _tell(found: Iterable[Difference | None], known: list[Known], peer: str, shows: bool) -> int:
    """How many differences are not listed."""
    counts: Counter[str] = Counter()
    for each in found:
        listed = next((entry for entry in known if each is not None and entry.covers(each)), None)
        counts["same" if each is None else "listed" if listed else "unlisted"] += 1
        if listed:
            listed.found[peer] += 1
        if each is not None and (shows or not listed):
            print(each, *([f"  listed: {listed.reason}"] if listed else []), sep="\n", flush=True)
    print(f"{peer}: {counts['same']} the same, {counts['listed']} listed differences, {counts['unlisted']} unlisted")
    return counts["unlisted"]


if __name__ == "__main__":
    main()
