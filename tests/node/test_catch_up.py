"""A node that was away for long: it catches up step by step, in bounded memory, and goes on where it was interrupted."""

from pathlib import Path

import pytest

from bench import catch_up
from tests.support import nodes
from tests.support.people import make

COMMITS = 1_300  # three steps
MEMORY_MIB_MAX = 120
"""More than the node has at its start; 10,000 commits take no more (bench.catch_up)."""


@pytest.mark.soak
def test_a_node_that_was_away_for_long_catches_up_in_bounded_memory(tmp_path: Path) -> None:
    root = make(tmp_path, "root")
    ahead, behind, _ = catch_up.make(tmp_path, root, COMMITS)
    ahead.start()
    behind.start()
    try:
        before = catch_up.memory(behind)
        first = behind.main()
        nodes.until(lambda: behind.main() != first, 60)
        behind.kill()  # in the middle
        interrupted = behind.main()
        behind.start()
        nodes.until(lambda: behind.main() == ahead.main(), 90)
        assert catch_up.memory(behind) - before < MEMORY_MIB_MAX
        assert interrupted not in (first, ""), "what was caught up with is kept"
        left = behind.home / "incoming"
        nodes.until(
            lambda: not left.exists() or not any(left.iterdir())
        )  # another look at a neighbour may be under way
        nodes.until(lambda: behind.status()["applied"] == ahead.main())
    finally:
        ahead.stop()
        behind.stop()
