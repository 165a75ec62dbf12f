"""Addresses of the network to which nobody is let through, whatever name leads there."""

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

METADATA = frozenset(map(ipaddress.ip_address, ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16")))
"""What tells a machine its credentials, of AWS, Google Cloud, Alibaba Cloud and Azure, where it is not link-local."""


NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def parsed(text: str) -> Address:
    """As it is connected to: without a zone, and IPv4 within IPv6 (mapped, NAT64, 6to4) as IPv4. Raises ValueError.

    Whether these are of the internet, Python's ipaddress says otherwise from one patch release to another.
    """
    found = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(found, ipaddress.IPv4Address):
        return found
    if found in NAT64:
        return ipaddress.IPv4Address(found.packed[-4:])
    return found.ipv4_mapped or found.sixtofour or found


def is_metadata(address: Address) -> bool:
    """Whether a provider's metadata service may be there, or no one host is."""
    return address.is_link_local or address.is_multicast or address in METADATA
