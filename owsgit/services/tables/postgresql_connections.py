"""Connections to a PostgreSQL server: how they are made, how many there are, and what their errors mean.

Every statement has a time, on the server and here; so has a transaction that nobody goes on with, as of a node that
stands still, or its locks would hold up all others.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from owsgit.model.errors import OwsgitError, UnavailableError

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

CONNECT_SECONDS = 5.0
STATEMENT_SECONDS = 20.0
LOCK_SECONDS = 10.0
ABANDONED_SECONDS = 15.0
"""After which the server ends a transaction in which nothing is done."""
ACQUIRE_SECONDS = 10.0
"""For which a request waits until one of the connections is free."""
IDLE_SECONDS = 300.0
STATEMENTS_MAX = 512
"""Prepared statements of a connection: several for each table."""

CHANGED = (asyncpg.UndefinedTableError, asyncpg.InvalidCachedStatementError)
"""Another node has dropped, or made anew, what a statement is about."""
AGAIN = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)
"""The server undid a transaction for another's sake."""
LOST = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.IdleInTransactionSessionTimeoutError,
)
"""The connection is no more. TimeoutError is an OSError."""
ERRORS = (*LOST, asyncpg.PostgresError, asyncpg.InternalClientError)

_SETTINGS = {
    "application_name": "owsgit",
    "statement_timeout": f"{STATEMENT_SECONDS:.0f}s",
    "lock_timeout": f"{LOCK_SECONDS:.0f}s",
    "default_transaction_isolation": "read committed",
    "idle_in_transaction_session_timeout": f"{ABANDONED_SECONDS:.0f}s",
    # all that is asked for goes by a key; a plan made while a table was small may not go through all of it later
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}
_PASSWORD = re.compile(r"(?<=:)[^:@/]*(?=@)|(?<=password=)[^&]*")


def unavailable(error: BaseException) -> UnavailableError:
    """What to tell of an error of the server's, or of the way there."""
    if isinstance(error, UnavailableError):
        return error
    text = _PASSWORD.sub("***", " ".join(str(error).split())) or type(error).__name__
    remedy = "see whether the server runs and can be reached, then try again"
    if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError):
        remedy = "correct the user and password: owsgit secret set, for the secret that project.json names"
    elif isinstance(error, asyncpg.InsufficientPrivilegeError):
        remedy = "the user needs to be allowed to create a schema in the database, and owns it then"
    elif isinstance(error, asyncpg.InsufficientResourcesError):
        remedy = "give the server more disk, memory or connections (max_connections), then try again"
    told = UnavailableError(f"the PostgreSQL server cannot be used: {text}", remedy=remedy)
    told.__cause__ = error
    return told


def end(connection: Connection) -> None:
    """Have a connection not be used again. The pool may have found out by itself that it is no more."""
    with contextlib.suppress(asyncpg.InterfaceError):
        connection.terminate()


class Connections:
    """A bounded number of connections, each made when it is needed, to what the address is by then."""

    def __init__(self, address: Callable[[], str], most: int, check: Callable[[Connection], Awaitable[None]]) -> None:
        """`check` is called with each new connection, and may raise UnavailableError."""
        self._address = address
        self._most = most
        self._check = check
        self._to = ""  # the address that was connected to last, or could not be
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._opening = asyncio.Lock()
        self._closed = False
        self.tried = 0.0
        """When the last connection was made, or could not be: a time of the monotonic clock."""
        self._failed = ""  # why it could not be
        self._unaddressed = ""  # why there is no address

    @property
    def problem(self) -> str:
        """Why the server cannot be used, as far as that is known; '' if nothing is wrong."""
        return self._unaddressed or self._failed

    async def _connect(self, *_: Any, **__: Any) -> Connection:
        address = self._where()
        await self._turn_to(address)
        self._failed = ""
        try:
            return await self._connected_to(address)
        except (UnavailableError, *ERRORS) as error:
            self._failed = str(unavailable(error))
            raise
        finally:
            self.tried = time.monotonic()

    def _where(self) -> str:
        self._unaddressed = ""
        try:
            return self._address()
        except OwsgitError as error:
            self._unaddressed, self.tried = str(error), time.monotonic()
            raise

    async def _connected_to(self, address: str) -> Connection:
        try:
            connection: Connection = await asyncpg.connect(
                address,
                timeout=CONNECT_SECONDS,
                command_timeout=STATEMENT_SECONDS + LOCK_SECONDS,
                statement_cache_size=STATEMENTS_MAX,
                max_cached_statement_lifetime=0,
                target_session_attrs=SessionAttribute.read_write,
                server_settings=_SETTINGS,
            )
        except ERRORS:
            raise
        except ValueError:  # of what it cannot parse; its text may be of the password
            raise UnavailableError(
                "the address of the PostgreSQL server cannot be understood",
                remedy="write it as libpq takes it: owsgit secret set, for the secret that project.json names",
            ) from None
        # what is answered is on the disk, also where the server was told to be less careful
        try:
            await connection.execute(
                "SELECT set_config('synchronous_commit', 'on', false)"
                " WHERE current_setting('synchronous_commit') IN ('off', 'local')"
            )
            await self._check(connection)
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _turn_to(self, address: str) -> None:
        if self._pool is not None and address != self._to:
            await self._pool.expire_connections()
        self._to = address

    async def look(self) -> None:
        """Have connections end, once they are free, that are to another address than the present one. That is tried
        once, for it to be told if it does not work."""
        if self._pool is None or not self._to:
            return
        with contextlib.suppress(OwsgitError, *ERRORS):
            if (address := self._where()) != self._to:
                await self._turn_to(address)
                async with self.acquire():
                    pass

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        """One of them, in no transaction. Raises UnavailableError, and whatever is in ERRORS."""
        pool = await self._open()
        try:
            connection = await pool.acquire(timeout=ACQUIRE_SECONDS)
        except TimeoutError:
            raise UnavailableError(
                f"all {self._most} connections to the PostgreSQL server are busy, or it does not answer",
                remedy="try again, and less at once",
            ) from None
        try:
            yield connection  # type: ignore[misc] # the pool's proxy is one
        finally:
            with contextlib.suppress(*ERRORS):  # whatever is under way counts: an error, or that somebody gives up
                await pool.release(connection, timeout=CONNECT_SECONDS)

    async def _open(self) -> "asyncpg.Pool[asyncpg.Record]":
        async with self._opening:
            if self._closed:
                raise UnavailableError("the node is stopping", remedy="try again")
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    connect=self._connect,
                    reset=_reset,
                    min_size=0,
                    max_size=self._most,
                    max_inactive_connection_lifetime=IDLE_SECONDS,
                )
            return self._pool

    async def close(self) -> None:
        self._closed = True
        async with self._opening:
            if self._pool is not None:
                self._pool.terminate()


async def _reset(connection: Any) -> None:
    """Whoever uses a connection leaves it as it was: nothing has to be asked of the server for it."""
