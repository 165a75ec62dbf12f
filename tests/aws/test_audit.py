"""The audit log against those who would fill it, or draw with it."""

import json
from pathlib import Path
from typing import Any

import pytest

from owsgit.aws import audit as audits
from owsgit.aws.audit import DATA, IDLE_BURST, MESSAGE_CHARACTERS_MAX, NAMELESS_BURST, RESOURCES_MAX, Audit, Record
from owsgit.cli.audit import shown


def record(**given: Any) -> Record:
    fields: dict[str, Any] = {
        "request_id": "id", "who": "", "access_key": "", "address": "192.0.2.1", "service": "sts", "operation": "",
        "actions": [], "resources": [], "status": 403, "error": "x", "message": "", "reason": "", "milliseconds": 1.0,
    }  # fmt: skip
    return Record(**{**fields, **given})


def written(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line)["record"] for line in (folder / "current.jsonl").read_text().splitlines()]


def test_who_has_no_credentials_does_not_drive_the_others_out(tmp_path: Path) -> None:
    audit = Audit(tmp_path, "a")
    for _ in range(NAMELESS_BURST * 3):
        audit.write(record())
        audit.write(record(access_key="ASIA", who="bob", error=""))
    audit.close()
    records = written(tmp_path)
    assert sum("accessKey" in each for each in records) == NAMELESS_BURST * 3
    assert NAMELESS_BURST <= sum("accessKey" not in each for each in records) <= NAMELESS_BURST + 2


@pytest.mark.parametrize("milliseconds", [0.0, 0.21, 12.0, 123456.78])
@pytest.mark.parametrize("who", ["arn:aws:iam::1:user/bob", 'a"b\\', "\u00e9\u2028", "half \ud800"])
def test_the_line_of_a_call_that_succeeded_says_what_every_line_says(who: str, milliseconds: float) -> None:
    made = record(
        access_key="ASIA", who=who, service="dynamodb", operation="GetItem", actions=["dynamodb:GetItem"],
        resources=[f"table/{who}"], status=200, error="", milliseconds=milliseconds, is_data=True,
    )  # fmt: skip
    line = json.loads(audits.line(made, audits.source("node-\u00e9")))
    assert list(line) == ["time", "requestId", "level", "audit", "node", "message", "record"]
    assert list(line["record"].items()) == list(made.document().items())
    assert line["message"] == made.text()
    assert (line["requestId"], line["level"], line["node"]) == ("id", "INFO", "node-\u00e9")


def test_what_is_kept_to_write_lines_is_short() -> None:
    audits._usual.cache_clear()
    long = record(
        status=200, error="", actions=["dynamodb:PartiQLSelect"], resources=["x" * (MESSAGE_CHARACTERS_MAX + 1)]
    )
    assert json.loads(audits.line(long, audits.source("a")))["record"]["resources"] == ["x" * MESSAGE_CHARACTERS_MAX]
    assert audits._usual.cache_info().currsize == 0


def test_data_events_stand_apart_and_what_was_denied_with_the_rest(tmp_path: Path) -> None:
    audit, known = Audit(tmp_path, "a"), {"access_key": "ASIA", "who": "bob", "error": ""}
    audit.write(record(**known, operation="ListTables"))
    denied = {"error": "AccessDeniedException", "reason": "no policy"}
    for _ in range(IDLE_BURST * 2):
        audit.write(record(**known, operation="PutItem", is_data=True))
        audit.write(record(**known | denied, operation="GetItem", is_data=True))
    audit.write(record(**known | denied | {"who": "carol"}, operation="Scan", is_data=True))
    audit.close()
    others, data = written(tmp_path), written(tmp_path / DATA)
    assert others[0]["operation"] == "ListTables" and others[-1]["who"] == "carol"
    assert len(others) + len(data) == IDLE_BURST * 4 + 2, "nothing is lost"
    assert IDLE_BURST <= sum(each["operation"] == "GetItem" for each in others) < IDLE_BURST * 2
    assert not any(each["operation"] == "PutItem" for each in others)


def test_what_changes_nothing_drives_out_no_call_that_does(tmp_path: Path) -> None:
    audit, known = Audit(tmp_path, "a"), {"access_key": "ASIA", "who": "bob", "error": ""}
    for _ in range(IDLE_BURST):
        audit.write(record(**known, operation="DescribeTable"))
        audit.write(record(**known | {"error": "ValidationException"}, operation="CreateTable"))
        audit.write(record(**known, operation="GetSessionToken"))
    audit.write(record(**known | {"who": "carol"}, operation="ListTables"))
    audit.close()
    kept = [each["operation"] for each in written(tmp_path)]
    assert kept.count("GetSessionToken") == IDLE_BURST and kept[-1] == "ListTables"
    assert IDLE_BURST <= kept.count("DescribeTable") + kept.count("CreateTable") < IDLE_BURST * 2
    assert len(kept) + len(written(tmp_path / DATA)) == IDLE_BURST * 3 + 1, "nothing is lost"


def test_a_record_is_short_whatever_the_client_says(tmp_path: Path) -> None:
    audit = Audit(tmp_path, "a")
    audit.write(record(access_key="ASIA", message="\n\x1b\ud800" * 10**6, resources=["arn" * 10**5] * 1000))
    audit.close()
    (found,) = written(tmp_path)
    assert len(found["message"]) == MESSAGE_CHARACTERS_MAX and len(found["resources"]) == RESOURCES_MAX
    assert (tmp_path / "current.jsonl").stat().st_size < 1_000_000


def test_people_are_told_why_credentials_were_not_good() -> None:
    given = {"message": "The security token included in the request is invalid.", "reason": "the key is not bob's"}
    assert shown({"record": given}).endswith("request is invalid.  the key is not bob's")


@pytest.mark.parametrize(
    "given",
    [
        {"who": "\x1b[2J", "message": "\x1b]0;x\x07\u202e\x9b1m\n", "resources": ["\x1b[31m"]},
        {"who": None, "resources": 5, "ms": {}, "status": [], "leftOut": "\x1b", "operation": ["\x1b"]},
        {"resources": {"a": 1}, "error": {"x": "\x1b"}, "message": 5},
    ],
)
def test_what_a_node_tells_draws_nothing_and_breaks_nothing(given: dict[str, Any]) -> None:
    text = shown({"time": "\x1b", "node": "\x9b", "record": given})
    assert text.isprintable()


def test_sessions_of_a_role_have_no_bound_of_their_own_each(tmp_path: Path) -> None:
    audit = Audit(tmp_path, "a")
    for number in range(IDLE_BURST + 100):
        who = f"arn:aws:sts::123456789012:assumed-role/clerk/session-{number}"
        audit.write(record(access_key="ASIA", who=who, error="", operation="DescribeTable"))
    audit.close()
    assert IDLE_BURST <= len(written(tmp_path)) < IDLE_BURST + 50
    assert len(written(tmp_path)) + len(written(tmp_path / DATA)) == IDLE_BURST + 100
