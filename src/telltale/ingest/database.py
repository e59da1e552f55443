"""The worker's one database connection: lent to one user at a time, made anew when anything failed on it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator

from telltale.config import Settings
from telltale.errors import FencedError
from telltale.store import offsets
from telltale.store.offsets import Place
from telltale.store.pool import Connection, InterfaceError, connect, is_waitable


class Database:
    """A connection that is there when it is asked for. `held` tells which (partition, epoch) it serves."""

    def __init__(self, settings: Settings, held: Callable[[], list[tuple[Place, int]]]) -> None:
        self._settings = settings
        self._held = held
        self._turn = asyncio.Lock()
        self._connection: Connection | None = None

    @property
    def is_connected(self) -> bool:
        """Tell whether there is a connection now."""
        return self._connection is not None and not self._connection.is_closed()

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[Connection]:
        """Lend the connection to one user at a time, made anew if need be."""
        async with self._turn:
            with self._dropped_on_failure():
                yield await self._connected()

    @contextlib.asynccontextmanager
    async def as_it_is(self) -> AsyncIterator[Connection | None]:
        """Lend the connection to one user at a time; None when there is none, without making one."""
        async with self._turn:
            with self._dropped_on_failure():
                yield self._connection if self.is_connected else None

    @contextlib.contextmanager
    def _dropped_on_failure(self) -> Iterator[None]:
        """Never use a connection again on which something failed or was interrupted.

        A session that the server has ended may not look closed yet, and would hang whoever came next.
        """
        try:
            yield
        except FencedError:  # said by an intact server
            raise
        except BaseException:
            if self._connection is not None:
                self._connection.terminate()
                self._connection = None
            raise

    def may_pass(self, error: Exception) -> bool:
        """Tell whether an error may pass by itself; a connection dropped for it counts as closed."""
        return is_waitable(error) or (self._connection is None and isinstance(error, InterfaceError))

    async def close(self, timeout_s: float) -> None:
        """Close the connection in order, as far as it is there."""
        if self._connection is not None:
            with contextlib.suppress(Exception):
                await self._connection.close(timeout=timeout_s)

    async def _connected(self) -> Connection:
        """Return the connection, a new one when the old is gone; its backend is then made known."""
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(
                self._settings.database, role_name="ingest", timeout_s=self._settings.database_timeout_s
            )
            await offsets.adopt(self._connection, self._held())
        return self._connection
