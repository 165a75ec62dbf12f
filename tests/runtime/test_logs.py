"""The log of a function: its lines, its bounds, and how it is read."""

import asyncio
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from owsgit.model.service import Invocation
from owsgit.model.strictjson import JSON_DEPTH_MAX
from owsgit.runtime import log_lines, log_reader, logs, transcript
from owsgit.runtime.config import FunctionConfig
from owsgit.runtime.log_lines import Entry, Source, classify, message
from owsgit.runtime.log_reader import Cursor, Query, Reader, last_lines
from owsgit.runtime.logs import FunctionLog, LogSettings

DAY = logs.DAY_SECONDS


def settings(level: str | None = None, days: int = 14) -> LogSettings:
    return LogSettings(Source("f", "a"), level, days)


def texts(lines: list[bytes]) -> list[str]:
    return [message(line) for line in lines]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("plain", "INFO"),
        ("[WARNING]\t2026-01-01T00:00:00.000Z\trequest-0\tcareful", "WARN"),
        ("[ERROR] ValueError: no\nTraceback", "ERROR"),
        ("[CRITICAL]\tx", "FATAL"),
        ("[NOTSEEN]\tx", "INFO"),
        ("2026-01-01T00:00:00.000Z\t8476a536-e9f4-11e8-9739-2dfe598c3fcd\tERROR\tInvoke Error", "ERROR"),
        ("2026-01-01T00:00:00.000Z\tundefined\tDEBUG\tx", "DEBUG"),
        ('{"level": "warning", "msg": 1}', "WARN"),
        ('{"level": 60}', "FATAL"),
        ('{"level": [1]}', "INFO"),
        ('{"level": "ERROR"', "INFO"),
        ("START RequestId: x Version: $LATEST", "INFO"),
    ],
)
def test_the_level_is_what_lambdas_runtimes_write(text: str, level: str) -> None:
    assert classify(text).level == level


@pytest.mark.parametrize(
    "text",
    [
        "[" * 5000 + "]" * 5000,
        '{"a":' * 5000 + "1" + "}" * 5000,
        '{"a": NaN}',
        '{"a": 1, "a": 2}',
        '{"a": "' + "x" * log_lines.RECORD_BYTES_MAX + '"}',
        '{"a": ' + "9" * 9000 + "}",
        '{"a": "\\ud800"}',
        "{}x}",
    ],
)
def test_what_is_no_plain_object_stays_text(text: str) -> None:
    assert classify(text).record is None and classify(text).message == text


def test_an_object_is_kept_and_what_it_forges_overrides_nothing(folder: Path) -> None:
    log = FunctionLog(folder, settings())
    forged = {
        "time": "0",
        "requestId": "x",
        "level": "ERROR",
        "function": "g",
        "node": "z",
        "message": "m",
        "record": 1,
    }
    log.append("r1", [classify(json.dumps(forged)), classify('x", "level": "FATAL", "node": "z')])
    first, second = (json.loads(line) for line in last_lines(folder, 9))
    assert first["record"] == forged and first["message"] == json.dumps(forged)
    for line in (first, second):
        assert (line["requestId"], line["function"], line["node"]) == ("r1", "f", "a") and line["time"].endswith("Z")
    assert [first["level"], second["level"]] == ["ERROR", "INFO"]
    assert len(last_lines(folder, 9, Query(level="FATAL"))) == 0


def test_lines_below_the_level_are_dropped_but_not_the_nodes_own(folder: Path) -> None:
    log = FunctionLog(folder, settings("ERROR"))
    log.append("r", [Entry("a"), Entry("b", "ERROR"), Entry("c", "PLATFORM", platform=True), Entry("d", "FATAL")])
    assert texts(last_lines(folder, 9)) == ["b", "c", "d"]


def test_a_log_is_bounded_and_followed_over_its_rotations(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "LOG_FILE_BYTES_MAX", 4000)
    log = FunctionLog(folder)
    log.write("r0", ["before"])
    reader = Reader(folder).to_end()
    assert reader.read() == ([], False)
    seen: list[str] = []
    for number in range(200):
        log.write("r1", [f"line {number}", "ü\n\ud800"])
        if number % 7 == 0:
            seen += texts(list(reader))
    seen += texts(list(reader))
    assert [text for text in seen if text.startswith("line")] == [f"line {number}" for number in range(200)]
    assert len(list(folder.glob("*.jsonl"))) <= logs.LOG_FILES_MAX
    assert sum(path.stat().st_size for path in folder.iterdir()) < 20_000
    assert texts(last_lines(folder, 4))[0] == "line 198"
    assert last_lines(folder, 0) == [] == last_lines(folder / "none", 9)


def test_all_files_are_read_for_the_last_lines(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "LOG_FILE_BYTES_MAX", 10_000)
    monkeypatch.setattr(log_reader, "BLOCK_BYTES", 333)
    log = FunctionLog(folder)
    while not (folder / "3.jsonl").exists():
        log.write("r", [f"line {index} {'x' * (index % 50)}" for index in range(20)])
    files = [folder / name for name in reversed(logs.names()) if (folder / name).exists()]
    everything = [line for file in files for line in file.read_bytes().splitlines()]
    for count in (1, 2, 57, len(everything) - 1, len(everything), 99_999):
        assert last_lines(folder, count) == everything[-count:], count
    wanted = [line for line in everything if message(line).startswith("line 7 ")]
    assert last_lines(folder, 5, Query(text="line 7 ")) == wanted[-5:]


def test_lines_are_found_by_time_text_level_and_request(folder: Path) -> None:
    log = FunctionLog(folder, settings())
    log.append("r1", [Entry('say "no"\n', "WARN"), Entry("n", "ERROR"), Entry("START", "PLATFORM", platform=True)])
    time.sleep(0.005)
    log.append('r"2', [Entry("later")])
    later = json.loads(last_lines(folder, 1)[0])["time"]

    def found(**query: str) -> list[str]:
        return texts(last_lines(folder, 9, Query(**query)))

    assert found(text='"no"') == ['say "no"\n'] and found(text="\\") == []
    assert found(text="n") == ['say "no"\n', "n"], "the n of an escaped line end is none"
    assert found(level="WARN") == ['say "no"\n', "n"] and found(level="FATAL") == []
    assert found(request='r"2') == ["later"] == found(since=later)
    assert len(found(since="2020-01-01T00:00:00.000Z")) == 4


def test_a_cursor_goes_on_where_it_was_over_rotations_and_restarts(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "LOG_FILE_BYTES_MAX", 3000)
    log = FunctionLog(folder)
    cursor, seen = "", list[str]()
    for number in range(120):
        log.write("r", [f"line {number}"])
        if number % 10 == 9:
            log.close()
            log = FunctionLog(folder)
            reader = Reader(folder).to(Cursor.parse(cursor)) if cursor else Reader(folder)
            seen += texts(list(reader))
            cursor = str(reader.cursor)
            reader.close()
    assert seen == [f"line {number}" for number in range(120)]
    assert len(texts(list(Reader(folder).to(Cursor(1, 2, 3))))) > 20, "a place that is gone: from the oldest line on"
    for bad in ("", "1-2", "x-y-z", "-1-2-3", "1-2-3-4"):
        with pytest.raises(ValueError):
            Cursor.parse(bad)


def test_damage_is_skipped_and_a_torn_line_spoils_no_other(folder: Path) -> None:
    log = FunctionLog(folder)
    log.write("r", ["one"])
    log.close()
    with (folder / logs.CURRENT).open("ab") as file:
        file.write(b"\0\0\0\nnot json\n" + b"x" * (log_reader.STORED_LINE_BYTES_MAX + 10) + b"\n" + b'{"time": "20')
    log = FunctionLog(folder)
    log.write("r", ["two"])
    assert texts(last_lines(folder, 9)) == ["one", "two"] == texts(list(Reader(folder)))


def test_old_files_go_and_those_of_a_deleted_function_as_well(folder: Path) -> None:
    log = FunctionLog(folder)
    log.configure(settings(days=3))
    log.write("r", ["old"])
    (folder / logs.CURRENT).rename(folder / "1.jsonl")
    log.close()
    log.write("r", ["new"])
    os.utime(folder / "1.jsonl", (time.time() - 3 * DAY - 9,) * 2)
    log.sweep()
    assert sorted(path.name for path in folder.iterdir()) == [logs.CURRENT, logs.RETENTION]
    os.utime(folder / logs.CURRENT, (time.time() - 3 * DAY + 99,) * 2)
    logs.sweep_forgotten(folder)
    assert texts(last_lines(folder, 9)) == ["new"]
    os.utime(folder / logs.CURRENT, (time.time() - 3 * DAY - 9,) * 2)
    log.sweep()
    log.write("r", ["goes on"])
    assert texts(last_lines(folder, 9)) == ["goes on"]
    os.utime(folder / logs.CURRENT, (time.time() - 3 * DAY - 9,) * 2)
    logs.sweep_forgotten(folder)
    assert not folder.exists()


def test_a_quiet_functions_first_lines_do_not_outstay_by_far(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = FunctionLog(folder, settings(days=3))
    log.write("r", ["one"])
    log.close()
    real = time.time
    monkeypatch.setattr(logs.time, "time", lambda: real() + DAY + 99)
    log.write("r", ["two"])
    assert (folder / "1.jsonl").exists() and not (folder / logs.CURRENT).exists()


def test_a_function_writes_so_much_a_second_and_the_rest_is_counted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "LOG_BYTES_PER_SECOND_MAX", 20_000)
    monkeypatch.setattr(logs, "LOG_BURST_BYTES_MAX", 2000)
    log = FunctionLog(folder, settings())
    for _ in range(50):
        log.append("r", [Entry("x" * 200)])
    log.append("r", [Entry("REPORT", "PLATFORM", platform=True)])
    assert 3 < len(last_lines(folder, 99)) < 30 and texts(last_lines(folder, 1)) == ["REPORT"]
    deadline = time.monotonic() + 20
    while not any("lines are dropped" in text for text in texts(last_lines(folder, 99))):
        assert time.monotonic() < deadline
        log.append("r", [Entry("again")])
    assert texts(last_lines(folder, 1)) == ["again"]


TALKS_ON = """
import threading, sys

def talk():
    while True:
        sys.stdout.write("between\\n" * 100)

started = []

def handler(event, context):
    if event == "start":
        started.append(threading.Thread(target=talk, daemon=True))
        started[0].start()
    print("served", event)
"""


def test_what_threads_write_between_requests_for_ever_is_bounded(
    function: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transcript, "REST_BURST_BYTES_MAX", 100_000)
    made = function(TALKS_ON)
    made("start")
    size = len(made.log())

    async def rest() -> None:
        async with asyncio.timeout(60):
            while not any("between requests; the rest is dropped" in line for line in made.log()[size:]):
                await asyncio.sleep(0.1)

    made.lab.loop.run_until_complete(rest())
    between = made.log()[size:]
    assert len(between) < 12_000, "a hundred thousands of lines were written"
    assert made("next") is None
    assert any(line.startswith("REPORT RequestId: request-0") for line in made.log()[size:]), "it goes on meanwhile"


def test_platform_lines_and_faults_have_their_levels(function: Callable[..., Any]) -> None:
    made = function("import os, logging\ndef handler(e, c):\n    logging.error('bad'); os._exit(3)\n")
    made.error()
    lines = [json.loads(line) for line in last_lines(made.folder / "log", 99)]
    levels = {line["message"].split()[0]: line["level"] for line in lines}
    assert levels["START"] == levels["END"] == levels["REPORT"] == "PLATFORM"
    assert levels["[ERROR]"] == "ERROR" == levels["Runtime.ExitError"]


def test_a_secret_in_an_object_is_masked_behind_its_escapes() -> None:
    config = FunctionConfig("f", "arn", "python", "app.handler", Path(), 1, 128, {}, "r", "1", {"KEY": 'pass"word"1'})
    made = transcript.Transcript(config, FunctionLog(Path("/nonexistent")))
    entry = made._entry(json.dumps({"a": ['x pass"word"1'], 'pass"word"1': 1}).encode())
    assert entry.record == {"a": ["x ***"], "***": 1} and "word" not in entry.message


def test_a_report_is_masked_as_deep_as_any_json_is_read() -> None:
    config = FunctionConfig("f", "arn", "python", "app.handler", Path(), 1, 128, {}, "r", "1", {"KEY": "password1"})
    made = transcript.Transcript(config, FunctionLog(Path("/nonexistent")))

    def nested(depth: int) -> str:
        report: Any = "password1"
        for _ in range(depth):
            report = [report]
        return json.dumps(made.masked(report)).strip("[]")

    assert nested(JSON_DEPTH_MAX) == '"***"'
    assert nested(5000) == "null"


def transcribed(folder: Path, secrets: dict[str, str]) -> transcript.Transcript:
    config = FunctionConfig("f", "arn", "python", "app.handler", Path(), 1, 128, {}, "r", "1", secrets)
    made = transcript.Transcript(config, FunctionLog(folder))
    made.begin(Invocation(b"{}", "request"))
    return made


def test_thousands_of_lines_of_a_secret_are_looked_for_at_once(tmp_path: Path) -> None:
    made = transcribed(tmp_path, {"KEY": "\n".join(f"{number:06}x{'é' * (number % 3)}" for number in range(4000))})
    began = time.thread_time()
    entry = made._entry("000001xé-000002xééé-".encode() + b"0" * 65536)
    assert time.thread_time() - began < 0.1
    assert entry.message == "***-***é-" + "0" * 65536
    assert made.masked({"\ud800000003x": "\ud800"}) == {"\ud800***": "\ud800"}


def test_a_long_line_that_comes_byte_by_byte_is_not_looked_through_with_each(tmp_path: Path) -> None:
    made = transcribed(tmp_path, {})
    made.take(b"x" * 250_000)
    began = time.thread_time()
    for _ in range(2000):
        made.take(b"y")
    assert time.thread_time() - began < 0.1
    made.take(b"\nnext\nrest")
    made.take(b"")
    messages = [json.loads(line)["message"] for line in last_lines(tmp_path, 99)]
    assert messages[1:] == ["x" * 250_000 + "y" * 2000, "next", "rest"]


def test_an_integer_of_any_size_stands_in_a_record() -> None:
    """JSON has no bound for them; what writes records has one."""
    text = f'{{"n": {2**70}}}'
    line = log_lines.dump(classify(text), log_lines.timestamp(0), "r", Source("f", "n"))
    assert json.loads(line)["record"] == {"n": 2**70}


@pytest.mark.parametrize("text", ["8f14e45f-ceea", 'q"u\\o', "100 %s %", "é\u2028", "half \ud800"])
def test_the_lines_of_a_request_are_the_same_however_they_are_written(text: str) -> None:
    run = log_lines.Run(text, text, 1796080333.142, 1796080333.9876, 845.126, 128, 37 << 20)
    source = Source(text, "node-é")
    lines = [log_lines.start(run), *log_lines.end(run)]
    assert log_lines.dump_run(run, source.fields) == log_lines.dump_platform(lines, text, source)
    report = log_lines.message(log_lines.dump_run(run, source.fields).splitlines()[2])
    assert report == (
        f"REPORT RequestId: {text}\tDuration: 845.13 ms\tBilled Duration: 846 ms\tMemory Size: 128 MB"
        "\tMax Memory Used: 37 MB"
    )
