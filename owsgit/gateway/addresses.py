"""Addresses of other servers that a gateway asks by itself."""

from urllib.parse import urlsplit

LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""Hosts that may be asked over http: nobody is in between."""


def is_safe(url: str) -> bool:
    """Whether what is read there comes from there: https, or this very machine."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK))
