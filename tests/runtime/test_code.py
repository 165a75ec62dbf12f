"""Code folders on disk."""

import os
from pathlib import Path

import pytest

from owsgit.model.service import CodeFile
from owsgit.runtime.code import CodeStore

FILES = [
    CodeFile("app.py", False, b"x = 1\n"),
    CodeFile("bin/run", True, b"#!/bin/sh\n"),
    CodeFile("a/b/c.txt", False, b""),
]


@pytest.fixture
def store(tmp_path: Path) -> CodeStore:
    (tmp_path / "code").mkdir()
    return CodeStore(tmp_path / "code")


def test_files_are_laid_out_read_only_once(store: CodeStore) -> None:
    folder = store.lay_out("t1", FILES)
    assert (folder / "a/b/c.txt").read_bytes() == b"" and os.access(folder / "bin/run", os.X_OK)
    assert {path.stat().st_mode & 0o222 for path in [folder, *folder.rglob("*")]} == {0}
    inode = folder.stat().st_ino
    assert store.lay_out("t1", iter(())).stat().st_ino == inode, "it is there already: nothing is read or written"


@pytest.mark.parametrize(
    "tamper",
    [
        lambda folder: (folder / "app.py").chmod(0o644),
        lambda folder: (
            (folder / "app.py").chmod(0o644),
            (folder / "app.py").write_text("x = 2\n"),
            (folder / "app.py").chmod(0o444),
        ),
        lambda folder: (folder.chmod(0o755), (folder / "app.py").unlink()),
        lambda folder: (folder.chmod(0o755), (folder / "new.py").write_text("")),
        lambda folder: (
            folder.chmod(0o755),
            (folder / "app.py").unlink(),
            (folder / "app.py").symlink_to("/etc/passwd"),
        ),
        lambda folder: folder.parent.joinpath("t1.manifest").unlink(),
        lambda folder: folder.parent.joinpath("t1.manifest").write_text("{"),
    ],
)
def test_what_was_tampered_with_is_noticed_and_made_again(store: CodeStore, tamper) -> None:  # type: ignore[no-untyped-def]
    folder = store.lay_out("t1", FILES)
    assert store.drift("t1") is None
    tamper(folder)
    assert store.drift("t1") is not None
    store.lay_out("t1", FILES)
    assert store.drift("t1") is None and (folder / "app.py").read_text() == "x = 1\n"


def test_a_layout_that_was_cut_short_is_no_layout(store: CodeStore) -> None:
    def breaking():  # type: ignore[no-untyped-def]
        yield FILES[0]
        raise OSError("power cut")

    with pytest.raises(OSError, match="power cut"):
        store.lay_out("t1", breaking())
    assert store.drift("t1") is not None
    assert (store.lay_out("t1", FILES) / "bin/run").exists()
    store.sweep({"t1"})
    assert sorted(path.name for path in store.folder.iterdir()) == ["t1", "t1.manifest"]


def test_unused_folders_go_when_there_are_too_many(store: CodeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("owsgit.runtime.code.SPARE_MAX", 2)
    for number in range(5):
        store.lay_out(f"t{number}", FILES)
        os.utime(store.folder / f"t{number}.manifest", (number, number))
    store.sweep({"t0"})
    assert sorted(path.name for path in store.folder.glob("t?")) == ["t0", "t3", "t4"]
