"""An authority that gives certificates over ACME: Pebble, Let's Encrypt's own test server, with a name server of its own."""

import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support.authorities import Authority
from tests.support.nodes import free_port


@dataclass(frozen=True)
class Pebble:
    """Looks at hosts' ports `http` and `tls`."""

    directory: str
    certificate: str  # PEM of whom its own certificate is of
    names: str  # where the name server is told what

    def spec(self, challenge: str) -> dict[str, object]:
        """The acme of a gateway."""
        return {
            "directory": self.directory,
            "email": "ops@example.com",
            "challenge": challenge,
            "caCertificate": self.certificate,
            "termsOfServiceAgreed": True,
        }

    def point(self, host: str, addresses: Sequence[str]) -> None:
        """Have `host` be at addresses (127.0.0.1 is where all others are)."""
        told = {"host": host, "addresses": list(addresses)}
        httpx.post(f"{self.names}/add-a", json=told).raise_for_status()


@contextmanager
def pebble(folder: Path, http: int, tls: int) -> Iterator[Pebble]:
    own = Authority("Directory")
    chain, key = folder / "chain.pem", folder / "key.pem"
    pem = own.issue("127.0.0.1")
    chain.write_bytes(pem.partition(b"-----BEGIN PRIVATE")[0])
    key.write_bytes(b"-----BEGIN PRIVATE" + pem.partition(b"-----BEGIN PRIVATE")[2])
    listens, manages, dns, names = (free_port() for _ in range(4))
    config = {
        "listenAddress": f"127.0.0.1:{listens}",
        "managementListenAddress": f"127.0.0.1:{manages}",
        "certificate": str(chain),
        "privateKey": str(key),
        "httpPort": http,
        "tlsPort": tls,
        "externalAccountBindingRequired": False,
    }
    file = folder / "pebble.json"
    file.write_text(json.dumps({"pebble": config}))
    nowhere = ("-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", "")
    commands = [
        ["pebble-challtestsrv", "-management", f"127.0.0.1:{names}", "-dns01", f"127.0.0.1:{dns}", *nowhere],
        ["pebble", "-config", str(file), "-dnsserver", f"127.0.0.1:{dns}"],
    ]
    settings = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "30", "PATH": "/usr/local/bin:/usr/bin:/bin"}
    with (folder / "pebble.log").open("wb") as log:
        running = [subprocess.Popen(each, env=settings, stdout=log, stderr=log) for each in commands]
    made = Pebble(f"https://127.0.0.1:{listens}/dir", own.pem, f"http://127.0.0.1:{names}")
    try:
        _wait(f"https://127.0.0.1:{listens}/dir", running)
        _wait(f"http://127.0.0.1:{names}/", running)
        yield made
    finally:
        for each in running:
            each.kill()
            each.wait()


def _wait(url: str, running: Sequence["subprocess.Popen[bytes]"]) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            httpx.get(url, verify=False)
            return
        except httpx.HTTPError:
            assert time.monotonic() < deadline and all(each.poll() is None for each in running)
            time.sleep(0.02)
