"""What control groups say of processors."""

import os
from pathlib import Path

import pytest

from owsgit.node.door_processes import sensible
from owsgit.runtime import cgroup


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({}, 8.0),
        ({"cpu.max": "max 100000\n"}, 8.0),
        ({"cpu.max": "250000 100000\n"}, 2.5),
        ({"a/cpu.max": "400000 100000", "a/b/cpu.max": "max 100000"}, 4.0),
        ({"a/b/cpu.max": "50000 100000"}, 0.5),
        ({"cpu/a/b/cpu.cfs_quota_us": "-1", "cpu/a/b/cpu.cfs_period_us": "100000"}, 8.0),
        ({"cpu/a/b/cpu.cfs_quota_us": "300000", "cpu/a/b/cpu.cfs_period_us": "100000"}, 3.0),
        ({"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.cfs_period_us": "100000"}, 1.5),
        ({"cpu.max": "nonsense"}, 8.0),
    ],
)
def test_a_node_has_no_more_processes_than_it_has_time_for(
    files: dict[str, str], wanted: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(cgroup, "CGROUP_ROOT", tmp_path)
    monkeypatch.setattr(cgroup, "_own_group", lambda controller: "a/b")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    assert cgroup.processors() == wanted
    assert sensible() == max(int(wanted) - 1, 0)
