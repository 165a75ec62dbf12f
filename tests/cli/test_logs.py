"""What the client makes of logs: times that people write, and what nodes and functions say that are hostile."""

import json
import queue
from pathlib import Path

import pytest

from owsgit.cli.log_streams import Logs, Question
from owsgit.cli.logs import moment, shown
from owsgit.cli.remote import Remote
from owsgit.model.errors import InvalidError, OwsgitError


def test_times_are_taken_as_people_write_them() -> None:
    assert moment("2026-01-31T10:00:00Z") == "2026-01-31T10:00:00.000Z"
    assert moment("2026-01-31T10:00:00+02:00") == "2026-01-31T08:00:00.000Z"
    assert moment("10m") < moment("9m") < moment("1s") and moment("2d") < moment("47h")
    for wrong in ("", "m", "10", "10y", "-1m", "yesterday", "999999d9", "9999999m"):
        with pytest.raises(InvalidError):
            moment(wrong)


def test_what_a_function_writes_cannot_draw_on_the_terminal() -> None:
    line = shown({"time": "t", "node": "a\x1b[2J", "requestId": "r", "message": "a\tb\n\x1b[31mred\x9b\u202e"})
    assert line == "t a?[2J r        a\tb\n?[31mred??"


def node(folder: Path, *lines: object) -> Remote:
    """A program in the place of ssh that says `lines`, whatever it is asked."""
    told = folder / "told"
    told.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    program = folder / "ssh"
    program.write_text(f'#!/bin/sh\necho "$@" >> {folder}/called\ncat {told}\n')
    program.chmod(0o755)
    return Remote((str(program),), "127.0.0.1", 7022, "ssh://127.0.0.1:7022/shop")


def logs(notes: "queue.Queue[str]") -> Logs:
    return Logs(Question("f", 9, follow=False), True, notes.put, list)


def hello(*members: object) -> dict[str, object]:
    return {"owsgit": {"node": "a", "members": [{"name": "a", "address": "127.0.0.1", "port": 7022}, *members]}}


@pytest.mark.parametrize("address", ["-oProxyCommand=touch x", "a b", "", "$(touch x)", 7])
def test_a_nodes_address_is_never_an_option_of_ssh(tmp_path: Path, address: object) -> None:
    remote = node(tmp_path, hello({"name": "b", "address": address, "port": 22}))
    with pytest.raises(OwsgitError, match="does not speak as this client does"):
        list(logs(queue.Queue()).batches(remote))
    assert "touch" not in (tmp_path / "called").read_text()


def test_what_no_cursor_followed_is_not_shown_and_who_sent_a_line_is_known(tmp_path: Path) -> None:
    line = '{"time": "2026-01-31T10:00:00.000Z", "requestId": "r", "message": "%s", "node": "z"}'
    remote = node(tmp_path, hello(), line % "one", {"owsgit": {"cursor": "1-1-1", "live": True}}, line % "cut")
    ((entry,),) = logs(queue.Queue()).batches(remote)
    assert entry["message"] == "one" and entry["node"] == "a"


@pytest.mark.parametrize(
    "said",
    [
        "{}",
        '{"owsgit": 7}',
        '{"owsgit": {"cursor": [], "live": 1}}',
        '{"owsgit": {"node": "a", "members": [{"name": "a", "address": "a", "port": 1e999}]}}',
        '{"owsgit": ' + "[" * 9000,
        '{"time": ' + "[" * 9000,
        '{"owsgit',
        "x" * 100,
    ],
)
def test_garbage_of_a_node_is_no_traceback(tmp_path: Path, said: str) -> None:
    try:
        assert list(logs(queue.Queue()).batches(node(tmp_path, said))) == [[]]
    except OwsgitError as error:
        assert "does not speak" in str(error)
