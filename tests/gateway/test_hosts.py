"""Several gateways on one port, told apart by host name and by the start of the path; stages."""

import asyncio
import json
from typing import Any

import pytest

from owsgit.gateway.app import Api
from owsgit.gateway.exchange import Exchange, Handler, Mount, Response
from owsgit.gateway.functions import FunctionIntegration
from owsgit.gateway.hosts import ANY_HOST, Binding
from owsgit.model.errors import InvalidError
from owsgit.services.gateways.spec import GatewaySpec
from tests.gateway.served import Echo, Served, raw
from tests.support.nodes import free_port


def spec_of(document: dict[str, Any]) -> GatewaySpec:
    return GatewaySpec.parse(json.dumps(document).encode(), "gateways/api.json")


def says(word: str) -> Handler:
    async def handler(exchange: Exchange) -> Response:
        return Response(200, [], f"{word} {exchange.mount.stage} {exchange.path}".encode())

    return handler


def binding(word: str, host: str, *base_path: str, stage: str = "$default") -> Binding:
    api = Api(Mount(word, "1", stage), [("$default", says(word))])
    return Binding(host, base_path, api.below(base_path))


def get(gateway: Served, host: str, path: str) -> str:
    found = gateway.client.get(path, headers={"host": host})
    return found.text if found.status_code == 200 else str(found.status_code)


@pytest.mark.parametrize(
    ("is_mapped", "expected"),
    [(True, ("/pets/7", "/v1/pets/7", "/v1/pets/7")), (False, ("/v1/pets/7", "/pets/7", "/v1/pets/7"))],
)
def test_events_have_base_paths_where_aws_has_them(gateway: Served, is_mapped: bool, expected: tuple[str, ...]) -> None:
    """A base path of a domain, and the name of a stage, which clients write as well."""
    routes = [
        (f"GET /{name}/{{id}}", FunctionIntegration(Echo(), "echo", version, 5.0))
        for name, version in (("pets", "2.0"), ("cats", "1.0"))
    ]
    api = Api(Mount("shop", "1", "v1"), routes).below(("v1",), is_mapped=is_mapped)
    gateway.do(gateway.listeners.serve("api", gateway.port, [Binding(ANY_HOST, ("v1",), api)]))
    second = gateway.client.get("/v1/pets/7").json()
    first = gateway.client.get("/v1/cats/7").json()
    written = gateway.client.get("/%761/cats/a%2F7").json()
    assert written["path"] == first["path"].replace("7", "a%2F7") and written["pathParameters"] == {"id": "a%2F7"}
    assert second["requestContext"]["http"]["path"] == second["rawPath"]
    paths = (second["rawPath"], first["path"], first["requestContext"]["path"])
    assert tuple(path.replace("cats", "pets") for path in paths) == expected and first["resource"] == "/cats/{id}"


def test_the_most_exact_host_and_the_longest_base_path_answer(gateway: Served) -> None:
    bindings = [
        binding("shop", "shop.example.com"),
        binding("orders", "shop.example.com", "v1", "orders"),
        binding("v1", "shop.example.com", "v1"),
        binding("any", "*.example.com"),
    ]
    gateway.do(gateway.listeners.serve("api", gateway.port, bindings))
    for host, path, answer in [
        ("shop.example.com", "/x", "shop $default /x"),
        ("SHOP.example.com:80", "/v1", "v1 $default /"),
        ("shop.example.com", "/v1/orders/7", "orders $default /7"),
        ("shop.example.com", "/v1/ordersx", "v1 $default /ordersx"),
        ("shop.example.com", "/v%31/orders", "orders $default /"),
        ("other.example.com", "/", "any $default /"),
        ("a.b.example.com", "/", "404"),
        ("example.com", "/", "404"),
        ("", "/", "404"),
    ]:
        assert get(gateway, host, path) == answer, (host, path)


def test_gateways_of_several_owners_share_a_port_and_come_and_go(gateway: Served) -> None:
    serve = gateway.listeners.serve
    gateway.do(serve("api", gateway.port, [binding("api", "a.example")]))
    listener = gateway.do(serve("other", gateway.port, [binding("other", ANY_HOST)]))
    assert get(gateway, "a.example", "/") == "api $default /" and get(gateway, "b.example", "/") == "other $default /"
    gateway.do(gateway.listeners.release("api"))
    assert get(gateway, "a.example", "/") == "other $default /"
    gateway.do(serve("api", gateway.port, []))
    gateway.do(gateway.listeners.release("other"))
    assert not listener.is_open
    gateway.serve({})


def test_stages_are_served_below_their_names(gateway: Served) -> None:
    spec = spec_of({"port": gateway.port, "stages": {"$default": {}, "dev": {}}, "routes": {}})
    places = [binding("api", host, *base, stage=stage) for host, base, stage in spec.places()]
    gateway.do(gateway.listeners.serve("api", gateway.port, places))
    assert get(gateway, "x", "/dev/a") == "api dev /a" and get(gateway, "x", "/a") == "api $default /a"


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"domains": [{"name": "Shop.example"}]}, "name"),
        ({"domains": [{"name": "a.example", "stage": "dev"}]}, r"names the stage 'dev'; there are \$default"),
        ({"domains": [{"name": "a.example"}, {"name": "a.example"}]}, "two stages are served at / of a.example"),
        ({"domains": [{"name": "a.example", "basePath": "v1/"}]}, "basePath"),
        ({"routes": {"GET /": {"function": "${stageVariables.f}"}}}, "a variable that the stage .* does not have"),
        ({"routes": {"GET /": {}}}, "exactly one of"),
        ({"stages": {}}, "stages"),
    ],
)
def test_what_does_not_fit_together_is_refused(document: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidError, match=words):
        spec_of({"port": 80, "routes": {}, **document})


def test_references_and_claims_are_those_of_every_stage_and_place() -> None:
    spec = spec_of(
        {
            "port": 80,
            "stages": {"live": {"variables": {"f": "shop:live"}}, "dev": {"variables": {"f": "shop-dev"}}},
            "domains": [
                {"name": "a.example", "stage": "live"},
                {"name": "a.example", "basePath": "/dev", "stage": "dev"},
            ],
            "routes": {"GET /": {"function": "${stageVariables.f}"}},
        },
    )
    assert [reference.name for reference in spec.references()] == ["shop", "shop-dev"]
    assert [claim.value for claim in spec.claims() if not claim.shared] == ["80 at a.example/", "80 at a.example/dev"]


def test_an_absolute_target_leaves_no_other_host_to_whoever_reads_it_later(gateway: Served) -> None:
    async def told(exchange: Exchange) -> Response:
        return Response(200, [], b"%b %b %b" % (exchange.host.encode(), exchange.header(b"host"), exchange.target))

    gateway.handle([("$default", told)])
    request = b"GET http://a.test:80/x?y HTTP/1.1\r\nhost: b.test\r\nconnection: close\r\n\r\n"
    assert raw(gateway.port, request).endswith(b"a.test a.test:80 /x?y")


def test_gateways_that_come_together_may_share_a_new_port(gateway: Served) -> None:
    port = free_port()

    async def both() -> None:
        apis = {name: Api(Mount(name, "123456789012"), []) for name in ("one", "two")}
        serving = (
            gateway.listeners.serve(name, port, [Binding(f"{name}.example.com", (), api)]) for name, api in apis.items()
        )
        await asyncio.gather(*serving)

    gateway.do(both())
    assert {each.port for name in ("one", "two") for each in gateway.listeners.all_of(name)} == {port}
