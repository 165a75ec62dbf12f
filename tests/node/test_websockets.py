"""A WebSocket API on several nodes, from a push to a message that comes over another node."""

import itertools
import json
from pathlib import Path

import boto3
import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from owsgit.gateway.sockets import Connections, Outcome
from tests.support import clusters, projects
from tests.support.nodes import free_port, owsgit
from tests.support.people import Person

CHAT = """
import json

def handler(event, context):
    about = event["requestContext"]
    return {"statusCode": 200, "body": about["connectionId"]}
"""


async def nowhere(*asked: object) -> Outcome:
    raise AssertionError


def test_every_node_sends_to_every_connection_until_the_gateway_is_gone(tmp_path: Path, alice: Person) -> None:
    aws_port = free_port()
    with clusters.running(tmp_path, alice, 2, aws_port=aws_port) as cluster:
        project, port = cluster.project, free_port()
        project.write("functions/chat/function.json", projects.function(timeout=20))
        project.write("functions/chat/app.py", CHAT)
        routes = {"$connect": {"function": "chat"}, "$default": {"function": "chat", "routeResponse": True}}
        project.write("gateways/chat.json", {"protocol": "WEBSOCKET", "port": port, "routes": routes})
        commit = project.commit("Chat")
        pushed = cluster.push("a")
        assert pushed.status == 0 and f"ws://127.0.0.1:{port}" in pushed.text, pushed.text
        cluster.all_at(commit)
        client = connect(f"ws://{cluster['a'].address}:{port}/", compression=None, proxy=None, legacy=True)
        client.send("who am I?")
        connection_id = str(client.recv(timeout=30))
        project.git("remote", "add", "origin", cluster["a"].url())
        given = json.loads(owsgit("credentials", by=alice, cwd=project.folder).text)
        for name, place in itertools.product("ab", (port, aws_port)):
            manage = boto3.client(
                "apigatewaymanagementapi", endpoint_url=f"http://{cluster[name].address}:{place}",
                region_name="us-east-1", aws_access_key_id=given["AccessKeyId"],
                aws_secret_access_key=given["SecretAccessKey"], aws_session_token=given["SessionToken"],
            )  # fmt: skip
            manage.post_to_connection(ConnectionId=connection_id, Data=f"by {name}".encode())
            assert client.recv(timeout=30) == f"by {name}"
            assert manage.get_connection(ConnectionId=connection_id)["Identity"]["SourceIp"] == "127.0.0.1"
        other = Connections("a", nowhere).new_id()
        with pytest.raises(manage.exceptions.GoneException):
            manage.delete_connection(ConnectionId=other)
        project.git("rm", "-q", "gateways/chat.json")
        project.commit("No chat")
        assert cluster.push("a").status == 0
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=30)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1001
        assert httpx.get(f"{cluster.url('a')}/hello/you").status_code == 200
