"""Parameters of a path in other paths and addresses, over whatever clients write."""

from urllib.parse import quote, unquote, urlsplit

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from owsgit.gateway.exchange import Body, Client, Exchange, RefusedError
from owsgit.gateway.hosts import read_target
from owsgit.gateway.table import RoutingTable, parse_key
from owsgit.gateway.template import PathTemplate

SEGMENT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def exchange_of(key: str, target: bytes) -> Exchange:
    """As it stands before an integration."""
    made = Exchange("GET", target, [], Body, Client("127.0.0.1"), "http", "HTTP/1.1")  # type: ignore[arg-type]
    read_target(made)
    segments = made.segments
    match = RoutingTable([(key, key)]).match("GET", segments[:-1] if segments[-1] == "" else segments)
    assume(match is not None)
    assert match is not None
    made.parameters = match.parameters
    return made


@given(SEGMENT, st.lists(SEGMENT, min_size=1, max_size=5))
def test_whatever_is_written_goes_to_the_host_and_below_the_path_of_the_template(one: str, rest: list[str]) -> None:
    key = "GET /a/{one}/{rest+}"
    template = PathTemplate("http://behind.example:9000/base/{rest}/of/{one}?one={one}&fixed=1", parse_key(key))
    try:
        exchange = exchange_of(key, "/".join(["/a", *(quote(each, "") for each in (one, *rest))]).encode())
        filled = template.fill(exchange)
    except RefusedError as refusal:
        assert refusal.status == 400
        return
    assert filled.isascii() and not set(filled) & set(' "<>\\^`{|}#')
    parts = urlsplit(filled)
    assert parts.scheme == "http" and parts.netloc == "behind.example:9000"
    segments = [unquote(each) for each in parts.path.split("/")]
    taken = exchange.parameters["one"]
    assert segments == ["", "base", *exchange.segments[2:], "of", taken]
    assert [unquote(each) for each in parts.query.split("&")] == [f"one={taken}", "fixed=1"]
    assert not {".", ".."} & {part for each in segments for part in each.replace("\\", "/").split("/")}


@pytest.mark.parametrize("text", ["/{a", "/a}", "/{}", "/{other}", "/{{one}}", "/{proxy}"])
def test_templates_that_there_are_not(text: str) -> None:
    with pytest.raises(ValueError, match=r"brace|parameter"):
        PathTemplate(text, parse_key("GET /{one}"))
