"""Routing with API Gateway's precedence."""

import pytest

from owsgit.gateway.table import RouteKeyError, RoutingTable, parse_key

ROUTES = [
    "GET /pets/dog/1",
    "GET /pets/dog/{id}",
    "GET /pets/{proxy+}",
    "ANY /{proxy+}",
    "GET /",
    "POST /pets/{kind}",
    "ANY /pets/{kind}/toys",
]


@pytest.mark.parametrize(
    ("request_line", "route", "parameters"),
    [
        ("GET /pets/dog/1", "GET /pets/dog/1", {}),
        ("GET /pets/dog/2", "GET /pets/dog/{id}", {"id": "2"}),
        ("GET /pets/cat/1", "GET /pets/{proxy+}", {"proxy": "cat/1"}),
        ("GET /pets/dog", "GET /pets/{proxy+}", {"proxy": "dog"}),
        ("POST /pets/dog", "POST /pets/{kind}", {"kind": "dog"}),
        ("POST /pets/dog/5", "ANY /{proxy+}", {"proxy": "pets/dog/5"}),
        ("PUT /pets/dog/toys", "ANY /pets/{kind}/toys", {"kind": "dog"}),
        ("GET /", "GET /", {}),
        ("POST /a", "ANY /{proxy+}", {"proxy": "a"}),
        ("POST /", None, {}),
    ],
)
def test_the_most_specific_route_wins(request_line: str, route: str | None, parameters: dict[str, str]) -> None:
    table = RoutingTable((key, key) for key in ROUTES)
    method, path = request_line.split(" ")
    match = table.match(method, [part for part in path[1:].split("/") if part])
    assert (match.item if match else None) == route
    if match:
        assert match.parameters == parameters


def test_the_default_route_takes_what_is_left() -> None:
    table = RoutingTable([("$default", "d"), ("GET /a", "a")])
    found = [table.match(*request) for request in (("GET", ["a"]), ("POST", ["a"]), ("GET", []), ("GET", ["x", "y"]))]
    assert [match.item for match in found if match] == ["a", "d", "d", "d"]


@pytest.mark.parametrize(
    "text",
    [
        "GET",
        "GET a",
        "get /",
        "FETCH /",
        "GET /{a+}/b",
        "GET /{a}/{a}",
        "GET /a//b",
        "GET /..",
        "GET /a b",
        "GET /{}",
        "GET /x{a}",
        "",
    ],
)
def test_bad_route_keys_are_refused(text: str) -> None:
    with pytest.raises(RouteKeyError):
        parse_key(text)
