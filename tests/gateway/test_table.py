"""Routing with API Gateway's precedence."""

import random

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


def test_routes_without_parameters_are_found_at_once_and_as_by_a_search() -> None:
    chosen, parts = random.Random(5), ["a", "b", "{x}"]
    for _ in range(200):
        paths = ["/" + "/".join(chosen.choices(parts, k=chosen.randint(0, 3))) for _ in range(6)]
        methods = [chosen.choice(["GET", "POST", "ANY"]) for _ in paths]
        paths = [path if path.count("{x}") < 2 else "/{all+}" for path in paths]
        keys = {f"{method} {path}" for method, path in zip(methods, paths, strict=True)}
        routes = [(key, key) for key in sorted(keys)]
        quick, searching = RoutingTable(routes), RoutingTable(routes)
        searching._plain.clear()
        for path in ([], ["a"], ["b"], ["a", "b"], ["b", "a"], ["a", "c"], ["a", "b", "a"], ["c"]):
            for method in ("GET", "POST", "PUT"):
                found, searched = quick.match(method, path), searching.match(method, path)
                assert (found and found.item) == (searched and searched.item), (routes, method, path)
                assert (found and found.parameters) == (searched and searched.parameters), (routes, method, path)


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
