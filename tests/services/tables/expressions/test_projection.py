"""Projections: what is shown of an item."""

import pytest

from owsgit.services.tables.expressions import Placeholders, projection
from owsgit.services.tables.values import Item

ITEM: Item = {
    "p": {"S": "key"},
    "l": {"L": [{"N": "0"}, {"M": {"x": {"N": "1"}, "y": {"N": "2"}}}, {"L": [{"N": "3"}, {"N": "4"}]}]},
    "m": {"M": {"a": {"S": "A"}, "b": {"M": {"c": {"S": "C"}, "d": {"S": "D"}}}, "x.y": {"S": "dot"}}},
}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("p", {"p": ITEM["p"]}),
        ("p, gone", {"p": ITEM["p"]}),
        ("l, m", {"l": ITEM["l"], "m": ITEM["m"]}),
        ("m.a", {"m": {"M": {"a": {"S": "A"}}}}),
        ("m.b.c, m.a", {"m": {"M": {"a": {"S": "A"}, "b": {"M": {"c": {"S": "C"}}}}}}),
        ("m.#xy", {"m": {"M": {"x.y": {"S": "dot"}}}}),
        ("l[2], l[0]", {"l": {"L": [{"N": "0"}, ITEM["l"]["L"][2]]}}),
        ("l[2][1], l[1].y", {"l": {"L": [{"M": {"y": {"N": "2"}}}, {"L": [{"N": "4"}]}]}}),
        ("l[00]", {"l": {"L": [{"N": "0"}]}}),
        ("l[3], m.z, p.q, m.b.c.d", {}),
        ("l.x, m[0], p[0]", {}),
        ("l[2147483647]", {}),
    ],
)
def test_projections(text: str, wanted: Item) -> None:
    placeholders = Placeholders({"#xy": "x.y"} if "#xy" in text else None)
    assert projection.parse(text, placeholders).of(ITEM) == wanted


def test_the_attributes_of_a_projection() -> None:
    assert projection.parse("a.b, c[1], #d", Placeholders({"#d": "d.e"})).attributes() == {"a", "c", "d.e"}


def test_many_paths_are_compared_fast() -> None:
    # 4 KB of paths, all different: pair by pair that would be two million comparisons.
    names = {f"#{chr(97 + a)}{chr(97 + b)}": f"n{a}.{b}" for a in range(26) for b in range(26)}
    parsed = projection.parse(",".join(names), Placeholders(names))
    assert len(parsed.paths) == 676
