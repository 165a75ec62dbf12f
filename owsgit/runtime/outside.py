"""What a container reaches beyond its own network, by the means and rules of sandboxes: see egress and internet."""

import socket
from collections.abc import Callable

from owsgit.model.errors import UnavailableError
from owsgit.runtime import egress, internet, kernel
from owsgit.runtime.config import Network
from owsgit.runtime.egress import Egress
from owsgit.runtime.holder import Holder
from owsgit.runtime.internet import Internet
from owsgit.runtime.namespace import listening


class Outside:
    """The ways out of one container's network. `files` are what it has to find in /etc."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self._egress: Egress | None = None
        self._internet: Internet | None = None

    async def open(self, holder: Holder, network: Network) -> None:
        """Before the container runs. Raises UnavailableError."""
        try:
            await self._open(holder, network)
        except OSError as error:
            raise UnavailableError(
                f"the network of the container cannot be made: {error}", path="$.network", remedy='use "none"'
            ) from None

    async def _open(self, holder: Holder, network: Network) -> None:
        if egress.routes(network):
            hosts, addresses, names = egress.inside(network)
            listeners = holder.network.within(lambda: _listen(hosts, addresses))
            self._egress = Egress(network)
            await self._egress.open(listeners)
            self.files["hosts"] = names.encode()
        if network.internet:
            self._internet = await Internet.start(holder.process.pid, own_user_namespace=False)
            holder.network.within(_rejecting(await internet.rejected()))
            self.files["resolv.conf"] = f"nameserver {internet.RESOLVER}\n".encode()

    def close(self) -> None:
        for way in (self._egress, self._internet):
            if way is not None:
                way.close()


def _listen(hosts: list[tuple[str, int]], addresses: list[str]) -> list[socket.socket]:
    kernel.bring_up_loopback(addresses)
    return [listening(host, port) for host, port in hosts]


def _rejecting(networks: list[str]) -> Callable[[], None]:
    def reject() -> None:
        for network in networks:
            kernel.reject_network(network)

    return reject
