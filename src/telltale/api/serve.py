"""`telltale api`: wait for the database, then serve until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Final

import structlog
import uvicorn

from telltale.api.app import create_app
from telltale.config import Settings
from telltale.errors import SettingsError, TelltaleError
from telltale.store.pool import is_waitable, open_pool
from telltale.store.ready import is_migrated

DATABASE_WAIT_S: Final = 30.0
STOP_S: Final = 3
_log = structlog.get_logger("telltale.api")


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the command line, which sets `stop`."""
        yield


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Serve the API and pages until `stop` is set; raises TelltaleError when the database cannot be used."""
    await wait_for_database(settings)
    listener = bind(settings.http_host, settings.http_port)
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,  # a login link carries a key: URLs stay out of the log
        timeout_graceful_shutdown=STOP_S,
        server_header=False,
    )
    server = _Server(config)
    host, port = listener.getsockname()[:2]
    _log.info("listening", url=f"http://{host}:{port}", host=host, port=port)

    async def on_stop() -> None:
        await stop.wait()
        app.state.hub.close()
        server.should_exit = True

    watcher = asyncio.create_task(on_stop())
    try:
        await server.serve(sockets=[listener])
    finally:
        watcher.cancel()


async def wait_for_database(settings: Settings, wait_s: float = DATABASE_WAIT_S) -> None:
    """Return once the database answers and is migrated; give up with one line after `wait_s`."""
    give_up = asyncio.get_running_loop().time() + wait_s
    while True:
        try:
            pool = await open_pool(settings.database, role_name="api", timeout_s=5.0, max_size=1)
            break
        except Exception as error:
            if not is_waitable(error) or asyncio.get_running_loop().time() > give_up:
                raise TelltaleError(f"api: the database cannot be reached: {error or repr(error)}") from error
        await asyncio.sleep(0.5)
    async with pool:
        if not await is_migrated(pool):
            raise SettingsError("api: the database lacks tables of this version; run: telltale migrate")


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes any free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise SettingsError(f"api: cannot listen on {host} port {port}: {error.strerror}") from error
