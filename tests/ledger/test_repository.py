"""The repository of a node: what a process that was killed leaves behind does not stop the next."""

from pathlib import Path

import pytest

from owsgit.ledger.repository import MAIN, GitError, Repository, run


def test_locks_of_who_was_killed_are_removed_when_the_node_starts_again(tmp_path: Path) -> None:
    repository = Repository.create(tmp_path / "ledger.git", tmp_path)
    path = repository.path
    tree = run(path, "mktree", data=b"")
    commit = run(path, "-c", "user.name=x", "-c", "user.email=x@y", "commit-tree", "-m", "first", tree)
    repository.move_main(None, commit)
    for name in (f"{MAIN}.lock", "config.lock", "HEAD.lock", "packed-refs.lock"):
        (path / name).touch()
    with pytest.raises(GitError, match=r"main cannot be moved to .*lock"):
        repository.move_main(
            commit, run(path, "-c", "user.name=x", "-c", "user.email=x@y", "commit-tree", "-m", "2", tree)
        )
    again = Repository.create(path, tmp_path)
    again.move_main(commit, commit)
    assert again.head() == commit and not list(path.rglob("*.lock"))
