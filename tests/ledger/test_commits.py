"""Strict commits."""

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owsgit.ledger import commits
from owsgit.ledger.commits import BadCommitError
from tests.support.projects import Project

ID = "1" * 40
HEAD = b"tree " + b"a" * 40 + b"\nparent " + b"b" * 40 + b"\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n"


def test_the_payload_is_what_git_signs(project: Project) -> None:
    data = subprocess.run(
        ["git", "cat-file", "commit", "HEAD"], cwd=project.folder, capture_output=True, check=True
    ).stdout
    commit = commits.parse(project.head(), data)
    assert commit.signature is not None and commit.signature.startswith(b"-----BEGIN SSH SIGNATURE-----\n")
    rebuilt = commit.payload.replace(
        b"\n\n", b"\ngpgsig " + commit.signature.rstrip(b"\n").replace(b"\n", b"\n ") + b"\n\n", 1
    )
    assert rebuilt == data


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (HEAD + b"gpgsig x\ngpgsig y\n\nm", "'gpgsig' appears 2 times"),
        (HEAD + b"gpgsig x\nencoding utf-8\n\nm", "in this order"),
        (HEAD + b"GPGSIG x\n\nm", "'GPGSIG' is not taken"),
        (HEAD + b"gpgsig-sha256 x\n\nm", "'gpgsig-sha256' is not taken"),
        (HEAD + b"HG:extra x\n\nm", "'HG:extra' is not taken"),
        (HEAD + b"\nm\0x", "NUL"),
        (HEAD.replace(b"A <a@b> 1 +0000\ncommitter", b"A 1\ncommitter") + b"\nm", "author line"),
        (HEAD.replace(b"parent " + b"b" * 40, b"parent " + b"b" * 39) + b"\nm", "in this order"),
        (
            HEAD.replace(b"parent " + b"b" * 40, b"parent " + b"b" * 40 + b"\nparent " + b"b" * 40) + b"\nm",
            "a parent is named twice",
        ),
        (HEAD.replace(b"tree", b"Tree") + b"\nm", "'Tree' is not taken"),
        (HEAD, "in this order"),
        (b"", ""),
    ],
)
def test_other_forms_are_refused(data: bytes, told: str) -> None:
    with pytest.raises(BadCommitError) as caught:
        commits.parse(ID, data)
    assert told in str(caught.value)


@given(st.binary(max_size=200))
def test_garbage_is_refused(data: bytes) -> None:
    for text in (data, HEAD + data):
        try:
            commit = commits.parse(ID, text)
        except BadCommitError:
            continue
        assert text.startswith(HEAD[:40]) and commit.tree == "a" * 40


def test_what_is_shown_of_a_commit_is_safe_for_a_terminal() -> None:
    commit = commits.parse(ID, HEAD + b"\n\x1b[31mred\x07 " + b"x" * 200 + b"\nmore")
    assert commit.subject.isprintable() and len(commit.subject) <= 72
