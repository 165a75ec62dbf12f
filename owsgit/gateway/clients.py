"""Who counts as one client: an IPv4 address, or a /64 of IPv6, of which one customer has at least one to itself."""

import ipaddress
from functools import lru_cache


def network(address: str) -> str:
    """The client that an address belongs to."""
    return _network_6(address) if ":" in address else address


@lru_cache(maxsize=4096)
def _network_6(address: str) -> str:
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed) >> 64 << 64, 64)))
