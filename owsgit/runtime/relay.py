"""Passes bytes on from one connection to another."""

import asyncio
import contextlib

PIECE_BYTES = 64 * 1024


async def pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while piece := await source.read(PIECE_BYTES):
        target.write(piece)
        await target.drain()
    with contextlib.suppress(OSError, NotImplementedError):
        target.write_eof()
