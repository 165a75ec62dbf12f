"""@connections and handshakes, signed by boto3 as by any client of AWS."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import boto3
import pytest
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from owsgit.aws.credentials import Given
from owsgit.gateway.sockets import Connections, Outcome
from owsgit.model.errors import InvalidError
from owsgit.model.service import Alone
from owsgit.services import KINDS
from tests.support.gateways import Account, Gateways

CHAT = {"protocol": "WEBSOCKET", "routes": {"$default": {"function": "echo", "routeResponse": True}}}


class Apart(Alone):
    """A node that reaches none of the others."""

    def others(self) -> list[str]:
        return ["down"]


async def nowhere(node: str, fields: Mapping[str, str], body: bytes) -> Outcome:
    raise AssertionError


@pytest.fixture(scope="module")
def gateways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateways]:
    made = Gateways(tmp_path_factory.mktemp("gateways"), Account(), Apart())
    yield made
    made.close()


def allow(action: str, *resources: str) -> dict[str, Any]:
    statement = {"Effect": "Allow", "Action": action, "Resource": list(resources)}
    return {"Version": "2012-10-17", "Statement": [statement]}


def bob(gateways: Gateways, policy: dict[str, Any] | None) -> Given:
    """Credentials of bob, who may do what `policy` says."""
    account = gateways.account
    more = {"inlinePolicies": {"own": policy}} if policy else {}
    account.change({("user", "bob"): {"keys": [account.users["bob"].line], **more}})
    return account.give("bob")


def management(gateways: Gateways, given: Given) -> Any:
    return boto3.client(
        "apigatewaymanagementapi", endpoint_url=f"http://127.0.0.1:{gateways.port}", region_name="us-east-1",
        aws_access_key_id=given.access_key, aws_secret_access_key=given.secret, aws_session_token=given.token,
        config=Config(retries={"max_attempts": 0}),
    )  # fmt: skip


def opened(url: str) -> tuple[ClientConnection, str]:
    """A connection and its id."""
    client = connect(url, compression=None, proxy=None, legacy=True)
    client.send("who am I?")
    return client, json.loads(client.recv(timeout=10))["requestContext"]["connectionId"]


def test_who_signs_and_may_sends_to_a_connection(gateways: Gateways) -> None:
    gateways.serve(**CHAT)
    client, connection_id = opened(f"ws://127.0.0.1:{gateways.port}/")
    own = "arn:aws:execute-api:*:*:api/$default"
    manage = management(gateways, bob(gateways, allow("execute-api:ManageConnections", f"{own}/POST/@connections/*")))
    manage.post_to_connection(ConnectionId=connection_id, Data=b"hello")
    assert client.recv(timeout=10) == "hello"
    with pytest.raises(ClientError) as caught:
        manage.delete_connection(ConnectionId=connection_id)
    assert caught.value.response["Error"]["Code"] == "ForbiddenException"
    for given in (bob(gateways, allow("execute-api:Invoke", "*")), bob(gateways, None)):
        with pytest.raises(ClientError) as caught:
            management(gateways, given).post_to_connection(ConnectionId=connection_id, Data=b"x")
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    assert gateways.client.post(f"/@connections/{connection_id}", content=b"x").status_code == 403
    client.close()


@pytest.mark.parametrize(("node", "status"), [("down", 503), ("removed", 410), ("local", 410)])
def test_a_connection_is_gone_with_its_node_and_may_live_while_that_is_out_of_reach(
    gateways: Gateways, node: str, status: int
) -> None:
    gateways.serve(**CHAT)
    manage = management(gateways, bob(gateways, allow("execute-api:ManageConnections", "*")))
    with pytest.raises(ClientError) as caught:
        manage.get_connection(ConnectionId=Connections(node, nowhere).new_id())
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert isinstance(caught.value, manage.exceptions.GoneException) == (status == 410)


def test_a_handshake_is_signed_where_connect_asks_for_it(gateways: Gateways) -> None:
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
