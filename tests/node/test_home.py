"""The folder of a node."""

from pathlib import Path

import pytest

from owsgit.model.errors import UnavailableError
from owsgit.node import home
from owsgit.node.home import Home


def test_a_node_says_that_its_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home, "DISK_BYTES_MIN", 0)
    assert Home(tmp_path).lack() == ""
    monkeypatch.setattr(home, "DISK_BYTES_MIN", 1 << 62)
    assert Home(tmp_path).lack().startswith("its disk is full, less than")
    gone = Home(tmp_path / "gone")
    assert gone.lack() == "its home cannot be read: No such file or directory"
    with pytest.raises(UnavailableError, match="gone cannot be written: No such file or directory"), gone.lock():
        pass
