"""Addresses of the network to which nobody is let through, whatever name leads there."""

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

METADATA = frozenset(map(ipaddress.ip_address, ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16")))
"""What tells a machine its credentials, of AWS, Google Cloud, Alibaba Cloud and Azure, where it is not link-local."""


def parsed(text: str) -> Address:
    """As it is connected to: without a zone, and IPv4 within IPv6 as IPv4. Raises ValueError."""
    found = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found


def is_metadata(address: Address) -> bool:
    """Whether a provider's metadata service may be there, or no one host is."""
    return address.is_link_local or address.is_multicast or address in METADATA
