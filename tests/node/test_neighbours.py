"""The other nodes, as services know them."""

from owsgit.node.neighbours import LinkedNeighbours


def test_the_other_nodes_are_those_of_the_ledger_also_while_there_are_no_links() -> None:
    """A node that has just started has none, and is not alone: it would take the tables of others for its own."""
    neighbours = LinkedNeighbours("b", lambda: ["a", "b", "c"], list)
    assert neighbours.others() == ["a", "c"]
