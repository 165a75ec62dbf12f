"""What bounds a connection of HTTP/2 where h2 does not: the lengths of frames, and how many there are that only cost.

What a client can make a server do for next to nothing (resets, pings, settings, empty frames: CVE-2019-9511 to 9518,
CVE-2023-44487) is counted, and paid for by time.
"""

TOLL_MAX = 300.0
TOLL_PER_SECOND = 30.0
"""How many frames that only cost the server something may come at once, and how fast they are forgotten."""

FRAME_BYTES_MAX = 16_384
"""The smallest bound that a server may set (RFC 9113 4.2), and the one that counts if it sets none."""


class Lengths:
    """Watches the lengths of frames: h2 looks at one when the whole of it, up to 16 MiB, has come."""

    def __init__(self) -> None:
        self._skip = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self._head = b""

    def fit(self, data: bytes) -> bool:
        """Whether all frames that begin in `data`, the next bytes of the connection, are of a length that is taken."""
        at = 0
        while at < len(data):
            if self._skip:
                step = min(self._skip, len(data) - at)
                self._skip -= step
            else:
                step = min(3 - len(self._head), len(data) - at)
                self._head += data[at : at + step]
                if len(self._head) == 3:
                    length, self._head = int.from_bytes(self._head, "big"), b""
                    if length > FRAME_BYTES_MAX:
                        return False
                    self._skip = 6 + length  # kind, flags, stream
            at += step
        return True


class Toll:
    """What a client has to pay, and has not yet paid by waiting."""

    def __init__(self) -> None:
        self._owed, self._at = 0.0, 0.0

    def charge(self, count: float, now: float) -> bool:
        """Count frames that only cost; whether the client may go on."""
        self._owed = max(0.0, self._owed - (now - self._at) * TOLL_PER_SECOND) + count
        self._at = now
        return self._owed <= TOLL_MAX
