"""What a client has not yet taken of what was sent to it."""

import asyncio
import fcntl
import struct
import termios


def unread(transport: asyncio.Transport) -> int:
    """Bytes that wait here, and that the kernel keeps until the client acknowledges them (tcp(7), SIOCOUTQ).

    The kernel takes megabytes at once, and more only when a third of them is gone: what waits here alone would say for
    long that a slow client reads nothing.
    """
    waiting = transport.get_write_buffer_size()
    try:
        kept = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
    except (AttributeError, OSError):  # it is closed
        return waiting
    return waiting + int(struct.unpack("i", kept)[0])
