"""@connections and handshakes, signed by boto3 as by any client of AWS."""

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

import boto3
import pytest
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from websockets.exceptions import ConnectionClosedOK, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from owsgit.aws.audit import DATA
from owsgit.aws.credentials import Given
from owsgit.gateway.sockets import MESSAGE_BYTES_MAX, Connections, Outcome
from owsgit.model.errors import InvalidError
from owsgit.model.service import Alone
from owsgit.node.front_door import FrontDoor
from owsgit.node.home import AUDIT_FOLDER
from owsgit.services import KINDS
from tests.support.gateways import Account, Gateways
from tests.support.nodes import until

PLACES = ["gateway", "stage", "door"]
"""At the gateway, as an event's domainName and stage say it, and at the node's front door."""

CHAT: dict[str, Any] = {"protocol": "WEBSOCKET", "routes": {"$default": {"function": "echo", "routeResponse": True}}}


class Doored(Gateways):
    """Gateways behind a front door as well."""

    door: FrontDoor

    def endpoint(self, place: str) -> str:
        host, port = self.door.address
        return {
            "gateway": f"http://127.0.0.1:{self.port}",
            "stage": f"http://127.0.0.1:{self.port}/$default",
            "door": f"http://{host}:{port}",
        }[place]


class Apart(Alone):
    """A node that reaches none of the others."""

    def others(self) -> list[str]:
        return ["down"]


async def nowhere(node: str, fields: Mapping[str, str], body: bytes) -> Outcome:
    raise AssertionError


@pytest.fixture(scope="module")
def gateways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doored]:
    made = Doored(tmp_path_factory.mktemp("gateways"), Account(), Apart())
    made.door = FrontDoor(made.site, made.handler.apis, "127.0.0.1", 0, "node.json")
    made.do(made.door.open())
    yield made
    made.do(made.door.close())
    made.close()


def allow(action: str, *resources: str) -> dict[str, Any]:
    statement = {"Effect": "Allow", "Action": action, "Resource": list(resources)}
    return {"Version": "2012-10-17", "Statement": [statement]}


def bob(gateways: Doored, policy: dict[str, Any] | None) -> Given:
    """Credentials of bob, who may do what `policy` says."""
    account = gateways.account
    more = {"inlinePolicies": {"own": policy}} if policy else {}
    account.change({("user", "bob"): {"keys": [account.users["bob"].line], **more}})
    return account.give("bob")


def management(gateways: Doored, given: Given, place: str = "gateway") -> Any:
    return boto3.client(
        "apigatewaymanagementapi", endpoint_url=gateways.endpoint(place), region_name="us-east-1",
        aws_access_key_id=given.access_key, aws_secret_access_key=given.secret, aws_session_token=given.token,
        config=Config(retries={"max_attempts": 0}),
    )  # fmt: skip


def opened(url: str) -> tuple[ClientConnection, str]:
    """A connection and its id."""
    client = connect(url, compression=None, proxy=None, legacy=True)
    client.send("who am I?")
    return client, json.loads(client.recv(timeout=10))["requestContext"]["connectionId"]


def denied(call: Any, connection_id: str, **more: Any) -> tuple[str, int]:
    with pytest.raises(ClientError) as caught:
        call(ConnectionId=connection_id, **more)
    response = caught.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


@pytest.mark.parametrize("place", PLACES)
def test_who_signs_and_may_sends_to_a_connection(gateways: Doored, place: str) -> None:
    gateways.serve(**CHAT)
    client, connection_id = opened(f"ws://127.0.0.1:{gateways.port}/")
    own = f"arn:aws:execute-api:*:{gateways.account.state.scope.account}:api/$default"
    may = allow("execute-api:ManageConnections", f"{own}/POST/@connections/*", f"{own}/GET/@connections/*")
    manage = management(gateways, bob(gateways, may), place)
    manage.post_to_connection(ConnectionId=connection_id, Data=b"hello")
    manage.post_to_connection(ConnectionId=connection_id, Data=b"\xff" * MESSAGE_BYTES_MAX)
    assert client.recv(timeout=10) == "hello" and client.recv(timeout=10) == b"\xff" * MESSAGE_BYTES_MAX
    shown = manage.get_connection(ConnectionId=connection_id)
    assert shown["Identity"]["SourceIp"] == "127.0.0.1" and "websockets" in shown["Identity"]["UserAgent"]
    assert time.time() - 60 < shown["ConnectedAt"].timestamp() <= shown["LastActiveAt"].timestamp() <= time.time()
    assert denied(manage.delete_connection, connection_id) == ("ForbiddenException", 403)
    too_large = b"x" * (MESSAGE_BYTES_MAX + 1)
    assert denied(manage.post_to_connection, connection_id, Data=too_large) == ("PayloadTooLargeException", 413)
    for given in (bob(gateways, allow("execute-api:Invoke", "*")), bob(gateways, None)):
        other = management(gateways, given, place)
        assert denied(other.post_to_connection, connection_id, Data=b"x")[1] == 403
    assert gateways.client.post(f"/@connections/{connection_id}", content=b"x").status_code == 403
    everything = management(gateways, bob(gateways, allow("execute-api:ManageConnections", "*")), place)
    everything.delete_connection(ConnectionId=connection_id)
    with pytest.raises(ConnectionClosedOK):
        client.recv(timeout=10)
    assert denied(everything.post_to_connection, connection_id, Data=b"x") == ("GoneException", 410)


@pytest.mark.parametrize("place", PLACES)
def test_a_gateways_policy_and_a_client_that_is_behind_refuse_too(
    gateways: Doored, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    everybody = {"Effect": "Allow", "Principal": "*", "Action": "execute-api:*", "Resource": "execute-api:/*"}
    deny = {**everybody, "Effect": "Deny", "Resource": "execute-api:/$default/GET/*"}
    gateways.serve(**CHAT, policy={"Version": "2012-10-17", "Statement": [everybody, deny]})
    client, connection_id = opened(f"ws://127.0.0.1:{gateways.port}/")
    manage = management(gateways, bob(gateways, None), place)
    manage.post_to_connection(ConnectionId=connection_id, Data=b"x")
    assert denied(manage.get_connection, connection_id)[1] == 403
    monkeypatch.setattr("owsgit.gateway.sockets.PENDING_BYTES_MAX", 1)
    assert denied(manage.post_to_connection, connection_id, Data=b"12") == ("LimitExceededException", 429)
    manage.post_to_connection(ConnectionId=connection_id, Data=b"y")
    assert [client.recv(timeout=10) for _ in "xy"] == ["x", "y"]
    client.close()


@pytest.mark.parametrize("place", ["gateway", "door"])
@pytest.mark.parametrize(("node", "status"), [("down", 503), ("removed", 410), ("local", 410)])
def test_a_connection_is_gone_with_its_node_and_may_live_while_that_is_out_of_reach(
    gateways: Doored, node: str, status: int, place: str
) -> None:
    gateways.serve(**CHAT)
    manage = management(gateways, bob(gateways, allow("execute-api:ManageConnections", "*")), place)
    connection_id = Connections(node, nowhere).new_id()
    assert denied(manage.get_connection, connection_id)[1] == status
    assert (denied(manage.delete_connection, connection_id)[0] == "GoneException") == (status == 410)


def test_the_front_door_keeps_what_is_sent_apart_in_the_audit_log(gateways: Doored) -> None:
    gateways.serve(**CHAT)
    client, connection_id = opened(f"ws://127.0.0.1:{gateways.port}/")
    manage = management(gateways, bob(gateways, allow("execute-api:ManageConnections", "*")), "door")
    manage.post_to_connection(ConnectionId=connection_id, Data=b"hello")
    folder = gateways.site.home / AUDIT_FOLDER / DATA

    def record() -> Any:
        found = (
            json.loads(line)["record"] for file in folder.glob("*.jsonl") for line in file.read_bytes().splitlines()
        )
        return next((each for each in found if connection_id in str(each)), None)

    told = until(record)
    assert told["operation"] == "PostToConnection" and told["who"].endswith("user/bob")
    assert told["resources"][0].endswith(f":api/$default/POST/@connections/{connection_id}")
    client.close()


def test_a_handshake_is_signed_where_connect_asks_for_it(gateways: Doored) -> None:
    connect_route = {"$connect": {"function": "echo", "auth": "iam"}}
    gateways.serve(**{**CHAT, "routes": {**CHAT["routes"], **connect_route}})  # type: ignore[dict-item]
    url = f"ws://127.0.0.1:{gateways.port}/"
    for policy, status in (
        (allow("execute-api:Invoke", "arn:aws:execute-api:*:*:api/$default/$connect"), 101),
        (allow("execute-api:Invoke", "arn:aws:execute-api:*:*:api/$default/GET/*"), 403),
    ):
        given = bob(gateways, policy)
        request = AWSRequest("GET", url.replace("ws", "http", 1))
        keys = Credentials(given.access_key, given.secret, given.token)
        SigV4QueryAuth(keys, "execute-api", "us-east-1", expires=60).add_auth(request)
        signed = str(request.prepare().url).replace("http", "ws", 1)
        if status == 101:
            client, _ = opened(signed)
            client.send("who am I?")
            identity = json.loads(client.recv(timeout=10))["requestContext"]["identity"]
            assert identity["accessKey"] == given.access_key
            client.close()
        else:
            with pytest.raises(InvalidStatus) as caught:
                opened(signed)
            assert caught.value.response.status_code == status
    with pytest.raises(InvalidStatus):
        opened(url)


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({**CHAT, "port": 80, "auth": "iam"}, "add that route"),
        ({**CHAT, "port": 80, "routes": {"x": {"function": "f", "auth": "iam"}}}, "who may connect may send"),
    ],
)
def test_nothing_is_asked_of_a_message(document: Any, told: str) -> None:
    with pytest.raises(InvalidError) as caught:
        KINDS["gateway"].spec.parse(json.dumps(document).encode(), "gateways/x.json")
    assert told in str(caught.value)
