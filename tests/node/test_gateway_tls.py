"""Two real nodes behind one name: one orders the certificate, the other one answers the authority, both show it."""

import json
import socket
import ssl
from pathlib import Path

from owsgit.services.gateways.orders import Orders
from tests.support import clusters, nodes
from tests.support.acme import pebble
from tests.support.clusters import Cluster
from tests.support.nodes import free_port
from tests.support.people import Person


class _Named:
    own = "a"

    def others(self) -> list[str]:
        return ["b"]


def shown(cluster: Cluster, name: str, host: str, port: int) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    plain = socket.create_connection((cluster[name].address, port), 10)
    with context.wrap_socket(plain, server_hostname=host) as made:
        made.sendall(f"GET /hello/you HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
        answer = b""
        while piece := made.recv(65536):
            answer += piece
        assert answer.endswith(b"hello you"), answer
        return made.getpeercert(True) or b""


def test_a_name_of_two_nodes(tmp_path: Path, alice: Person) -> None:
    http, port = free_port(), free_port()
    orders = Orders.__new__(Orders)
    orders._neighbours = _Named()  # type: ignore[assignment]
    host = next(host for host in (f"w{number}.test" for number in range(100)) if orders._before(host) == [])
    with pebble(tmp_path, http, port) as authority, clusters.running(tmp_path, alice, 2) as cluster:
        authority.point(host, [cluster["b"].address])
        gateway = {
            "port": port,
            "domains": [{"name": host}],
            "tls": {"certificate": {"acme": authority.spec("http-01")}, "redirectPort": http},
            "routes": {"GET /hello/{name}": {"function": "hello"}},
        }
        cluster.project.write("gateways/secure.json", json.dumps(gateway))
        commit = cluster.project.commit("Serve with TLS")
        done = cluster.push("b", "-o", "acks=all")
        assert done.status == 0, done.text
        cluster.all_at(commit)
        for name in "ab":
            nodes.until(lambda name=name: cluster[name].resource("gateways/secure")["state"] == "ready")  # type: ignore[misc,index]
        first = shown(cluster, "a", host, port)
        assert first == shown(cluster, "b", host, port)
        assert (cluster["a"].home / "acme").is_dir() and not list((cluster["b"].home / "acme").glob("*/account.pem"))
        live = cluster["b"].resource("gateways/secure")["live"]["certificates"]  # type: ignore[index]
        assert live[0]["host"] == host and "problem" not in live[0]
        assert not any("PRIVATE" in cluster[name].log.read_text() for name in "ab")
