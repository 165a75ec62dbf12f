"""Equal nodes: any of them takes the push, the majority decides, all of them serve. Real processes on loopback."""

from pathlib import Path

import pytest

from tests.support import clusters, nodes
from tests.support.people import Person


def test_any_node_takes_the_push_and_all_serve_it(tmp_path: Path, alice: Person) -> None:
    with clusters.running(tmp_path, alice, 3) as cluster:
        for word, name in (("one", "a"), ("two", "b"), ("three", "c")):
            commit = cluster.change(word)
            done = cluster.push(name, "-o", "acks=all")
            assert done.status == 0, done.text
            assert "of 3 nodes" in done.text and "applied on all 3 nodes" in done.text
            assert [cluster.get(each) for each in "abc"] == [f"{word} you"] * 3
            assert {node.main() for node in cluster.nodes.values()} == {commit}
